"""Metrics against naive counts and scikit-learn, intervals against simulated truth."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from lira.attacks import metrics
from lira.errors import InputError
from tests.helpers.intervals import misses


def sample(seed, n=60, *, ties=False):
    """(score, member), float (n,) and bool (n,)."""
    generator = np.random.default_rng(seed)
    member = generator.random(n) < 0.5
    score = generator.normal(size=n) + member
    return (np.round(score) if ties else score), member


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_the_most_accurate_of_all(seed, ties):
    score, member = sample(seed, ties=ties)
    thresholds = sorted({*score, np.inf}, reverse=True)
    n_correct = [np.sum((score >= threshold) == member) for threshold in thresholds]
    assert metrics.best_threshold(score, member) == thresholds[int(np.argmax(n_correct))]


def test_best_threshold_is_infinite_where_guessing_no_member_is_best():
    assert metrics.best_threshold([3.0, 2.0, 1.0], [False, False, True]) == np.inf
    assert np.isnan(metrics.best_threshold([np.nan], [True]))
    assert metrics.best_threshold([1.0, 1.0, 1.0], [True, True, False]) == 1.0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.34, 1.0])
def test_tpr_is_the_highest_raw_step_within_the_rate(ties, rate):
    score, member = sample(3, 200, ties=ties)
    steps = [
        (np.mean(score[member] >= threshold), np.mean(score[~member] >= threshold))
        for threshold in [np.inf, *np.unique(score)]
        if np.mean(score[~member] >= threshold) <= rate
    ]
    point = metrics.tpr_at_fpr(score, member, rate)
    if rate < 1:
        assert (point["tpr"], point["fpr"]) == max(steps)
    assert point["fpr"] <= rate
    assert point["tpr"] == np.mean(score[member] > point["threshold"])
    assert point["resolvable"] == (rate >= 1 / np.sum(~member))


def test_rate_of_a_whole_number_of_nonmembers_includes_them_all():
    score = np.concatenate([np.arange(300.0), np.arange(300.0) + 0.5])
    member = np.arange(600) >= 300
    assert metrics.tpr_at_fpr(score, member, 0.01)["fpr"] == 3 / 300  # 0.01 * 300 is 3.0000000000000004 or 2.9999...
    assert metrics.tpr_at_fpr(score, member, 0.07)["fpr"] == 21 / 300


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_counting_pairs_and_scikit_learn(ties):
    score, member = sample(4, ties=ties)
    difference = score[member][:, None] - score[~member][None]
    naive = np.mean((difference > 0) + 0.5 * (difference == 0))
    assert metrics.auc(score, member) == pytest.approx(naive, abs=1e-12)
    assert metrics.auc_interval(score, member)[0] == pytest.approx(roc_auc_score(member, score), abs=1e-12)


def test_delong_variance_equals_the_naive_placements():
    score, member = sample(5, ties=True)
    members, nonmembers = score[member], score[~member]
    wins = (members[:, None] > nonmembers) + 0.5 * (members[:, None] == nonmembers)
    variance = wins.mean(1).var(ddof=1) / len(members) + wins.mean(0).var(ddof=1) / len(nonmembers)
    area, low, high = metrics.auc_interval(score, member)
    width = 2 * stats.norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    assert np.log(high / (1 - high)) - np.log(low / (1 - low)) == pytest.approx(width, rel=1e-9)


def test_auc_interval_of_perfect_separation_has_an_open_end():
    area, low, high = metrics.auc_interval(np.arange(20.0), np.arange(20) >= 10)
    assert (area, high) == (1.0, 1.0)
    assert 0.5 < low < 0.75


def test_clopper_pearson_equals_scipy():
    for successes, trials in [(0, 7), (3, 10), (10, 10), (250, 1000)]:
        exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
        assert metrics.clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_evaluate_leaves_out_and_counts_unscored_samples():
    score, member = sample(6)
    with_nan, truth = np.append(score, [np.nan] * 3), np.append(member, [True, False, True])
    row, expected = (metrics.evaluate(s, m, threshold=0.5) for s, m in [(with_nan, truth), (score, member)])
    assert row == expected | {"n_unscored": 3}
    assert row["accuracy"] == np.mean((score >= 0.5) == member)
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    balanced = [0.5 * (np.mean(score[member] >= x) + np.mean(score[~member] < x)) for x in score]
    assert row["balanced_accuracy"] == pytest.approx(max(balanced))
    assert not row["resolvable_at_0.0001"]
    assert row["fpr_at_0.0001"] == 0


@pytest.mark.parametrize("member", [[True, True], [False, False], []])
def test_evaluate_of_one_side_gives_nan(member):
    row = metrics.evaluate(np.arange(float(len(member))), member, threshold=0.0)
    assert np.isnan(row["auc"])
    assert np.isnan(row["tpr_at_fpr_0.01"])
    assert row["n_members"] == sum(member)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_equals_scikit_learn_bit_for_bit(ties):
    score, member = sample(7, 1000, ties=ties)
    expected = roc_curve(member, score, drop_intermediate=False)
    for values, their_values in zip(metrics.roc(score, member), expected, strict=True):
        assert values.dtype == their_values.dtype
        np.testing.assert_array_equal(values, their_values)
    assert len(expected[0]) == len(np.unique(score)) + 1


def test_roc_of_one_side_and_different_shapes_are_rejected():
    with pytest.raises(InputError, match="members"):
        metrics.roc([1.0, 2.0], [True, True])
    with pytest.raises(InputError, match=r"\(3,\) and \(2,\)"):
        metrics.auc([1, 2, 3], [True, False])


def test_pooled_accuracy_adds_the_targets_up():
    accuracy, low, high = metrics.pooled_accuracy([60, 50], [100, 100])
    assert accuracy == 0.55
    assert (low, high) == metrics.clopper_pearson(110, 200)


@pytest.mark.parametrize(("size", "rounding", "rate"), [(400, None, 0.01), (2000, 1.0, 0.001), (1000, 0.1, 0.01)])
def test_intervals_cover_the_truth_at_their_confidence(size, rounding, rate):
    """A small version of benchmarks/attacks_coverage.py; rounded scores tie. The misses of a correct interval stay
    within the 99.9 % quantile of a binomial at 5 %."""
    missed = misses(size, 1.0, rounding, [rate], attacks=300, seed=8)
    assert max(missed.values()) <= stats.binom.ppf(0.999, 300, 0.05), missed
