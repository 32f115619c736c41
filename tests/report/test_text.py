"""The table of the terminal, and the text of the audit."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lira.attacks import tables
from lira.attacks.held_out import AttackResult
from lira.attacks.registry import ATTACKS
from lira.attacks.tables import POOLED
from lira.report.text import WIDTH, audit_lines, audit_summary, has_colours, terminal_table, verdict
from tests.helpers.attack_inputs import N, inputs_and_results, truths


def summary_of(attack_inputs, results):
    names = attack_inputs.model_names
    return tables.summary_table(tables.attack_table(results, attack_inputs.member, names, convention="lira", queries=1))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_table_has_the_numbers_of_the_summary(n_targets):
    summary = summary_of(*inputs_and_results(n_targets=n_targets, attacks=["lira", "loss"]))
    lines = terminal_table(summary, "loss").splitlines()
    assert " ".join(lines[0].split()) == "attack accuracy [95 % interval] AUC TPR at 1 % 0.1 % FPR"
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


# --- the audit -----------------------------------------------------------------------------------------------------


def audit(lower, upper, pooled=None):
    """audit.csv with one target for each pair of bounds, and a pooled row with these bounds."""
    rows = {"epsilon_lower": lower, "epsilon_upper": upper, "target": [f"target_{i:02d}" for i in range(len(lower))]}
    common = dict(kind="one-run", attack="lira", delta=1e-5, confidence=0.95, n_audited=1000, n_guesses=100)
    table = pd.DataFrame(rows).assign(**common, n_correct=80, epsilon_max=5.5)
    if pooled is None:
        return table
    last = dict(target=POOLED, epsilon_lower=pooled, epsilon_upper=max(upper), n_audited=4000, n_guesses=400)
    return pd.concat([table, table[-1:].assign(**last, n_correct=300, epsilon_max=6.5)], ignore_index=True)


def test_the_audit_of_one_target_without_dp():
    assert audit_lines(audit([0.5], [np.nan])) == [
        "At 95% confidence the epsilon of this training is at least 0.50 "
        "(lira, 100 of 1,000 samples guessed, 80.0% of the guesses correct). "
        "The most that so many samples could have shown is 5.50.",
        "Training without differential privacy guarantees no upper bound.",
    ]


def test_the_audit_of_several_targets_is_that_of_all_together():
    lower, upper = audit_lines(audit([0.5, 3.0, 1.0], [8.0, 8.0, 9.0], pooled=3.5))
    assert lower == (
        "At 95% confidence the epsilon of this training is at least 3.50 "
        "(3 targets pooled; lira, 400 of 4,000 samples guessed, 75.0% of the guesses correct). "
        "The most that so many samples could have shown is 6.50."
    )
    assert upper.startswith("By the accountant it is at most 9.00, at delta 1e-05: each model's guarantee")


def test_the_verdict_is_the_pooled_row_or_the_only_one():
    assert verdict(audit([0.5], [8.0])).target == "target_00"
    assert verdict(audit([0.5, 3.0], [8.0, 8.0], pooled=3.5)).epsilon_lower == 3.5


def test_each_violation_is_named():
    *_, violation = lines = audit_lines(audit([0.5, 9.0, 8.0], [8.0, 8.0, 8.0], pooled=7.0))
    assert len(lines) == 3
    assert violation.startswith("VIOLATION: target_01 shows epsilon 9.00 or more, above the guaranteed 8.00: its")
    *_, violation = lines = audit_lines(audit([7.5, 7.5], [8.0, 8.0], pooled=8.1))
    assert len(lines) == 3
    assert violation.startswith(
        "VIOLATION: the pooled targets show epsilon 8.10 or more, above the guaranteed 8.00: th"
    )


def test_a_bound_of_zero_is_no_proof():
    (lower, _) = audit_lines(audit([0.0], [2.0]))
    assert "at least 0.00" in lower
    assert lower.endswith("have shown is 5.50. The audit detects no leakage, which does not prove that there is none.")


def test_targets_without_a_bound_are_not_counted():
    lower, _ = audit_lines(audit([np.nan, 0.5], [np.nan, np.nan], pooled=0.5))
    assert "at least 0.50 (1 target pooled; lira" in lower
    lines = audit_lines(audit([np.nan], [8.0]))
    assert lines[0].startswith("No lower bound on epsilon: the members of these targets were not drawn")
    assert lines[1].startswith("By the accountant it is at most 8.00")


def test_the_audit_is_wrapped_for_the_terminal():
    table = audit([9.0, 0.5], [8.0, 8.0], pooled=9.0)
    lines = audit_summary(table).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(lines) == " ".join(audit_lines(table))
