"""The prior of lira-bayes: its parts. The whole is compared with a naive loop in test_bayes.py."""

import numpy as np
import pytest
from scipy.special import polygamma

from lira.attacks.bayes import Evidence, _from_trigamma, gap_trend, learned_prior, nearness


def evidence(level, gap, variance, count):
    """Evidence with the same variance and count for all samples and both sides."""
    shape = (2, len(level))
    return Evidence(level, gap, np.full(shape, variance), np.full((2, 1), count), gap_trend(level, gap))


def test_the_trend_follows_the_level_and_stays_positive():
    generator = np.random.default_rng(0)
    level = generator.normal(size=6000)
    truth = np.maximum(1.0 - 0.8 * level, 0.0)
    trend = gap_trend(level, truth + 0.3 * generator.normal(size=6000))
    inner = np.abs(level) < 1.0
    np.testing.assert_allclose(trend[inner], truth[inner], atol=0.12)
    assert trend.min() > 0.05
    assert (gap_trend(level, np.zeros(6000)) > 0).all()


def test_nearness_interpolates_linearly():
    near = nearness(np.array([-1.0, 0.25, 2.0, 9.0]), np.array([0.0, 1.0, 3.0]))
    np.testing.assert_allclose(near, [[1, 0.75, 0, 0], [0, 0.25, 0.5, 0], [0, 0, 0.5, 1]])


def test_what_the_samples_have_in_common_is_found():
    """Gaps of 2 with a true spread of 0.5 behind noise of 0.4."""
    generator = np.random.default_rng(1)
    gap = generator.normal(2.0, np.sqrt(0.25 + 0.16), size=5000)
    found = learned_prior(evidence(generator.normal(size=5000), gap, 0.8, 10.0))
    share = found.weight.mean(axis=0)
    assert share @ found.gap * 2.0 == pytest.approx(2.0, rel=0.03)
    spread = share @ (found.spread + (found.gap - share @ found.gap) ** 2) * 4.0
    assert spread == pytest.approx(0.25, rel=0.25)
    np.testing.assert_allclose(found.variance, 0.8, rtol=1e-3)
    np.testing.assert_allclose(found.weight.sum(axis=1), 1.0)


@pytest.mark.parametrize("x", [0.01, 0.3, 1.0, 17.0, 450.0])
def test_inverse_of_trigamma(x):
    assert _from_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-9)
