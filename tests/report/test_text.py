"""The sentences that terminal and page share: repetitions, and the audit."""

import statistics

import numpy as np
import pandas as pd

from lira.attacks.audits import POOLED
from lira.report import html, results
from lira.report.terminal import report
from lira.report.text import audit_lines, curve_lines, repetition_lines, verdict
from tests.helpers.attack_inputs import inputs
from tests.helpers.report import attacked_run

FORMS = ("{:.1%}".format, "{:.2%}".format)


def test_leave_one_out_and_the_curve_are_said(tmp_path):
    run = attacked_run(tmp_path, inputs(n_shadows=10), names=("lira", "loss"), leave_one_out=True)
    read = results.read(run)
    table, (line,) = pd.read_csv(tmp_path / "leave_one_out.csv"), repetition_lines(read)
    assert line.startswith("Over 10 shadows, each attacked as the target (mean ± standard deviation): ")
    for attack in read.highlighted:
        rows = table[table.attack == attack]
        (accuracy, auc, tpr), names = rows[["accuracy", "auc", "tpr_at_fpr_0.01"]].to_numpy().T, len(rows)
        assert names == 10
        spread = [statistics.stdev(values) for values in (accuracy, auc, tpr)]
        assert (
            f"{attack} accuracy {accuracy.mean():.1%} ± {spread[0]:.1%}, AUC {auc.mean():.3f} ± {spread[1]:.3f}, "
            f"TPR at 1 % FPR {tpr.mean():.2%} ± {spread[2]:.2%}"
        ) in line
    points = pd.read_csv(tmp_path / "curve.csv").groupby(["attack", "shadows"])[["accuracy", "tpr_at_fpr_0.01"]].mean()
    assert len(curve_lines(read)) == len(read.highlighted)
    for attack, said in zip(read.highlighted, curve_lines(read), strict=True):
        values = points.loc[attack]
        accuracies, rates = (", ".join(map(form, values[column])) for column, form in zip(values, FORMS, strict=True))
        assert said == f"With 4, 8 and 10 shadows, {attack}: accuracy {accuracies}; TPR at 1 % FPR {rates}."
    page = html.report_page(read, {})
    for said in (line, *curve_lines(read)):
        assert said in page
        assert said in " ".join(report(read, tmp_path).split())


def test_without_leave_one_out_and_curve_nothing_is_said(tmp_path):
    read = results.read(attacked_run(tmp_path, curve=False))
    assert repetition_lines(read) == curve_lines(read) == []


# --- the audit -----------------------------------------------------------------------------------------------------


def rows(kind, lower, upper, pooled=None, **columns):
    """Rows of audit.csv: one for each target, and a pooled one with this bound."""
    names = [f"target_{i:02d}" for i in range(len(lower))] + [POOLED] * (pooled is not None)
    bounds = {"epsilon_lower": [*lower, pooled][: len(names)], "epsilon_upper": [*upper, max(upper)][: len(names)]}
    shares = dict(delta=1e-5, confidence=0.95, n_audited=1000, n_guesses=100, n_correct=80, epsilon_max=5.5)
    tests = dict(mu_lower=np.nan, test_guesses=100.0, test_correct=80.0, p_value=0.5, significance=0.0125)
    attack = "likelihood-ratio" if kind.startswith("canary") else "lira"
    return pd.DataFrame(bounds | {"target": names}).assign(kind=kind, attack=attack, **shares | tests | columns)


def f_dp(kind, lower, upper, mu, pooled=None, **columns):
    return rows(kind, lower, upper, pooled, mu_lower=mu, **dict(n_guesses=50, n_correct=45) | columns)


def private(lower=(0.5,), upper=(8.0,), pooled=None):
    """audit.csv of a private run with canaries."""
    canaries = (
        rows("canary-one-run", lower, upper, pooled),
        f_dp("canary-f-dp", [4.6] * len(lower), upper, 1.05, pooled),
    )
    return pd.concat([rows("one-run", lower, upper, pooled), f_dp("f-dp", lower, upper, 0.2, pooled), *canaries])


def test_the_verdict_of_a_private_run_is_three_lines():
    shown = (
        "epsilon is at least 0.50 at delta 1e-05, whatever the mechanism ({0}, 80 of 100 guesses correct; so many "
        "could have shown 5.50). Not mu-GDP for any mu up to {1}; the Gaussian mechanism of that mu has epsilon {2} "
        "at delta 1e-05 ({0}, 45 of 50 guesses correct; so many could have shown 5.50)."
    )
    from_canaries, from_samples = (f"at 95% confidence, from 1,000 {noun}, " for noun in ("canaries", "samples"))
    assert audit_lines(private()) == [
        "Guarantee: epsilon is at most 8.00, at delta 1e-05, by the accountant; each model's, for its own training "
        "set.",
        f"Mechanism: {from_canaries}{shown.format('likelihood-ratio', '1.05', '4.60')}",
        f"Published model: {from_samples}{shown.format('lira', '0.20', '0.50')}",
    ]
    assert "It is nominal: --noise-seed makes the noise known." in audit_lines(private(), nominal=True)[0]


def test_the_verdict_without_dp_is_two_lines():
    guarantee, model = audit_lines(rows("one-run", [0.5], [np.nan]))
    assert guarantee == "Guarantee: training without differential privacy guarantees no upper bound on epsilon."
    assert model.startswith("Published model: at 95% confidence, from 1,000 samples, epsilon is at least 0.50")


def test_the_verdict_of_several_targets_is_that_of_all_together():
    guarantee, mechanism, model = audit_lines(private([0.5, 3.0, 1.0], [8.0, 8.0, 9.0], pooled=3.5))
    assert "at most 9.00" in guarantee
    assert "from 1,000 canaries of 3 targets, epsilon is at least 3.50" in mechanism
    assert "from 1,000 samples of 3 targets, epsilon is at least 3.50" in model


def test_a_guarantee_without_canaries_says_so():
    audit = pd.concat([rows("one-run", [0.5], [8.0]), f_dp("f-dp", [0.5], [8.0], 0.2)])
    assert audit_lines(audit)[1].startswith("Mechanism: not audited; the targets carry no canaries")
    without_shadows = private()[lambda table: table.kind.str.startswith("canary")]
    assert audit_lines(without_shadows)[2].startswith("Published model: not audited; no shadow was")


def test_tables_of_earlier_versions_are_read():
    columns = ["mu_lower", "test_guesses", "test_correct", "p_value", "significance"]
    guarantee, _, model = audit_lines(rows("one-run", [0.5], [8.0]).drop(columns=columns))
    assert "at most 8.00" in guarantee
    assert model.startswith("Published model: at 95% confidence, from 1,000 samples, epsilon is at least 0.50")


def test_the_row_of_a_kind_is_the_pooled_one_or_the_only_one():
    assert verdict(rows("one-run", [0.5], [8.0])).target == "target_00"
    assert verdict(private([0.5, 3.0], [8.0, 8.0], pooled=3.5), "f-dp").epsilon_lower == 3.5
    assert verdict(rows("one-run", [0.5], [8.0]), "f-dp") is None


def test_guesses_of_another_attack_than_the_strongest_are_explained():
    audit = pd.concat([rows("one-run", [0.5], [8.0]), f_dp("f-dp", [0.5], [8.0], 0.2).assign(attack="rmia")])
    explained = " The guesses are those of {}, not of {}: the audit takes the attack that proves the largest bound on "
    for strongest, others in (("lira", "rmia"), ("rmia", "lira"), ("loss", "lira and rmia")):
        assert explained.format(others, strongest) in audit_lines(audit, strongest=strongest)[2]
    same = audit.assign(attack="lira")
    assert audit_lines(same, strongest="lira") == audit_lines(same)


def test_each_violation_is_named():
    refuting = dict(p_value=[0.001, 0.5, 0.5], significance=0.0125)
    audit = pd.concat(
        [
            rows("one-run", [9.0, 0.5], [8.0, 8.0], pooled=5.0, **refuting),
            f_dp("canary-f-dp", [9.0, 3.0], [8.0, 8.0], 1.0, pooled=5.0, **refuting | {"p_value": [0.1, 0.5, 0.003]}),
        ],
        ignore_index=True,
    )
    deviations = pd.DataFrame(
        {"target": ["target_01", "target_00"], "check": "noise scale", "scope": ["conv1.weight", "all"], "claimed": 1.0}
        | {"estimate": [0.5123, 1.01], "low": [0.49, 0.9], "high": [0.53, 1.1], "deviates": [True, False]}
    )
    same = {"target": "target_02", "check": "noise scale", "claimed": 1.0, "low": 0.49, "high": 0.53, "deviates": True}
    everywhere = pd.DataFrame([same | {"scope": scope, "estimate": 0.5} for scope in ("all", "a", "b", "c", "d")])
    deviations = pd.concat([deviations, everywhere])
    lines = audit_lines(audit, deviations)[3:]
    assert lines == [
        "VIOLATION: the scores of target_00 refute the guaranteed epsilon of 8.00 (80 of 100 guesses correct, p-value "
        "0.001, below 0.01): training is less private than that.",
        "VIOLATION: the canaries of all targets refute the curve of the accounted mechanism (80 of 100 guesses "
        "correct, p-value 0.003, below 0.01): training is less private than that.",
        "VIOLATION: target_01, noise scale (conv1.weight): 0.5123 [0.49, 0.53] where 1 is claimed; the mechanism is "
        "not the accounted one.",
        "VIOLATION: target_02, noise scale (all, a, b, 2 more): 0.5 [0.49, 0.53] where 1 is claimed; the mechanism is "
        "not the accounted one.",
        "suspicious: the canaries of target_00 show an epsilon of 9.00, above the guaranteed 8.00, but by Gaussian "
        "curves, which are no lower bound for other mechanisms.",
    ]


def test_a_bound_above_the_guarantee_that_its_test_does_not_refute_is_suspicious():
    (line,) = audit_lines(rows("one-run", [8.1], [8.0], p_value=0.04))[3:]
    assert line == (
        "suspicious: the scores of target_00 show an epsilon of 8.10, above the guaranteed 8.00, but not at 95 % over "
        "all tests of this run."
    )


def test_bounds_of_zero_are_no_proof():
    audit = pd.concat([rows("one-run", [0.0], [2.0]), f_dp("f-dp", [0.0], [2.0], 0.0)])
    assert audit_lines(audit)[2].endswith(" No leakage is detected, which does not prove that there is none.")
    leaking = pd.concat([rows("one-run", [0.0], [2.0]), f_dp("f-dp", [0.3], [2.0], 0.1)])
    assert "No leakage" not in audit_lines(leaking)[2]


def test_targets_without_a_bound_are_not_counted():
    model = audit_lines(rows("one-run", [np.nan, 0.5], [np.nan, np.nan], pooled=0.5))[1]
    assert "samples of 1 target, epsilon is at least 0.50" in model
    lines = audit_lines(rows("one-run", [np.nan], [8.0]))
    assert lines[2].startswith("Published model: no lower bound on epsilon; the members of these targets were not")
