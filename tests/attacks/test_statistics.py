"""The shadows' sums against naive means and variances, with shadows left out one after the other."""

import numpy as np
import pytest

from lira.attacks.statistics import Statistics, log_confidence, scaled_logit


def shadows(seed, n_shadows=8, n_samples=40, n_queries=2, scale=3.0):
    generator = np.random.default_rng(seed)
    phi = generator.normal(scale=scale, size=(n_shadows, n_samples, n_queries))
    return phi, generator.random((n_shadows, n_samples)) < 0.5


def naive(phi, member, kept, quantity):
    """(mean, variance) of every sample, side and query, float64 (2, N, A)."""
    mean = np.full((2, *phi.shape[1:]), np.nan)
    variance = np.zeros_like(mean)
    for side, sample, query in np.ndindex(mean.shape):
        values = quantity(phi[kept[:, sample] & (member[:, sample] == side), sample, query])
        if len(values):
            mean[side, sample, query] = values.mean()
        if len(values) > 1:
            variance[side, sample, query] = values.var(ddof=1)
    return mean, variance


def check(statistics, phi, member, kept):
    mean, variance = naive(phi, member, kept, lambda x: x)
    np.testing.assert_allclose([statistics.mean_out, statistics.mean_in], mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose([statistics.var_out, statistics.var_in], variance, rtol=1e-9, atol=1e-15)
    log_p, _ = naive(phi, member, kept, log_confidence)
    np.testing.assert_allclose(statistics.mean("log_p"), log_p, rtol=1e-9)
    p, _ = naive(phi, member, kept, lambda x: np.exp(log_confidence(x)))
    np.testing.assert_allclose(statistics.mean("p"), np.maximum(p, 1e-300), rtol=1e-9)
    assert (statistics.n_in == (kept & member).sum(0)).all()
    assert (statistics.n_out == (kept & ~member).sum(0)).all()


@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_held_out_sums_equal_naive_ones(scale):
    phi, member = shadows(0, scale=scale)
    kept = np.ones_like(member)
    statistics = Statistics.from_shadows(phi, member)
    check(statistics, phi, member, kept)
    kept[[1, 4]] = False
    statistics = statistics.without([1, 4])
    check(statistics, phi, member, kept)
    one_each = np.random.default_rng(1).integers(-1, 8, size=phi.shape[1])
    kept[one_each[one_each >= 0], np.flatnonzero(one_each >= 0)] = False
    statistics = statistics.without([one_each, 1])  # shadow 1 is out already, and stays out once
    check(statistics, phi, member, kept)


def test_leaving_out_an_outlier_loses_no_digits():
    phi, member = shadows(2, scale=1e-3)
    phi += 5.0
    phi[0] = 1e4  # its square is 1e14 times the spread of the others
    phi[1, ::2] = -1e4
    kept = np.ones_like(member)
    kept[:2] = False
    check(Statistics.from_shadows(phi, member).without([0, 1]), phi, member, kept)


def test_equal_values_have_no_variance_after_an_outlier_left():
    phi, member = np.full((6, 5, 1), 0.1), np.tile(np.array([[True], [False]]), (3, 5))
    phi[0] = 123.456
    statistics = Statistics.from_shadows(phi, member).without([0, 1])
    assert np.max([statistics.var_in, statistics.var_out]) < 1e-25


def test_single_precision_is_read_as_it_is():
    phi, member = shadows(3)
    single = phi.astype(np.float32)
    kept = np.ones_like(member)
    kept[2] = False
    check(Statistics.from_shadows(single, member).without([2]), single.astype(np.float64), member, kept)


@pytest.mark.parametrize("reach", [1.0, 30.0, 500.0])
def test_scaled_logit_equals_long_double(reach):
    generator = np.random.default_rng(4)
    logits = generator.uniform(-reach, reach, size=(3, 50, 10))
    logits[0, :, 1] = logits[0, :, 0]  # close rivals
    label = generator.integers(0, 10, size=50)
    wide = logits.astype(np.longdouble)
    result = scaled_logit(logits, label)
    for query, sample in np.ndindex(3, 50):
        row, true = wide[query, sample], label[sample]
        rest = np.delete(row, true)
        expected = row[true] - (rest.max() + np.log(np.sum(np.exp(rest - rest.max()))))
        assert result[query, sample] == pytest.approx(float(expected), rel=1e-6)
    assert result.dtype == np.float64
    single = scaled_logit(logits[0].astype(np.float32), label)
    assert single.shape == (50,)


def test_log_confidence_neither_overflows_nor_underflows():
    phi = np.array([-1e4, -50.0, 0.0, 50.0, 1e4])
    expected = [-1e4, -50.0 - np.exp(-50.0), -np.log(2.0), -np.exp(-50.0), 0.0]
    np.testing.assert_allclose(log_confidence(phi), expected, rtol=1e-15)
