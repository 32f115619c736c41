"""The table on the screen."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lira.attacks import tables
from lira.attacks.held_out import AttackResult
from lira.attacks.metrics import clopper_pearson
from lira.attacks.registry import ATTACKS
from lira.report.text import has_colours, terminal_table
from tests.helpers.attack_inputs import N, played, truths


def summary_of(given, scored):
    table = tables.attack_table(scored, given.member, given.names, convention="lira", queries=given.phi.shape[2])
    return tables.summary_table(table)


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_screen_shows_the_guesses_of_all_targets_together(n_targets):
    given, scored = played(n_targets=n_targets, attacks=["lira", "loss"])
    summary = summary_of(given, scored)
    lines = terminal_table(summary, "loss").splitlines()
    assert " ".join(lines[0].split()) == "attack accuracy [95 % interval] AUC TPR at 1 % 0.1 % FPR"
    assert set(lines[1]) == {"-"}
    assert len(lines) == 6
    for line, name in zip(lines[2:4], ("lira", "loss"), strict=True):
        own = [one for one in scored if one.attack == name]
        right = sum(int(((one.score >= one.threshold) == given.member[one.target]).sum()) for one in own)
        low, high = clopper_pearson(right, n_targets * N)
        cells = line.replace(" *", "").split()
        assert cells[:4] == [name, f"{right / (n_targets * N):.1%}", f"[{low:.1%},", f"{high:.1%}]"]
        row = summary[summary.attack == name].iloc[0]
        rates = [f"{row['tpr_at_fpr_0.01']:.2%}†", f"{row['tpr_at_fpr_0.001']:.2%}†"]
        assert cells[4:] == [f"{row.auc:.3f}", *rates]
        assert ("*" in line) == (name == "loss")
    assert lines[4].startswith("† not resolvable")
    assert lines[5] == f"* strongest by the shadows' own held-out scores; {n_targets * N} guesses an attack"


def test_only_rates_below_one_non_member_are_marked():
    given, scored = played(n_targets=1, attacks=["lira"])
    summary = summary_of(given, scored)
    summary["resolvable_at_0.01"] = True
    (row,) = [line for line in terminal_table(summary, "loss").splitlines() if line.startswith("lira")]
    assert [cell.endswith("†") for cell in row.split()[-2:]] == [False, True]
    summary["resolvable_at_0.001"] = True
    assert "†" not in terminal_table(summary, "loss")


def test_the_screen_fits_80_columns_for_many_targets():
    given, scored = played(n_targets=20, n_shadows=8)
    summary = summary_of(given, scored)
    summary["n_guesses"] = 200_000
    for strongest in ATTACKS:
        lines = terminal_table(summary, strongest).splitlines()
        assert max(map(len, lines)) <= 80
        assert sum(" * " in line for line in lines[2:-1]) == 1


def test_attacks_that_scored_different_samples_say_how_many_guesses():
    given, (lira, loss) = played(n_targets=1, attacks=["lira", "loss"])
    score = np.where(np.arange(N) < 10, np.nan, lira.score)
    summary = summary_of(given, [AttackResult("lira", 0, score, lira.threshold, 0.5, 6), loss])
    assert terminal_table(summary, "lira").endswith(f"; {N - 10} to {N} guesses an attack")


def test_figures_that_are_not_known_are_dashes():
    given = truths([True] * 10)
    summary = summary_of(given, [AttackResult("loss", 0, np.arange(10.0), np.nan, np.nan, 6)])
    line = terminal_table(summary, "loss").splitlines()[2]
    assert line.split() == ["loss", "*", "-", "-", "-", "-"]


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    given, scored = played(n_targets=1, attacks=["lira", "loss"])
    summary = summary_of(given, scored)
    plain, coloured = (terminal_table(summary, "loss", colour=wanted) for wanted in (False, True))
    assert "\033" not in plain
    (bold,) = [line for line in coloured.splitlines() if "\033" in line]
    assert bold.startswith("\033[1mloss *")
    assert bold.endswith("\033[0m")
    for terminal, no_colour, term, expected in (
        (True, None, "xterm", True), (False, None, "xterm", False), (True, "1", "xterm", False),
        (True, "", "xterm", True), (True, None, "dumb", False),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda terminal=terminal: terminal))
        monkeypatch.setenv("TERM", term)
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_colour is not None:
            monkeypatch.setenv("NO_COLOR", no_colour)
        assert has_colours() == expected
