"""Tables from attack results, each against a loop over samples; what is not defined stays empty."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from lira.attacks import tables
from lira.attacks.exposed import q_values
from lira.attacks.held_out import AttackResult
from lira.attacks.metrics import auc, clopper_pearson, estimate_accuracy, estimate_auc, mean_interval
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets, curve
from tests.helpers.attack_inputs import N, inputs, inputs_and_results, truths
from tests.helpers.intervals import Experiment, coverage, tprs_of_a_large_experiment
from tests.helpers.shadows import scores

ATTACKS_OF_SIX = [name for name in ATTACKS if name != "learned"]  # six shadows are too few for it


def attack_table(reference, results, convention="lira"):
    columns = dict(convention=convention, queries=reference.phi.shape[2])
    return tables.attack_table(results, reference.member, reference.model_names, **columns)


# --- attack.csv ----------------------------------------------------------------------------------------------------


def test_the_official_tpr_is_that_where_the_fpr_is_strictly_below_the_rate():
    """`tpr[np.where(fpr < .001)[0][-1]]`, with 200 non-members, of which 1 % are two."""
    score = np.concatenate([np.linspace(0, 1, 200), np.linspace(0.3, 1.3, 200)])
    reference = truths(np.arange(400) >= 200)
    result = AttackResult("lira", 0, score, threshold=0.5, held_out_auc=0.6, n_shadows=4)
    for convention, allowed in (("lira", 2), ("official", 1)):
        (row,) = attack_table(reference, [result], convention).to_dict("records")
        expected = np.mean(score[200:] > np.sort(score[:200])[::-1][allowed])
        assert (row["tpr_at_fpr_0.01"], row["fpr_at_0.01"]) == (expected, allowed / 200)
        assert row["resolvable_at_0.01"]
        assert not row["resolvable_at_0.001"]


def test_attack_table_has_one_row_per_attack_and_target():
    reference, results = inputs_and_results()
    table = attack_table(reference, results)
    assert len(table) == 2 * len(ATTACKS_OF_SIX)
    assert list(zip(table.attack, table.target, strict=True)) == [
        (name, target) for target in ("target_00", "target_01") for name in ATTACKS_OF_SIX
    ]
    for result, row in zip(results, table.itertuples(), strict=True):
        member = reference.member[result.target]
        n_correct = sum((score >= result.threshold) == truth for score, truth in zip(result.score, member, strict=True))
        assert row.accuracy == pytest.approx(n_correct / N)
        expected = mean_interval("auc", [estimate_auc(result.score, member)], [result.between])
        assert (row.auc, row.auc_low, row.auc_high) == expected
        assert (row.queries, row.shadows, row.n_members, row.n_nonmembers) == (1, 6, N // 2, N // 2)
        assert row.convention == "lira"
        assert row.held_out_auc == result.held_out_auc


def test_missing_scores_are_counted_and_left_out_of_every_figure():
    reference, (result,) = inputs_and_results(attacks=["lira"], n_targets=1)
    score = np.where(np.arange(N) % 5 == 0, np.nan, result.score)
    scored = ~np.isnan(score)
    row = attack_table(reference, [replace(result, score=score)]).iloc[0]
    assert (row.n_unscored, row.n_members + row.n_nonmembers) == (N // 5, N - N // 5)
    assert row.accuracy == ((score >= result.threshold) == reference.member[0])[scored].mean()
    assert row.auc == pytest.approx(auc(score[scored], reference.member[0][scored]), abs=1e-12)


def test_a_target_with_one_side_has_an_accuracy_and_no_auc():
    row = attack_table(truths([True] * 10), [AttackResult("loss", 0, np.arange(10.0), 5.0, 0.5, 6)]).iloc[0]
    assert (row.accuracy, row.n_members, row.n_nonmembers) == (0.5, 10, 0)
    assert np.isnan([row.auc, row.balanced_accuracy, row["tpr_at_fpr_0.01"], row["fpr_at_0.01"]]).all()


def test_curve_table_has_the_number_of_shadows_of_each_row():
    reference = inputs()
    points = curve(reference.phi, reference.member, n_targets=2, attacks=["lira", "loss"])
    columns = dict(convention="lira", queries=reference.phi.shape[2])
    table = tables.curve_table(points, reference.member, reference.model_names, **columns)
    assert table.shadows.tolist() == [4] * 4 + [6] * 4
    assert table.attack.tolist() == ["lira", "loss"] * 4
    last = attack_table(reference, [result for size, result in points if size == 6])
    pd.testing.assert_frame_equal(table[table.shadows == 6].reset_index(drop=True), last)
    assert list(table.columns) == list(last.columns)


# --- samples.csv ---------------------------------------------------------------------------------------------------


def test_samples_table_has_the_mean_over_queries():
    reference, results = inputs_and_results(n_targets=1, n_queries=2, attacks=["loss"])
    table = tables.samples_table(results, reference)
    mean = reference.phi.astype(float).mean(axis=2)
    np.testing.assert_allclose(table.phi, mean[0])
    for sample in range(N):
        inside, outside = (mean[1:][reference.member[1:, sample] == side, sample] for side in (True, False))
        assert table.mean_in[sample] == pytest.approx(inside.mean())
        assert table.std_in[sample] == pytest.approx(inside.std(ddof=1))
        assert table.mean_out[sample] == pytest.approx(outside.mean())
        assert table.std_out[sample] == pytest.approx(outside.std(ddof=1))
    assert table["loss_decision"].tolist() == (results[0].score >= results[0].threshold).tolist()
    np.testing.assert_array_equal(table.label, reference.label)


def test_samples_table_has_every_target_and_attack():
    reference, results = inputs_and_results()
    table = tables.samples_table(results, reference)
    assert table.target.tolist() == ["target_00"] * N + ["target_01"] * N
    assert table["sample"].tolist() == [*range(N)] * 2
    np.testing.assert_array_equal(table.member, reference.member[:2].ravel())
    for result in results:
        of_target = table[table.target == reference.model_names[result.target]]
        np.testing.assert_array_equal(of_target[result.attack], result.score)


def test_a_sample_without_a_score_has_no_decision():
    reference, (result,) = inputs_and_results(attacks=["lira"], n_targets=1)
    score = np.where(np.arange(N) < 3, np.nan, result.score)
    table = tables.samples_table([replace(result, score=score)], reference)
    assert table.lira_decision.isna().tolist() == [True] * 3 + [False] * (N - 3)
    assert table.lira_decision[3:].tolist() == (score[3:] >= result.threshold).tolist()
    lines = table.to_csv(index=False, columns=["sample", "lira", "lira_decision"]).splitlines()
    assert lines[1] == "0,,"
    assert lines[4].endswith((",True", ",False"))


def test_without_a_threshold_there_is_no_decision():
    reference, (result,) = inputs_and_results(attacks=["lira"], n_targets=1)
    table = tables.samples_table([replace(result, threshold=np.nan)], reference)
    assert table.lira_decision.isna().all()
    np.testing.assert_array_equal(table.lira, result.score)


def test_probabilities_p_and_q_values_are_those_of_the_strongest_attack():
    reference, results = inputs_and_results(attacks=["loss", "lira"])
    table = tables.samples_table(results, reference)
    (strongest,) = {result.attack for result in results if result.exposure}
    assert strongest == tables.strongest_attack(attack_table(reference, results))
    for result in results:
        if result.attack == strongest:
            of_target = table[table.target == reference.model_names[result.target]]
            np.testing.assert_array_equal(of_target.p_member, result.exposure.p_member)
            np.testing.assert_array_equal(of_target.p_value, result.exposure.p_value)
            np.testing.assert_array_equal(of_target.q_value, q_values(result.exposure.p_value))


def test_exposed_table_has_the_samples_up_to_the_rate_the_most_certain_first():
    samples = pd.DataFrame({"target": ["a", "a", "a", "b", "b"], "sample": [0, 1, 2, 0, 1], "label": 0, "member": True})
    samples["lira"] = [1.0, 3.0, 9.0, 5.0, np.nan]
    samples["p_member"] = [0.5, 0.9, 0.99, 0.9, np.nan]
    samples["p_value"] = samples["q_value"] = [0.2, 0.1, 0.01, 0.1, np.nan]
    table = tables.exposed_table(samples, "lira", 0.1)
    assert list(zip(table.target, table["sample"], table.attack, table.score, strict=True)) == [
        ("a", 2, "lira", 9.0), ("a", 1, "lira", 3.0), ("b", 0, "lira", 5.0)
    ]  # fmt: skip
    assert table["p_member_at_0.1"].to_numpy() == pytest.approx([11 / 12, 0.5, 0.5])
    assert table["p_member_at_0.01"].to_numpy() == pytest.approx([0.5, 1 / 12, 1 / 12])
    assert not len(tables.exposed_table(samples, "lira", 0.001))


# --- classes.csv ---------------------------------------------------------------------------------------------------


def test_classes_table_equals_a_loop_over_targets_and_samples():
    reference, results = inputs_and_results(attacks=["lira", "ratio"])
    table = tables.classes_table(results, reference)
    assert list(zip(table.attack, table["class"], strict=True)) == [
        (attack, name) for attack in ("lira", "ratio") for name in "abcd"
    ]
    for row in table.itertuples():
        n_correct, aucs = 0, []
        for result in (result for result in results if result.attack == row.attack):
            samples = [sample for sample in range(N) if "abcd"[reference.label[sample]] == row[2]]
            truth = reference.member[result.target]
            n_correct += sum((result.score[sample] >= result.threshold) == truth[sample] for sample in samples)
            aucs.append(auc(result.score[samples], truth[samples]))
        assert row.n_guesses == 2 * N // 4
        assert row.accuracy == pytest.approx(n_correct / row.n_guesses)
        assert row.accuracy_low <= row.accuracy <= row.accuracy_high
        assert row.auc == pytest.approx(np.mean(aucs))


def test_the_interval_of_a_class_of_one_target_is_clopper_pearsons():
    reference, (result,) = inputs_and_results(n_targets=1, attacks=["lira"])
    for row, label in zip(tables.classes_table([result], reference).itertuples(), range(4), strict=True):
        n_correct = round(row.accuracy * row.n_guesses)
        assert row.n_guesses == np.sum(reference.label == label)
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(clopper_pearson(n_correct, row.n_guesses))


def test_a_class_without_samples_or_with_one_side_has_empty_cells():
    reference = replace(
        truths([True, True, False, False, True]), label=np.array([0, 0, 2, 2, 2]), class_names=("a", "b", "c")
    )
    result = AttackResult("loss", 0, np.array([3.0, 1, 0, 0, 5]), 2.0, 0.5, 6)
    table = tables.classes_table([result], reference).set_index("class")
    assert (table.loc["a"].accuracy, table.loc["a"].n_guesses) == (0.5, 2)
    assert np.isnan(table.loc["a"].auc)  # members only
    assert table.loc["b"].n_guesses == 0
    assert table.loc["b", ["accuracy", "accuracy_low", "accuracy_high", "auc"]].isna().all()
    assert (table.loc["c"].accuracy, table.loc["c"].auc, table.loc["c"].n_guesses) == (1.0, 1.0, 3)


def test_a_class_counts_only_the_samples_that_were_scored():
    result = AttackResult("loss", 0, np.array([3.0, 1, np.nan, np.nan]), 2.0, 0.5, 6)
    table = tables.classes_table([result], truths([True, False, True, False]))
    assert (table.accuracy[0], table.auc[0], table.n_guesses[0]) == (1.0, 1.0, 2)


def test_without_a_threshold_a_class_has_an_auc_and_no_accuracy():
    result = AttackResult("loss", 0, np.array([3.0, 1, 4, 0]), np.nan, np.nan, 6)
    table = tables.classes_table([result], truths([True, False, True, False]))
    assert table[["accuracy", "accuracy_low", "accuracy_high"]].isna().all(axis=None)
    assert (table.auc[0], table.n_guesses[0]) == (1.0, 0)


# --- the summary ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_summary_has_means_over_the_targets_and_their_intervals(n_targets):
    reference, results = inputs_and_results(n_targets=n_targets, attacks=["lira", "loss"])
    table = attack_table(reference, results)
    summary = tables.summary_table(table)
    assert summary.attack.tolist() == ["lira", "loss"]
    for row in summary.itertuples():
        scored = [(result, reference.member[result.target]) for result in results if result.attack == row.attack]
        n_correct = sum(int(((result.score >= result.threshold) == truth).sum()) for result, truth in scored)
        assert row.accuracy == pytest.approx(n_correct / (n_targets * N))
        assert row.leakage_low == clopper_pearson(n_correct, n_targets * N)[0]
        estimates = [estimate_accuracy(result.score, truth, result.threshold) for result, truth in scored]
        between = [result.between for result, _ in scored]
        assert (row.accuracy, row.accuracy_low, row.accuracy_high) == mean_interval("accuracy", estimates, between)
        assert (row.n_targets, row.n_guesses) == (n_targets, n_targets * N)
        assert row.auc == pytest.approx(np.mean([auc(result.score, truth) for result, truth in scored]))
    rates = table.groupby("attack", sort=False)["tpr_at_fpr_0.001"].mean()
    np.testing.assert_allclose(summary["tpr_at_fpr_0.001"], rates)


def test_a_target_without_a_threshold_makes_no_guesses():
    reference, (first, second) = inputs_and_results(n_targets=2, attacks=["lira"])
    without_threshold = replace(second, threshold=np.nan, held_out_auc=np.nan)
    (accuracy,) = attack_table(reference, [first]).accuracy
    summary = tables.summary_table(attack_table(reference, [first, without_threshold])).iloc[0]
    assert (summary.accuracy, summary.n_guesses) == (accuracy, N)
    summary = tables.summary_table(attack_table(reference, [without_threshold])).iloc[0]
    assert np.isnan([summary.accuracy, summary.accuracy_low, summary.accuracy_high]).all()
    assert summary.n_guesses == 0
    assert summary.auc == pytest.approx(auc(second.score, reference.member[1]), abs=1e-12)


def test_classes_whose_interval_misses_the_accuracy_of_all_are_counted():
    table = pd.DataFrame({"accuracy_low": [0.5, 0.6, 0.7, 0.2], "accuracy_high": [0.7, 0.8, 0.9, 0.59]})
    assert tables.classes_outside(table, 0.6) == (2, pytest.approx(0.2))
    rng, n_classes, n = np.random.default_rng(0), 2000, 100  # all alike: as many as are expected, or a little fewer
    low, high = np.transpose([clopper_pearson(k, n) for k in rng.binomial(n, 0.6, n_classes)])
    outside, expected = tables.classes_outside(pd.DataFrame({"accuracy_low": low, "accuracy_high": high}), 0.6)
    assert 0.5 * expected < outside <= 1.1 * expected


def test_the_strongest_attack_has_the_highest_mean_held_out_auc():
    phi, member = scores(13, n_targets=2, n_shadows=16, n_samples=400)
    results = attack_targets(phi, member, n_targets=2)
    model_names = [f"m{row}" for row in range(len(phi))]
    table = tables.attack_table(results, member, model_names)
    strongest = tables.strongest_attack(table)
    assert strongest != "loss"
    aucs = {name: [result.held_out_auc for result in results if result.attack == name] for name in ATTACKS}
    assert np.mean(aucs[strongest]) == max(map(np.mean, aucs.values()))
    assert max(aucs[strongest]) == max(map(max, aucs.values()))
    inverted = tables.attack_table(results, ~member, model_names)
    assert tables.strongest_attack(inverted) == strongest, "the targets' membership is not used"


def test_the_strongest_attack_needs_held_out_aucs():
    table = pd.DataFrame({"attack": ["a", "b", "c", "a", "b", "c"], "held_out_auc": [np.nan, 0.6, 0.7] * 2})
    assert tables.strongest_attack(table) == "c"
    assert tables.strongest_attack(table.assign(held_out_auc=0.5)) == "a"  # ties: the first
    assert tables.strongest_attack(table.assign(held_out_auc=np.nan)) == "a"


def test_intervals_cover_repetitions_of_the_whole_experiment():
    """Samples, targets and shadows drawn anew each time: a small version of benchmarks/attacks_coverage.py. The
    coverage of a correct interval stays above the 0.1 % quantile of a binomial at 95 %."""
    experiment, attacks = Experiment(300, 8, n_targets=2, variation=8), ("lira", "loss")
    tpr = tprs_of_a_large_experiment(experiment, attacks, repetitions=20, seed=(4,), n_samples=4000)
    covered, _ = coverage(experiment, attacks, tpr, repetitions=40, seed=(5,))
    by_targets = {key: value for key, value in covered.items() if "binomial" not in key[1]}
    assert len(by_targets) == 16
    assert min(by_targets.values()) >= binom.ppf(0.001, 40, 0.95) / 40, by_targets
