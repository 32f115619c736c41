"""The table of the terminal, its width and its colours."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lira.attacks import tables
from lira.attacks.held_out import AttackResult
from lira.attacks.registry import ATTACKS
from lira.report import results
from lira.report.terminal import WIDTH, has_colours, report, terminal_table
from lira.report.text import audit_of
from tests.helpers.attack_inputs import N, inputs_and_results, truths
from tests.helpers.report import attacked_run


def summary_of(attack_inputs, results):
    names = attack_inputs.model_names
    return tables.summary_table(tables.attack_table(results, attack_inputs.member, names, convention="lira", queries=1))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_table_has_the_numbers_of_the_summary(n_targets):
    summary = summary_of(*inputs_and_results(n_targets=n_targets, attacks=["lira", "loss"]))
    lines = terminal_table(summary, "loss").splitlines()
    assert " ".join(lines[0].split()) == "attack accuracy [95 % interval] AUC TPR at 1 % FPR at 0.1 %"
    assert set(lines[1]) == {"-"}
    assert len(lines) == 7
    for line, name in zip(lines[2:4], ("lira", "loss"), strict=True):
        row = summary[summary.attack == name].iloc[0]
        accuracy = [f"{row.accuracy:.1%}", f"[{row.accuracy_low:.1%},", f"{row.accuracy_high:.1%}]"]
        rates = [f"{row['tpr_at_fpr_0.01']:.2%}†", f"{row['tpr_at_fpr_0.001']:.2%}†"]
        assert line.replace(" *", "").split() == [name, *accuracy, f"{row.auc:.3f}", *rates]
        assert ("*" in line) == (name == "loss")
    assert lines[4].startswith("† not resolvable")
    assert lines[5] == "95 % intervals cover repetitions: other samples, targets and shadows"
    assert lines[6] == f"* strongest by the AUC of the held-out shadows; {n_targets * N} guesses per attack"


def test_only_rates_below_one_non_member_are_marked():
    summary = summary_of(*inputs_and_results(n_targets=1, attacks=["lira"]))
    summary["resolvable_at_0.01"] = True
    (row,) = [line for line in terminal_table(summary, "loss").splitlines() if line.startswith("lira")]
    assert [cell.endswith("†") for cell in row.split()[-2:]] == [False, True]
    summary["resolvable_at_0.001"] = True
    assert "†" not in terminal_table(summary, "loss")


def test_the_table_fits_80_columns_for_many_targets():
    summary = summary_of(*inputs_and_results(n_targets=20, n_shadows=8))
    summary["n_guesses"] = 200_000
    for strongest in ATTACKS:
        lines = terminal_table(summary, strongest).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert sum(" * " in line for line in lines[2:-1]) == 1


def test_too_few_shadows_for_intervals_are_named():
    summary = summary_of(*inputs_and_results(n_targets=1, n_shadows=4, attacks=["lira", "loss"]))
    lines = terminal_table(summary, "loss").splitlines()
    assert f"{summary.accuracy[1]:.1%} - " in " ".join(lines[3].split())
    assert lines[-2] == "no interval with fewer than 3 pairs of held-out shadows (6 shadows)"
    assert max(map(len, lines)) <= WIDTH


def test_attacks_with_unscored_samples_have_fewer_guesses():
    attack_inputs, (lira, loss) = inputs_and_results(n_targets=1, attacks=["lira", "loss"])
    score = np.where(np.arange(N) < 10, np.nan, lira.score)
    summary = summary_of(attack_inputs, [AttackResult("lira", 0, score, lira.threshold, 0.5, 6), loss])
    assert terminal_table(summary, "lira").endswith(f"; {N - 10} to {N} guesses per attack")


def test_undefined_values_are_dashes():
    summary = summary_of(truths([True] * 10), [AttackResult("loss", 0, np.arange(10.0), np.nan, np.nan, 6)])
    assert terminal_table(summary, "loss").splitlines()[2].split() == ["loss", "*", "-", "-", "-", "-"]


def test_colours_are_for_terminals_with_colours(monkeypatch):
    summary = summary_of(*inputs_and_results(n_targets=1, attacks=["lira", "loss"]))
    plain, coloured = (terminal_table(summary, "loss", colour=colour) for colour in (False, True))
    assert "\033" not in plain
    (bold,) = [line for line in coloured.splitlines() if "\033" in line]
    assert bold.startswith("\033[1mloss *")
    assert bold.endswith("\033[0m")
    for is_terminal, environment, expected in [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ]:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda is_terminal=is_terminal: is_terminal))
        monkeypatch.setattr("os.environ", {"TERM": "xterm"} | environment)
        assert has_colours() == expected


def test_what_is_printed_is_wrapped_for_the_terminal(tmp_path):
    read = results.read(attacked_run(tmp_path, leave_one_out=True))
    lines = report(read, tmp_path).splitlines()[1:]
    assert max(map(len, lines)) <= WIDTH
    for line in audit_of(read):
        assert line in " ".join(lines)
