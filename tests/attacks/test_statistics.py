"""Statistics against naive means and variances, with shadows left out one after the other."""

import numpy as np
import pytest

from lira.attacks.statistics import Statistics, log_confidence, scaled_logit
from tests.helpers.naive_attacks import scaled_logits


def random_scores(seed, scale=3.0):
    """(phi (S, N, A), member (S, N)) of independent members."""
    generator = np.random.default_rng(seed)
    return generator.normal(scale=scale, size=(8, 40, 2)), generator.random((8, 40)) < 0.5


def naive(phi, member, included, quantity):
    """(mean, variance) of every sample, side and query, float64 (2, N, A)."""
    mean = np.full((2, *phi.shape[1:]), np.nan)
    variance = np.zeros_like(mean)
    for side, sample, query in np.ndindex(mean.shape):
        values = quantity(phi[included[:, sample] & (member[:, sample] == side), sample, query])
        if len(values):
            mean[side, sample, query] = values.mean()
        if len(values) > 1:
            variance[side, sample, query] = values.var(ddof=1)
    return mean, variance


def check(statistics, phi, member, included):
    mean, variance = naive(phi, member, included, lambda x: x)
    np.testing.assert_allclose([statistics.mean_out, statistics.mean_in], mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose([statistics.var_out, statistics.var_in], variance, rtol=1e-9, atol=1e-15)
    log_p, _ = naive(phi, member, included, log_confidence)
    np.testing.assert_allclose(statistics.mean("log_p"), log_p, rtol=1e-9)
    p, _ = naive(phi, member, included, lambda x: np.exp(log_confidence(x)))
    np.testing.assert_allclose(statistics.mean("p"), np.maximum(p, 1e-300), rtol=1e-9)
    assert (statistics.count[1] == (included & member).sum(0)).all()
    assert (statistics.count[0] == (included & ~member).sum(0)).all()


@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_statistics_without_shadows_equal_naive_ones(scale):
    phi, member = random_scores(0, scale)
    included = np.ones_like(member)
    statistics = Statistics.from_shadows(phi, member)
    check(statistics, phi, member, included)
    included[[1, 4]] = False
    statistics = statistics.without([1, 4])
    check(statistics, phi, member, included)
    per_sample = np.random.default_rng(1).integers(-1, 8, size=phi.shape[1])
    included[per_sample[per_sample >= 0], np.flatnonzero(per_sample >= 0)] = False
    statistics = statistics.without([per_sample, 1])  # shadow 1 is left out already and is not subtracted again
    check(statistics, phi, member, included)


def test_leaving_out_an_outlier_loses_no_digits():
    phi, member = random_scores(2, scale=1e-3)
    phi += 5.0
    phi[0] = 1e4  # its square is 1e14 times the variance of the others
    phi[1, ::2] = -1e4
    included = np.ones_like(member)
    included[:2] = False
    check(Statistics.from_shadows(phi, member).without([0, 1]), phi, member, included)


def test_equal_values_have_no_variance_after_an_outlier_is_left_out():
    phi, member = np.full((6, 5, 1), 0.1), np.tile(np.array([[True], [False]]), (3, 5))
    phi[0] = 123.456
    statistics = Statistics.from_shadows(phi, member).without([0, 1])
    assert np.max([statistics.var_in, statistics.var_out]) < 1e-25


def test_single_precision_scores_are_summed_in_double_precision():
    phi, member = random_scores(3)
    single = phi.astype(np.float32)
    included = np.ones_like(member)
    included[2] = False
    check(Statistics.from_shadows(single, member).without([2]), single.astype(np.float64), member, included)


@pytest.mark.parametrize("limit", [1.0, 30.0, 500.0])
def test_scaled_logit_equals_long_double(limit):
    generator = np.random.default_rng(4)
    logits = generator.uniform(-limit, limit, size=(3, 50, 10))
    logits[0, :, 1] = logits[0, :, 0]  # two equal logits
    label = generator.integers(0, 10, size=50)
    result = scaled_logit(logits, label)
    expected = [scaled_logits(of_query, label) for of_query in logits]
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-12)
    assert result.dtype == np.float64
    assert scaled_logit(logits[0].astype(np.float32), label).shape == (50,)


def test_log_confidence_neither_overflows_nor_underflows():
    phi = np.array([-1e4, -50.0, 0.0, 50.0, 1e4])
    expected = [-1e4, -50.0 - np.exp(-50.0), -np.log(2.0), -np.exp(-50.0), 0.0]
    np.testing.assert_allclose(log_confidence(phi), expected, rtol=1e-15)
