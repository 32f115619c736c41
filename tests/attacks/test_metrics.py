"""Figures of an attack against naive counts, and intervals against simulated truth."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from lira.attacks import metrics
from lira.errors import InputError
from tests.helpers.intervals import misses


def sample(seed, n=60, *, ties=False, shift=1.0):
    generator = np.random.default_rng(seed)
    member = generator.random(n) < 0.5
    score = generator.normal(size=n) + shift * member
    return (np.round(score) if ties else score), member


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_the_most_accurate_of_all_cuts(seed, ties):
    score, member = sample(seed, ties=ties)
    cuts = sorted({*score, np.inf}, reverse=True)
    right = [np.sum((score >= cut) == member) for cut in cuts]
    assert metrics.best_threshold(score, member) == cuts[int(np.argmax(right))]


def test_best_threshold_guesses_no_one_where_that_is_best():
    assert metrics.best_threshold([3.0, 2.0, 1.0], [False, False, True]) == np.inf
    assert np.isnan(metrics.best_threshold([np.nan], [True]))
    assert metrics.best_threshold([1.0, 1.0, 1.0], [True, True, False]) == 1.0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.34, 1.0])
def test_tpr_is_the_highest_raw_step_within_the_rate(ties, rate):
    score, member = sample(3, 200, ties=ties)
    steps = [
        (np.mean(score[member] >= cut), np.mean(score[~member] >= cut))
        for cut in [np.inf, *np.unique(score)]
        if np.mean(score[~member] >= cut) <= rate
    ]
    step = metrics.tpr_at_fpr(score, member, rate)
    if rate < 1:
        assert (step["tpr"], step["fpr"]) == max(steps)
    assert step["fpr"] <= rate
    assert step["tpr"] == np.mean(score[member] > step["cut"])
    assert step["resolvable"] == (rate >= 1 / np.sum(~member))


def test_rate_that_is_a_whole_number_of_nonmembers_counts_them_all():
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
    inside, outside = score[member], score[~member]
    wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    variance = wins.mean(1).var(ddof=1) / len(inside) + wins.mean(0).var(ddof=1) / len(outside)
    area, low, high = metrics.auc_interval(score, member, confidence=0.9)
    width = 2 * stats.norm.ppf(0.95) * np.sqrt(variance) / (area * (1 - area))
    assert np.log(high / (1 - high)) - np.log(low / (1 - low)) == pytest.approx(width, rel=1e-9)


def test_perfect_separation_keeps_an_open_end():
    area, low, high = metrics.auc_interval(np.arange(20.0), np.arange(20) >= 10)
    assert (area, high) == (1.0, 1.0)
    assert 0.5 < low < 0.75


def test_clopper_pearson_equals_scipy():
    for successes, trials in [(0, 7), (3, 10), (10, 10), (250, 1000)]:
        exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
        assert metrics.clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_evaluate_leaves_out_and_counts_what_is_not_scored():
    score, member = sample(6)
    padded, truth = np.append(score, [np.nan] * 3), np.append(member, [True, False, True])
    row, plain = (metrics.evaluate(s, m, threshold=0.5) for s, m in [(padded, truth), (score, member)])
    assert row["n_unscored"] == 3
    assert {key: value for key, value in row.items() if key != "n_unscored"} == {
        key: value for key, value in plain.items() if key != "n_unscored"
    }
    assert row["accuracy"] == np.mean((score >= 0.5) == member)
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    best = max(0.5 * (np.mean(score[member] >= cut) + np.mean(score[~member] < cut)) for cut in score)
    assert row["balanced_accuracy"] == pytest.approx(best)
    tpr, fpr = np.mean(score[member] >= 0.5), np.mean(score[~member] >= 0.5)
    assert row["precision_at_prior_0.1"] == pytest.approx(0.1 * tpr / (0.1 * tpr + 0.9 * fpr))
    assert not row["resolvable_at_0.0001"]
    assert row["fpr_at_0.0001"] == 0


@pytest.mark.parametrize("member", [[True, True], [False, False], []])
def test_evaluate_without_one_side_says_nan_not_nonsense(member):
    row = metrics.evaluate(np.arange(float(len(member))), member, threshold=0.0)
    assert np.isnan(row["auc"])
    assert np.isnan(row["tpr_at_fpr_0.01"])
    assert row["n_members"] == sum(member)


def test_roc_keeps_every_distinct_score_and_refuses_one_side():
    score, member = sample(7, ties=True)
    fpr, tpr, thresholds = metrics.roc(score, member)
    assert len(thresholds) == len(np.unique(score)) + 1
    for rate, found, cut in zip(fpr, tpr, thresholds, strict=True):
        assert (rate, found) == (np.mean(score[~member] >= cut), np.mean(score[member] >= cut))
    with pytest.raises(InputError, match="members"):
        metrics.roc(score, np.ones_like(member))


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"\(3,\) and \(2,\)"):
        metrics.auc([1, 2, 3], [True, False])


def test_pooled_accuracy_adds_the_targets_up():
    accuracy, low, high = metrics.pooled_accuracy([60, 50], [100, 100])
    assert accuracy == 0.55
    assert (low, high) == metrics.clopper_pearson(110, 200)


@pytest.mark.parametrize(("size", "grain", "rate"), [(400, None, 0.01), (2000, 1.0, 0.001), (1000, 0.1, 0.01)])
def test_intervals_hold_the_truth_as_often_as_they_say(size, grain, rate):
    """A small version of benchmarks/attacks_coverage.py, rounded scores tie. More misses than the 99.9 % bound of a
    binomial at 5 % would be a fault of the interval."""
    missed = misses(size, 1.0, grain, [rate], attacks=300, seed=8)
    assert max(missed.values()) <= stats.binom.ppf(0.999, 300, 0.05), missed
