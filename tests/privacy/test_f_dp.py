"""The recursion against plain loops, a linear program and published numbers; curves against direct integration."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, linprog
from scipy.special import ndtr, ndtri
from scipy.stats import binom, chi2, norm

from lira.privacy.audit import HeldOutCounts, Mechanism, count_guesses
from lira.privacy.f_dp import (
    choose_guesses,
    choose_test,
    compose,
    expected_counts,
    gaussian,
    gaussian_epsilon,
    is_impossible,
    largest_mu,
    p_value,
)
from tests.helpers.mechanisms import Gaussian, RandomizedResponse, SubsampledGaussian, f_dp_audits


def naive_is_impossible(p, n_correct, n_guesses, n_audited, lowest_fpr, sides):
    """Algorithm 3 of the paper; sides: 1 for guesses of "member" alone, 2 for guesses on both sides."""
    scale = 2 / sides
    r, h = {n_correct: p * n_correct / n_audited}, {n_correct: p * (n_guesses - n_correct) / n_audited}
    for i in reversed(range(n_correct)):
        h[i] = max(lowest_fpr(min(scale * r[i + 1], 1)) / scale, h[i + 1])
        r[i] = r[i + 1] + i / (n_guesses - i) * (h[i] - h[i + 1])
    return r[0] + h[0] >= n_guesses / n_audited


@pytest.mark.parametrize("sides", [1, 2])
def test_the_recursion_is_that_of_the_paper(sides):
    """Guesses of members alone are the paper's on half as many samples."""
    rng, found = np.random.default_rng(0), set()
    for _ in range(150):
        n_audited = int(rng.integers(2, 80))
        k = int(rng.integers(1, n_audited // 2 + 1))
        n_correct, p, mu = int(rng.integers(0, k + 1)), 10 ** rng.uniform(-3, 0), rng.uniform(0, 3)
        expected = n_correct and naive_is_impossible(
            p, n_correct, k, n_audited, lambda tpr, mu=mu: ndtr(ndtri(tpr) - mu), sides
        )
        computed = is_impossible(p, n_correct, k, mu, n_audited=sides * n_audited, family=gaussian)
        assert computed == bool(expected), (n_audited, k, n_correct, p, mu)
        found.add(bool(computed))
    assert found == {True, False}


@pytest.mark.parametrize(("n_correct", "k", "n_audited", "mu"), [(6, 8, 20, 0.5), (8, 8, 30, 1.0), (9, 12, 24, 0.2)])
def test_the_p_value_is_the_best_of_all_distributions(n_correct, k, n_audited, mu):
    """A linear program over P[N = 0] … P[N = k], with F as the maximum of 120 tangents."""
    n = np.arange(k + 1)
    at_least = np.tril(np.ones((k + 1, k + 1))).T  # row j: N >= j
    r, h = 2 / n_audited * at_least * n, 2 / n_audited * at_least * (k - n)
    rows, limits = [], []
    for x in np.linspace(-4, 4, 120):
        slope = norm.pdf(x - mu) / norm.pdf(x)
        for j in range(1, k + 1):  # F(x) + slope (r_j - x) <= h_(j-1)
            rows.append(slope * r[j] - h[j - 1])
            limits.append(slope * norm.cdf(x) - norm.cdf(x - mu))
    best = linprog(-at_least[n_correct], A_ub=rows, b_ub=limits, A_eq=[np.ones(k + 1)], b_eq=[1.0])
    curve = Gaussian(mu).curve
    assert p_value(n_correct, k, n_audited=n_audited, curve=curve) == pytest.approx(-best.fun, rel=3e-3)
    at_limit = -best.fun * np.array([0.99, 1.01])
    assert is_impossible(at_limit, n_correct, k, mu, n_audited=n_audited, family=gaussian).tolist() == [False, True]


@pytest.mark.parametrize(
    ("n_audited", "k", "n_correct", "delta", "two_sided"),
    [(5000, 258, 250, 1e-5, 3.963), (20_000, 1000, 985, 1e-5, 5.071)],
)
def test_the_bounds_of_published_counts(n_audited, k, n_correct, delta, two_sided):
    mu = largest_mu(n_correct, k, n_audited=2 * n_audited)
    assert round(gaussian_epsilon(mu, delta), 3) == two_sided
    assert largest_mu(n_correct, k, n_audited=n_audited) > mu


@pytest.mark.parametrize(
    ("shift", "k", "two_sided", "members"), [(1, 315, 3.23, 3.44), (2, 816, 7.08, 7.56), (4, 5304, 13.83, 15.06)]
)
def test_the_bounds_of_gaussian_scores(shift, k, two_sided, members):
    """10,000 scores at the quantiles of N(0, 1) and of N(shift, 1), at delta 1e-6."""
    quantiles = norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    score, member = np.append(quantiles, quantiles + shift), np.arange(20_000) >= 10_000
    n_correct, _ = count_guesses(score, member, n_high=k, n_low=0)
    bounds = [gaussian_epsilon(largest_mu(n_correct, k, n_audited=n), 1e-6) for n in (40_000, 20_000)]
    assert np.round(bounds, 2).tolist() == [two_sided, members]
    counts = expected_counts(Gaussian(shift).curve, 20_000)
    _, own_k = choose_guesses({"": counts}, n_audited=20_000)
    n_correct, _ = count_guesses(score, member, n_high=own_k, n_low=0)
    assert gaussian_epsilon(largest_mu(n_correct, own_k, n_audited=20_000), 1e-6) > 0.9 * members


@pytest.mark.parametrize("mu", [0.01, 0.5, 3.0, 12.0, 60.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2])
def test_the_epsilon_of_a_gaussian_mechanism(mu, delta):
    """E under N(mu, 1) of (1 - e^(epsilon - loss))+, by direct integration."""
    epsilon = gaussian_epsilon(mu, delta)
    x = np.linspace(-9, 9, 200_001)
    loss = mu * (x + mu / 2)
    reached = np.trapezoid(norm.pdf(x) * -np.expm1(np.minimum(epsilon - loss, 0)), x)
    assert reached == pytest.approx(delta, rel=1e-4) or (epsilon == 0 and reached < delta)


@pytest.mark.parametrize("log_factor", [0.0, 1.5])
def test_independent_targets_are_combined_by_fisher(log_factor):
    """The p-values of the targets by naive bisection; their product at the bound is just significant."""
    n_correct, k = [48, 43, 45], [50, 50, 50]
    how = dict(n_audited=600, log_factor=log_factor)
    mu = largest_mu(n_correct, k, **how)

    def combined(mu):
        logs = []
        for pair in zip(n_correct, k, strict=True):
            p = [p for p in np.geomspace(1e-3, 1, 400) if is_impossible(p, *pair, mu, n_audited=600, family=gaussian)]
            logs.append(min(math.log(p[0]) + log_factor, 0.0))
        return chi2.sf(-2 * sum(logs), 6)

    assert combined(mu - 0.05) < 0.05 < combined(mu + 0.05)
    assert p_value(n_correct, k, curve=Gaussian(mu).curve, **how) == pytest.approx(0.05, rel=0.01)
    assert largest_mu([45] * 3, k, **how) > largest_mu(45, 50, **how)
    alone = p_value(45, 50, curve=Gaussian(0.5).curve, **how)
    assert alone == p_value([45], [50], curve=Gaussian(0.5).curve, **how)


def test_no_guess_and_no_correct_guess_show_nothing():
    for n_correct, k in ((0, 0), (0, 10), (1, 1)):
        assert largest_mu(n_correct, k, n_audited=100) == 0.0
        assert p_value(n_correct, k, n_audited=100, curve=Gaussian(0.1).curve) > 0.4
    assert gaussian_epsilon(0.0, 1e-5) == 0.0


# --- curves --------------------------------------------------------------------------------------------------------

TPR = np.array([1e-6, 1e-3, 0.05, 0.3, 0.7, 0.99])


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (2.0, 10), (7.0, 300)])
def test_without_sampling_the_curve_is_gaussian(sigma, steps):
    fpr = compose(Mechanism(sigma, 1.0, steps)).lowest_fpr(TPR)
    exact = norm.cdf(norm.ppf(TPR) - math.sqrt(steps) / sigma)
    np.testing.assert_allclose(fpr, exact, rtol=2e-3)
    assert (fpr <= exact).all(), "at least as revealing as the mechanism"


@pytest.mark.parametrize(("sigma", "q"), [(0.6, 0.25), (1.5, 0.01), (4.0, 0.5)])
def test_the_curve_of_one_and_two_steps(sigma, q):
    """Direct integration over what two steps release: where the second likelihood ratio must exceed t / the first."""
    x = np.linspace(-9 * sigma, 1 + 9 * sigma, 100_001)

    def ratio(x):
        return 1 - q + q * np.exp((2 * x - 1) / (2 * sigma**2))

    def rates(threshold, n_steps):
        if n_steps == 0:
            return np.where(threshold < 1, 1.0, 0.0), np.where(threshold < 1, 1.0, 0.0)
        present = np.maximum(threshold - (1 - q), 1e-300) / q
        at = sigma**2 * np.log(present) + 0.5
        fpr = np.where(threshold <= 1 - q, 1.0, norm.sf(at / sigma))
        return q * np.where(threshold <= 1 - q, 1.0, norm.sf((at - 1) / sigma)) + (1 - q) * fpr, fpr

    one, two = (compose(Mechanism(sigma, q, steps)) for steps in (1, 2))
    for threshold in (1.02, 1.2, 2.0, 6.0):
        tpr, fpr = map(float, rates(np.array(threshold), 1))
        assert one.lowest_fpr(tpr) == pytest.approx(fpr, rel=2e-3, abs=1e-12)
        second_tpr, second_fpr = rates(threshold / ratio(x), 1)
        density = norm.pdf(x, scale=sigma)
        fpr = np.trapezoid(density * second_fpr, x)
        tpr = np.trapezoid(density * ratio(x) * second_tpr, x)
        assert two.lowest_fpr(tpr) == pytest.approx(fpr, rel=2e-3, abs=1e-12)
        assert two.lowest_fpr(tpr) <= fpr * (1 + 1e-6)


def test_the_curve_has_the_epsilon_of_the_accountant():
    """PRV: 7.99 at delta 1e-5, an upper bound. delta is the maximum of TPR - e^epsilon FPR."""
    curve = compose(Mechanism(1.417236328125, 0.25, 60))

    def log_delta(epsilon):
        return np.log(np.max(curve.tpr - np.exp(epsilon) * curve.fpr) / 1e-5)

    assert brentq(log_delta, 5, 10) == pytest.approx(7.97, abs=0.02)


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [(Mechanism(0.01, 0.25, 60), 0.0), (Mechanism(0.02, 1.0, 3), 0.0), (Mechanism(1e5, 0.25, 60), 0.5)],
)
def test_the_curve_of_extreme_mechanisms(mechanism, expected):
    curve = compose(mechanism)
    assert (curve.tpr[0], curve.tpr[-1], curve.fpr[0], curve.fpr[-1]) == (0, 1, 0, 1)
    assert (np.diff(curve.tpr) >= 0).all()
    assert (curve.fpr <= curve.tpr + 1e-9).all()
    assert (
        curve.lowest_fpr(0.5) == pytest.approx(0.5, abs=1e-3) if mechanism.sigma > 1 else curve.lowest_fpr(0.5) < 0.03
    )


# --- the choice ----------------------------------------------------------------------------------------------------

CLAIMED = Mechanism(1.417, 0.25, 60)  # epsilon 8 at delta 1e-5


def test_the_number_of_guesses_is_the_best_of_all():
    counts = expected_counts(compose(CLAIMED), 5000)
    _, k = choose_guesses({"": counts}, n_audited=5000)
    bounds = {
        k: largest_mu(members, k, n_audited=5000)
        for k, members in zip(counts.k, counts.members, strict=True)
        if k <= 2500
    }
    assert bounds[k] == max(bounds.values())
    assert 4.2 < gaussian_epsilon(bounds[k], 1e-5) < 4.6


def test_the_attack_and_the_number_are_chosen_on_the_shadows():
    k = np.array([0, 10, 100, 500, 1000])
    strong, weak = HeldOutCounts(k, 0.9 * k, k / 2), HeldOutCounts(k, 0.6 * k, k / 2)
    assert choose_guesses({"weak": weak, "strong": strong}, n_audited=1000)[0] == "strong"
    assert choose_guesses({"weak": weak, "strong": strong}, n_audited=1000)[1] in (100, 500)
    nothing = HeldOutCounts(np.array([0]), np.zeros(1), np.zeros(1))
    assert choose_guesses({"attack": nothing}, n_audited=6) == ("attack", 0)


def test_expected_counts_are_those_of_simulated_canaries():
    rng = np.random.default_rng(0)
    counts = expected_counts(compose(CLAIMED), 2000)
    draws = [SubsampledGaussian(CLAIMED).draw(rng, 2000) for _ in range(10)]
    for k, members, nonmembers in zip(counts.k, counts.members, counts.nonmembers, strict=True):
        if k < 50 or k > 1950:
            continue
        high = np.mean([count_guesses(*draw, n_high=k, n_low=0)[0] for draw in draws])
        low = np.mean([count_guesses(*draw, n_high=0, n_low=k)[0] for draw in draws])
        assert (high, low) == pytest.approx((members, nonmembers), abs=0.03 * k)


@pytest.mark.parametrize("sigma", [1.417, 4.1])  # epsilon 8 and 2
def test_noise_of_half_the_size_is_refuted(sigma):
    """In 18 of 20 runs at least; the number of guesses of the bound would often miss it at epsilon 8."""
    claimed, rng = Mechanism(sigma, 0.25, 60), np.random.default_rng(3)
    counts = {"": expected_counts(compose(claimed), 5000)}
    k = np.array([[choose_test(claimed, n_audited=5000)], [choose_guesses(counts, n_audited=5000)[1]]])
    half = SubsampledGaussian(Mechanism(sigma / 2, 0.25, 60), claimed)
    draws = [half.draw(rng, 5000) for _ in range(20)]
    n_correct = [[count_guesses(*draw, n_high=n, n_low=0)[0] for draw in draws] for n in k[:, 0]]
    lowest_fpr = compose(claimed).lowest_fpr
    refuted = is_impossible(0.04, n_correct, k, 0.0, n_audited=5000, family=lowest_fpr).sum(axis=1)
    assert refuted[0] >= 18
    assert refuted[0] >= refuted[1] + (10 if sigma < 2 else 0)


# --- coverage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mechanism",
    [
        Gaussian(0.0),
        Gaussian(1.0),
        RandomizedResponse(2.0),
        SubsampledGaussian(Mechanism(1.0, 0.25, 20)),
    ],
)
def test_bounds_exceed_the_truth_and_tests_reject_it_in_at_most_5_percent(mechanism):
    """1,000 audits of each: benchmarks/attacks_coverage.py --audit."""
    mu, p = f_dp_audits(mechanism, 400, audits=200, seed=1)
    limit = binom.ppf(0.999, 200, 0.05)
    assert (mu > mechanism.mu).sum() <= limit
    assert (p < 0.05).sum() <= limit
    if mechanism.mu:
        assert np.median(mu) > 0.2


def test_the_test_allows_for_a_run_that_reveals_everything():
    """With probability 0.05; of 160 guesses on 400 samples the curve then allows all to be correct with 0.05 / 0.8."""
    p = f_dp_audits(RandomizedResponse(0.0, delta=0.05, together=400), 400, audits=200, seed=1, k=160)[1]
    assert p.min() == pytest.approx(0.0625, abs=1e-3)
    assert 0 < (p < 0.07).sum() <= binom.ppf(0.999, 200, 0.05)
