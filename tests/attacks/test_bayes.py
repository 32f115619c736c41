"""lira-bayes against its naive loop, the parts of its prior, and the AUC that the prior adds."""

import numpy as np
import pytest
from scipy.special import polygamma

from lira.attacks import bayes
from lira.attacks.bayes import SampleSummaries, fit_lira_bayes, fit_prior, gap_trend, hat_functions
from lira.attacks.inputs import AttackOptions
from lira.attacks.metrics import auc
from lira.attacks.statistics import Statistics
from tests.helpers.naive_bayes import lira_bayes
from tests.helpers.shadows import mean_auc, pairs

SHORT = ((300, 2), (5000, 2))  # rounds of expectation-maximization that are fast in a naive loop


def heterogeneous_scores(seed, n_shadows, n_samples, *, n_queries=1, n_targets=1):
    """(phi (M, N, A), member (M, N)); the gap and the variance of a sample rise together as its midpoint falls."""
    generator = np.random.default_rng(seed)
    member = pairs(generator, n_targets + n_shadows + n_targets % 2, n_samples)[: n_targets + n_shadows]
    member = np.concatenate([member[-n_targets:], member[:-n_targets]]) if n_targets % 2 else member
    midpoint = generator.normal(2.0, 2.5, size=(n_samples, 1))
    deviation = np.exp(generator.normal(-0.1 * midpoint, 0.4))
    gap = deviation * np.abs(generator.normal(0.7, 0.5, size=midpoint.shape))
    noise = generator.normal(size=(*member.shape, n_queries))
    return midpoint + gap * (member[..., None] - 0.5) + deviation * noise, member


def bayes_score(phi, member):
    """Score of the one target, float64 (N,), mean over queries."""
    score = fit_lira_bayes(Statistics.from_shadows(phi[1:], member[1:]), AttackOptions())
    return score(phi[:1], phi[:1])[0].mean(-1)


@pytest.mark.parametrize(
    ("kind", "n_queries", "rounds"),
    [("normal", 1, bayes.ROUNDS), ("normal", 3, SHORT), ("ties", 1, SHORT), ("constant", 1, SHORT)],
)
def test_lira_bayes_equals_its_naive_loop(kind, n_queries, rounds, monkeypatch):
    monkeypatch.setattr(bayes, "ROUNDS", rounds)
    phi, member = heterogeneous_scores(0, 6, 510 if n_queries == 1 else 405, n_queries=n_queries)
    phi = {"normal": phi, "ties": np.round(phi), "constant": np.full_like(phi, 0.3)}[kind]
    expected = lira_bayes(phi[0], phi[1:], member[1:], rounds)
    np.testing.assert_allclose(bayes_score(phi, member), expected, rtol=1e-9, atol=1e-9)


def test_unequal_counts_and_sides_of_one_shadow_equal_the_naive_loop(monkeypatch):
    monkeypatch.setattr(bayes, "ROUNDS", SHORT)
    phi, member = heterogeneous_scores(1, 5, 405)
    member[1:] = np.random.default_rng(2).random((5, 405)) < 0.5
    member[1, member[1:].all(0)] = False
    member[1, ~member[1:].any(0)] = True
    expected = lira_bayes(phi[0], phi[1:], member[1:], SHORT)
    np.testing.assert_allclose(bayes_score(phi, member), expected, rtol=1e-9, atol=1e-9)


def test_one_shadow_per_side_beats_a_single_threshold():
    phi, member = heterogeneous_scores(3, 2, 4000)
    assert auc(bayes_score(phi, member), member[0]) > auc(phi[0, :, 0], member[0]) + 0.03


@pytest.mark.parametrize("n_shadows", [4, 8, 20])
def test_lira_bayes_beats_lira_and_lira_pooled(n_shadows):
    phi, member = heterogeneous_scores(4, n_shadows, 4000, n_targets=2)
    area = mean_auc(phi, member, 2, ["lira", "lira-pooled", "lira-bayes"])
    assert area["lira-bayes"] > max(area["lira"], area["lira-pooled"]) + 0.01


def test_lira_bayes_is_as_good_as_lira_with_many_shadows():
    phi, member = heterogeneous_scores(5, 200, 3000)
    area = mean_auc(phi, member, 1, ["lira", "lira-bayes"])
    assert area["lira-bayes"] > area["lira"] - 0.001


def test_gap_trend_follows_the_midpoint_and_stays_positive():
    generator = np.random.default_rng(0)
    midpoint = generator.normal(size=6000)
    truth = np.maximum(1.0 - 0.8 * midpoint, 0.0)
    trend = gap_trend(midpoint, truth + 0.3 * generator.normal(size=6000))
    inner = np.abs(midpoint) < 1.0
    np.testing.assert_allclose(trend[inner], truth[inner], atol=0.12)
    assert trend.min() > 0.05
    assert (gap_trend(midpoint, np.zeros(6000)) > 0).all()


def test_hat_functions_interpolate_linearly():
    hats = hat_functions(np.array([-1.0, 0.25, 2.0, 9.0]), np.array([0.0, 1.0, 3.0]))
    np.testing.assert_allclose(hats, [[1, 0.75, 0, 0], [0, 0.25, 0.5, 0], [0, 0, 0.5, 1]])


def test_prior_recovers_the_parameters_of_a_simulation():
    """Gaps of mean 2 and true variance 0.25, observed with a noise variance of 2 * 0.8 / 10."""
    generator = np.random.default_rng(1)
    gap = generator.normal(2.0, np.sqrt(0.25 + 0.16), size=5000)
    midpoint = generator.normal(size=5000)
    variance, count = np.full((2, 5000), 0.8), np.full((2, 1), 10.0)
    prior = fit_prior(SampleSummaries(midpoint, gap, variance, count, gap_trend(midpoint, gap)))
    weight = prior.weight.mean(axis=0)
    gap_mean = weight @ prior.gap_mean
    assert gap_mean * 2.0 == pytest.approx(2.0, rel=0.03)
    gap_variance = weight @ (prior.gap_variance + (prior.gap_mean - gap_mean) ** 2) * 4.0
    assert gap_variance == pytest.approx(0.25, rel=0.25)
    np.testing.assert_allclose(prior.variance, 0.8, rtol=1e-3)
    np.testing.assert_allclose(prior.weight.sum(axis=1), 1.0)


@pytest.mark.parametrize("x", [0.01, 0.3, 1.0, 17.0, 450.0])
def test_inverse_trigamma_inverts_trigamma(x):
    assert bayes._inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-9)
