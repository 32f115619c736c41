"""Metrics against naive counts and scikit-learn, intervals against simulated truth."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logit
from sklearn.metrics import roc_auc_score, roc_curve

from lira.attacks import metrics
from lira.errors import InputError
from tests.helpers.intervals import Shifted, misses


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
    assert metrics.estimate_auc(score, member).value == pytest.approx(roc_auc_score(member, score), abs=1e-12)


def test_delong_variance_equals_the_naive_placements():
    score, member = sample(5, ties=True)
    members, nonmembers = score[member], score[~member]
    wins = (members[:, None] > nonmembers) + 0.5 * (members[:, None] == nonmembers)
    variance = wins.mean(1).var(ddof=1) / len(members) + wins.mean(0).var(ddof=1) / len(nonmembers)
    auc = metrics.estimate_auc(score, member)
    width = 2 * stats.norm.ppf(0.975) * np.sqrt(variance) / (auc.value * (1 - auc.value))
    assert logit(auc.high) - logit(auc.low) == pytest.approx(width, rel=1e-9)
    assert np.sum(auc.influence**2) == pytest.approx(variance, rel=1e-9)


def test_auc_interval_of_perfect_separation_has_an_open_end():
    auc = metrics.estimate_auc(np.arange(20.0), np.arange(20) >= 10)
    assert (auc.value, auc.high) == (1.0, 1.0)
    assert 0.5 < auc.low < 0.75


def test_clopper_pearson_equals_scipy():
    for successes, trials in [(0, 7), (3, 10), (10, 10), (250, 1000)]:
        exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
        assert metrics.clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_evaluate_leaves_out_and_counts_unscored_samples():
    score, member = sample(6)
    with_nan, truth = np.append(score, [np.nan] * 3), np.append(member, [True, False, True])
    between = metrics.BetweenModels(dict.fromkeys(metrics.METRICS, 0.001), n_pairs=4, n_shadows=8)
    how = dict(threshold=0.5, between=between)
    row, expected = (metrics.evaluate(s, m, **how) for s, m in [(with_nan, truth), (score, member)])
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


# --- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "rounding", "rate"), [(400, None, 0.01), (2000, 1.0, 0.001), (1000, 0.1, 0.01)])
def test_intervals_over_samples_cover_the_truth_at_their_confidence(size, rounding, rate):
    """A small version of benchmarks/attacks_coverage.py; rounded scores tie. The misses of a correct interval stay
    within the 99.9 % quantile of a binomial at 5 %."""
    missed = misses(size, 1.0, rounding, [rate], attacks=300, seed=8)
    assert max(missed.values()) <= stats.binom.ppf(0.999, 300, 0.05), missed


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "rate"), [(60, 0.1), (300, 0.01), (300, 0.001), (300, 0.4)])
def test_the_tpr_interval_equals_its_definition(n, rate, ties):
    """The ranks by summing binomial probabilities, the centre by linear interpolation over all steps."""
    score, member = sample(9, n, ties=ties)
    estimate = metrics.estimate_tpr(score, member, rate)
    members, nonmembers = score[member], sorted(score[~member], reverse=True)
    n = len(nonmembers)
    tail = [sum(stats.binom.pmf(j, n, rate) for j in range(k, n + 1)) for k in range(n + 2)]  # P(X >= k)
    first = max(k for k in range(n + 1) if 1 - tail[k] <= 0.025)
    last = min(k for k in range(n + 2) if tail[k] <= 0.025)
    thresholds = [np.inf, *nonmembers, -np.inf]
    lowest, highest = np.mean(members > thresholds[first]), np.mean(members >= thresholds[last])
    steps = [np.mean(members > threshold) for threshold in thresholds]
    centre = np.interp(rate * (n + 1), range(n + 2), steps)
    low, high = metrics.clopper_pearson(centre * len(members), len(members))
    assert estimate.value == metrics.tpr_at_fpr(score, member, rate)["tpr"]
    assert estimate.centre == pytest.approx(centre)
    assert estimate.low == pytest.approx(max(0, centre - np.sqrt((centre - low) ** 2 + (centre - lowest) ** 2)))
    assert estimate.high == pytest.approx(min(1, centre + np.sqrt((high - centre) ** 2 + (highest - centre) ** 2)))


def test_the_variance_between_models_equals_a_loop():
    """Two pairs and a shadow without partner: the covariance of the metrics on every second sample and on the others,
    plus the variance of their mean over the groups."""
    drawn = [sample(seed, 200 + seed) for seed in range(5)]
    scores, truths = zip(*drawn, strict=True)
    result = metrics.between_models(scores, truths, threshold=0.5, pair_sizes=[2, 2, 1], n_shadows=6)
    assert (result.n_pairs, result.n_shadows) == (3, 6)
    functions = {
        "accuracy": lambda score, member: np.mean((score >= 0.5) == member),
        "auc": metrics.auc,
        "tpr_at_fpr_0.01": lambda score, member: metrics.tpr_at_fpr(score, member, 0.01)["tpr"],
    }
    for name, function in functions.items():
        first = np.array([function(score[0::2], member[0::2]) for score, member in drawn])
        second = np.array([function(score[1::2], member[1::2]) for score, member in drawn])
        first, second = first - first.mean(), second - second.mean()
        groups = [[0, 1], [2, 3], [4]]
        of_mean = sum(first[group].sum() * second[group].sum() for group in groups) / 25 * 3 / 2
        assert result.variance[name] == pytest.approx(max(0.0, np.mean(first * second) + of_mean)), name


def test_the_interval_of_a_mean_equals_its_definition():
    """Three targets that share their samples; the second is not scored on some and has no influence there."""
    rng, n_targets, variance = np.random.default_rng(3), 3, 4e-4
    members = [rng.permutation(200) < 100 for _ in range(n_targets)]
    common = rng.normal(size=200)
    scores = [common + rng.normal(size=200) + member for member in members]
    scores[1][:20] = np.nan
    estimates = [metrics.estimate_accuracy(*pair, 0.5) for pair in zip(scores, members, strict=True)]
    between = metrics.BetweenModels({"accuracy": variance}, n_pairs=5, n_shadows=10)
    mean, low, high = metrics.mean_interval("accuracy", estimates, [between] * n_targets)
    values, influence = [], np.zeros((n_targets, 200))
    for target, (score, member) in enumerate(zip(scores, members, strict=True)):
        scored = np.flatnonzero(~np.isnan(score))
        correct = (score[scored] >= 0.5) == member[scored]
        values.append(correct.mean())
        influence[target, scored] = (correct - correct.mean()) / len(scored)
    together = sum(influence[:, i].sum() ** 2 for i in range(200))
    correlated = max(1.0, together / sum(influence[:, i] @ influence[:, i] for i in range(200)))
    squared = sum((value - estimate.low) ** 2 for value, estimate in zip(values, estimates, strict=True))
    models = stats.t.ppf(0.975, 4) ** 2 * variance * (1 / 3 + 1 / 10)
    assert mean == pytest.approx(np.mean(values))
    assert mean - low == pytest.approx(np.sqrt(correlated * squared / 9 + models))
    assert low < mean < high


def test_equal_targets_count_once():
    score, member = sample(2, 200)
    estimate = metrics.estimate_auc(score, member)
    between = metrics.BetweenModels({"auc": 0.0}, n_pairs=5, n_shadows=10)
    one, three = (metrics.mean_interval("auc", [estimate] * n, [between] * n) for n in (1, 3))
    assert one == pytest.approx((estimate.value, estimate.low, estimate.high))
    assert three == pytest.approx(one)


def test_too_few_pairs_give_no_interval():
    score, member = sample(1, 100)
    for n_pairs in (2, 3):
        held_out = [sample(seed, 100) for seed in range(2 * n_pairs)]
        between = metrics.between_models(
            *zip(*held_out, strict=True), threshold=0.5, pair_sizes=[2] * n_pairs, n_shadows=2 * n_pairs
        )
        row = metrics.evaluate(score, member, threshold=0.5, between=between)
        ends = [
            row[f"{prefix}{name}{end}"]
            for prefix in ("", "mean_")
            for name in metrics.METRICS
            for end in ("_low", "_high")
        ]
        assert np.isnan(ends).all() == (n_pairs < metrics.MIN_PAIRS) != np.isfinite(ends).all()
        assert np.isfinite([row[name] for name in metrics.METRICS]).all()
    assert np.isnan(metrics.evaluate(score, member, threshold=0.5)["auc_low"])


@pytest.mark.parametrize(("n_samples", "n_pairs"), [(400, 4), (2000, 10)])
def test_intervals_cover_the_mean_over_models_at_their_confidence(n_samples, n_pairs):
    """Models that differ. The coverage of a correct interval stays above the 0.1 % quantile of a binomial at 95 %."""
    covered = Shifted(n_samples, n_pairs, distance=1.0, deviation=0.2).coverage(attacks=100, seed=5)
    assert min(covered.values()) >= stats.binom.ppf(0.001, 100, 0.95) / 100, covered


def test_intervals_over_samples_alone_do_not_cover_the_mean_over_models():
    experiment = Shifted(2000, 10, distance=1.0, deviation=0.2)
    covered = experiment.coverage(attacks=40, seed=5, samples_alone=True)
    assert max(covered["accuracy, 3"], covered["auc, 3"]) < 0.7, "or the test above could not fail"


def test_the_most_that_samples_can_show_is_the_low_end_of_an_attack_without_an_error():
    """n of n trials show no more than 0.025 ** (1 / n); at a rate that may allow no non-member, nothing."""
    assert metrics.most_shown(np.array([30]), np.array([20])) == pytest.approx(0.025 ** (1 / 50))
    several = 1 - np.sqrt(sum((1 - 0.025 ** (1 / n)) ** 2 for n in (50, 60))) / 2
    assert metrics.most_shown(np.array([30, 30]), np.array([20, 30])) == pytest.approx(several)
    assert metrics.most_shown(np.array([30]), np.array([368]), 0.01) == pytest.approx(0.025 ** (1 / 30))
    assert metrics.most_shown(np.array([30]), np.array([367]), 0.01) == 0.0, ".99 ** 367 is above .025"
    generator = np.random.default_rng(0)
    member = np.arange(800) < 400
    for gap in (0.0, 1.0, 3.0, 9.0):
        score = generator.normal(size=800) + gap * member
        for rate, estimate in (
            (0.01, metrics.estimate_tpr(score, member, 0.01)),
            (None, metrics.estimate_accuracy(score, member, gap / 2)),
        ):
            assert estimate.low <= metrics.most_shown(np.array([400]), np.array([400]), rate)
