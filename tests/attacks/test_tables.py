"""Tables from numbers, each against a loop over samples; what cannot be said stays empty."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lira.attacks import tables
from lira.attacks.held_out import AttackResult
from lira.attacks.inputs import AttackInputs
from lira.attacks.metrics import auc, clopper_pearson
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets, curve
from lira.attacks.tables import audit_table
from lira.privacy.audit import epsilon_lower_bound
from lira.report.text import verdict
from tests.helpers.attack_inputs import N, inputs, played, truths

ATTACKS_OF_SIX = [name for name in ATTACKS if name != "learned"]  # six shadows are too few for it


def attack_table(given, scored):
    return tables.attack_table(scored, given.member, given.names, convention="lira", queries=given.phi.shape[2])


# --- attack.csv ----------------------------------------------------------------------------------------------------


def test_attack_table_has_a_row_for_each_attack_and_target():
    given, scored = played()
    table = attack_table(given, scored)
    assert len(table) == 2 * len(ATTACKS_OF_SIX)
    assert list(zip(table.attack, table.target, strict=True)) == [
        (name, target) for target in ("target_00", "target_01") for name in ATTACKS_OF_SIX
    ]
    for one, row in zip(scored, table.itertuples(), strict=True):
        truths = given.member[one.target]
        right = sum((score >= one.threshold) == truth for score, truth in zip(one.score, truths, strict=True))
        assert row.accuracy == pytest.approx(right / N)
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(clopper_pearson(right, N))
        assert (row.queries, row.shadows, row.n_members, row.n_nonmembers) == (1, 6, N // 2, N // 2)
        assert row.convention == "lira"


def test_scores_that_are_missing_are_counted_and_held_out_of_every_figure():
    given, (one,) = played(attacks=["lira"], n_targets=1)
    score = np.where(np.arange(N) % 5 == 0, np.nan, one.score)
    holed, known = AttackResult("lira", 0, score, one.threshold, one.held_out_auc, 6), ~np.isnan(score)
    row = attack_table(given, [holed]).iloc[0]
    assert (row.n_unscored, row.n_members + row.n_nonmembers) == (N // 5, N - N // 5)
    assert row.accuracy == ((score >= one.threshold) == given.member[0])[known].mean()
    assert row.auc == auc(score[known], given.member[0][known])


def test_a_target_with_one_side_has_an_accuracy_and_no_auc():
    given = truths([True] * 10)
    row = attack_table(given, [AttackResult("loss", 0, np.arange(10.0), 5.0, 0.5, 6)]).iloc[0]
    assert (row.accuracy, row.n_members, row.n_nonmembers) == (0.5, 10, 0)
    assert np.isnan([row.auc, row.balanced_accuracy, row["tpr_at_fpr_0.01"], row["fpr_at_0.01"]]).all()


def test_curve_table_says_how_many_shadows_each_row_had():
    given = inputs()
    points = curve(given.phi, given.member, n_targets=2, attacks=["lira", "loss"])
    table = tables.curve_table(points, given.member, given.names, convention="lira", queries=given.phi.shape[2])
    assert table.shadows.tolist() == [4] * 4 + [6] * 4
    assert table.attack.tolist() == ["lira", "loss"] * 4
    last = attack_table(given, [one for size, one in points if size == 6])
    pd.testing.assert_frame_equal(table[table.shadows == 6].reset_index(drop=True), last)
    assert list(table.columns) == list(last.columns)


# --- samples.csv ---------------------------------------------------------------------------------------------------


def test_samples_table_shows_the_mean_over_queries():
    given, scored = played(n_targets=1, n_queries=2, attacks=["loss"])
    table = tables.samples_table(scored, given)
    mean = given.phi.astype(float).mean(axis=2)
    np.testing.assert_allclose(table.phi, mean[0])
    for sample in range(N):
        inside, outside = (mean[1:][given.member[1:, sample] == side, sample] for side in (True, False))
        assert table.mean_in[sample] == pytest.approx(inside.mean())
        assert table.std_in[sample] == pytest.approx(inside.std(ddof=1))
        assert table.mean_out[sample] == pytest.approx(outside.mean())
        assert table.std_out[sample] == pytest.approx(outside.std(ddof=1))
    assert table["loss_decision"].tolist() == (scored[0].score >= scored[0].threshold).tolist()
    np.testing.assert_array_equal(table.label, given.label)


def test_samples_table_has_every_target_and_attack():
    given, scored = played()
    table = tables.samples_table(scored, given)
    assert table.target.tolist() == ["target_00"] * N + ["target_01"] * N
    assert table["sample"].tolist() == [*range(N)] * 2
    np.testing.assert_array_equal(table.member, given.member[:2].ravel())
    for one in scored:
        own = table[table.target == given.names[one.target]]
        np.testing.assert_array_equal(own[one.attack], one.score)


def test_a_sample_without_a_score_has_no_decision():
    given, (one,) = played(attacks=["lira"], n_targets=1)
    score = np.where(np.arange(N) < 3, np.nan, one.score)
    table = tables.samples_table([AttackResult("lira", 0, score, one.threshold, 0.5, 6)], given)
    assert table.lira_decision.isna().tolist() == [True] * 3 + [False] * (N - 3)
    assert table.lira_decision[3:].tolist() == (score[3:] >= one.threshold).tolist()
    text = table.to_csv(index=False).splitlines()
    assert text[1].endswith(",,")
    assert text[4].endswith((",True", ",False"))


def test_without_a_threshold_nobody_is_called_a_member_or_not():
    given, (one,) = played(attacks=["lira"], n_targets=1)
    table = tables.samples_table([AttackResult("lira", 0, one.score, np.nan, np.nan, 6)], given)
    assert table.lira_decision.isna().all()
    np.testing.assert_array_equal(table.lira, one.score)


# --- classes.csv ---------------------------------------------------------------------------------------------------


def test_classes_table_equals_a_loop_over_targets_and_samples():
    given, scored = played(attacks=["lira", "ratio"])
    table = tables.classes_table(scored, given)
    assert list(zip(table.attack, table["class"], strict=True)) == [
        (attack, name) for attack in ("lira", "ratio") for name in "abcd"
    ]
    for row in table.itertuples():
        right, areas = 0, []
        for one in (one for one in scored if one.attack == row.attack):
            samples = [sample for sample in range(N) if "abcd"[given.label[sample]] == row[2]]
            truth = given.member[one.target][samples]
            right += sum((one.score[sample] >= one.threshold) == given.member[one.target, sample] for sample in samples)
            areas.append(auc(one.score[samples], truth))
        assert row.n_guesses == 2 * N // 4
        assert row.accuracy == right / row.n_guesses
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(clopper_pearson(right, row.n_guesses))
        assert row.auc == pytest.approx(np.mean(areas))


def test_a_class_without_samples_or_with_one_side_has_empty_cells():
    given = truths([True, True, False, False, True])
    given = given.__class__(**{**vars(given), "label": np.array([0, 0, 2, 2, 2]), "class_names": ("a", "b", "c")})
    table = tables.classes_table([AttackResult("loss", 0, np.array([3.0, 1, 0, 0, 5]), 2.0, 0.5, 6)], given).set_index(
        "class"
    )
    assert (table.loc["a"].accuracy, table.loc["a"].n_guesses) == (0.5, 2)
    assert np.isnan(table.loc["a"].auc)  # members only
    assert table.loc["b"].n_guesses == 0
    assert table.loc["b", ["accuracy", "accuracy_low", "accuracy_high", "auc"]].isna().all()
    assert (table.loc["c"].accuracy, table.loc["c"].auc, table.loc["c"].n_guesses) == (1.0, 1.0, 3)


def test_a_class_counts_only_the_samples_that_were_scored():
    given = truths([True, False, True, False])
    table = tables.classes_table([AttackResult("loss", 0, np.array([3.0, 1, np.nan, np.nan]), 2.0, 0.5, 6)], given)
    assert (table.accuracy[0], table.auc[0], table.n_guesses[0]) == (1.0, 1.0, 2)


def test_without_a_threshold_a_class_has_an_auc_and_no_accuracy():
    given = truths([True, False, True, False])
    table = tables.classes_table([AttackResult("loss", 0, np.array([3.0, 1, 4, 0]), np.nan, np.nan, 6)], given)
    assert table[["accuracy", "accuracy_low", "accuracy_high"]].isna().all(axis=None)
    assert (table.auc[0], table.n_guesses[0]) == (1.0, 0)


# --- the summary ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_targets", [1, 3])
def test_summary_pools_the_guesses_of_all_targets(n_targets):
    given, scored = played(n_targets=n_targets, attacks=["lira", "loss"])
    table = attack_table(given, scored)
    summary = tables.summary_table(table)
    assert summary.attack.tolist() == ["lira", "loss"]
    for row in summary.itertuples():
        own = [one for one in scored if one.attack == row.attack]
        right = sum(int(((one.score >= one.threshold) == given.member[one.target]).sum()) for one in own)
        assert row.accuracy == right / (n_targets * N)
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(clopper_pearson(right, n_targets * N))
        assert (row.n_targets, row.n_guesses) == (n_targets, n_targets * N)
        areas = [auc(one.score, given.member[one.target]) for one in own]
        assert row.auc == pytest.approx(np.mean(areas))
        assert row.auc_std == pytest.approx(np.std(areas, ddof=1) if n_targets > 1 else np.nan, nan_ok=True)
    rates = table.groupby("attack", sort=False)["tpr_at_fpr_0.001"].mean()
    np.testing.assert_allclose(summary["tpr_at_fpr_0.001"], rates)


def test_a_target_without_a_threshold_is_no_wrong_guess():
    given, (first, second) = played(n_targets=2, attacks=["lira"])
    unknown = AttackResult("lira", 1, second.score, np.nan, np.nan, 6)
    (alone,) = attack_table(given, [first]).accuracy
    summary = tables.summary_table(attack_table(given, [first, unknown])).iloc[0]
    assert (summary.accuracy, summary.n_guesses) == (alone, N)
    none = tables.summary_table(attack_table(given, [unknown])).iloc[0]
    assert np.isnan([none.accuracy, none.accuracy_low, none.accuracy_high]).all()
    assert none.n_guesses == 0
    assert none.auc == auc(second.score, given.member[1])


# --- the audit -----------------------------------------------------------------------------------------------------


def leaky(inclusion, promised, shift=6.0, samples=400):
    """Two targets and eight shadows whose members' phi lies `shift` higher."""
    rng = np.random.default_rng(2)
    member = np.argsort(rng.random((10, samples)), axis=1) < samples // 2
    if inclusion == "coin":
        member[:2] = rng.random((2, samples)) < 0.5
    member[3::2] = ~member[2::2]
    phi = (rng.normal(size=(10, samples)) + shift * member)[..., None]
    names = tuple(f"m{row}" for row in range(10))
    return AttackInputs(phi, member, 2, np.zeros(samples, int), ("a",), names, inclusion=inclusion, guarantees=promised)


@pytest.mark.parametrize("inclusion", ["half", "coin"])
def test_a_leak_above_the_promise_is_a_violation(inclusion):
    promised = np.array([[0.5, 1e-5], [9.0, 1e-5]])
    inputs = leaky(inclusion, promised)
    scored = attack_targets(inputs.phi, inputs.member, n_targets=2, attacks=["lira", "loss"])
    audit = audit_table(scored, inputs)
    assert audit.target.tolist() == ["m0", "m1"]
    assert (audit.epsilon_lower > 1).all()
    assert audit.epsilon_upper.tolist() == [0.5, 9.0]
    for row in audit.itertuples():
        known = dict(n_audited=400, delta=1e-5, inclusion=inclusion)
        assert row.epsilon_lower == epsilon_lower_bound(row.n_correct, row.n_guesses, **known)
    said = verdict(audit)
    assert said.count("VIOLATION") == 1
    assert "VIOLATION: m0 shows epsilon" in said
    assert "VIOLATION" not in verdict(audit_table(scored, leaky(inclusion, None)))


def test_the_choice_does_not_look_at_the_targets():
    inputs = leaky("coin", None)
    audits = []
    for member in (inputs.member, np.concatenate([~inputs.member[:2], inputs.member[2:]])):
        scored = attack_targets(inputs.phi, member, n_targets=2, attacks=["lira", "loss"])
        audits.append(audit_table(scored, replace(inputs, member=member)))
    columns = ["attack", "threshold_low", "threshold_high", "n_guesses"]
    assert audits[0][columns].equals(audits[1][columns])
    assert (audits[0].epsilon_lower > 1).all()
    assert (audits[1].epsilon_lower == 0).all()


def test_a_half_that_is_none_is_not_audited(capsys):
    inputs = replace(leaky("coin", None), inclusion="half")
    inputs.member[0, :50] = True
    audit = audit_table(attack_targets(inputs.phi, inputs.member, n_targets=2, attacks=["loss"]), inputs)
    assert audit.epsilon_lower.isna().tolist()[0]
    assert "no audit of m0: " in capsys.readouterr().err
