"""The bound against the paper's formula written out and against mechanisms of known epsilon; the choice of guesses."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from lira.privacy import audit
from lira.privacy.audit import (
    choose_guesses,
    count_guesses,
    count_held_out,
    epsilon_lower_bound,
    is_fair,
    p_value,
)
from tests.helpers.mechanisms import RandomizedResponse, audit_bounds

PURE = dict(delta=0.0, inclusion="coin")


def naive_p_value(epsilon, n_correct, n_guesses, *, n_audited, delta):
    """Theorem 5.2, every sum written out."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(n_guesses, k) * q**k * (1 - q) ** (n_guesses - k) for k in range(n_guesses + 1)]
    alpha = max((sum(mass[max(n_correct - i, 0) : n_correct]) / i for i in range(1, n_audited + 1)), default=0.0)
    return min(sum(mass[n_correct:]) + 2 * n_audited * delta * alpha, 1.0)


def naive_bound(p, p_limit, step=0.05):
    """The largest epsilon of a grid with p(epsilon) below the limit, or 0."""
    return max([0.0, *(epsilon for epsilon in np.arange(0.0, 10.0, step) if p(epsilon) < p_limit)])


CASES = [(20, 20, 20), (20, 20, 100), (55, 60, 100), (40, 50, 50), (0, 10, 30), (5, 10, 30), (1, 1, 1), (0, 0, 5)]


@pytest.mark.parametrize("delta", [0.0, 1e-4, 2e-3, 0.03])
@pytest.mark.parametrize(("n_correct", "n_guesses", "n_audited"), CASES)
def test_p_value_and_bound_are_those_of_the_formula(n_correct, n_guesses, n_audited, delta):
    """Also where 2 m delta exceeds 1."""

    def naive(epsilon):
        return naive_p_value(epsilon, n_correct, n_guesses, n_audited=n_audited, delta=delta)

    epsilons = np.linspace(0, 9, 19)
    expected = [naive(epsilon) for epsilon in epsilons]
    p = p_value(epsilons, n_correct, n_guesses, n_audited=n_audited, delta=delta)
    np.testing.assert_allclose(p, expected, rtol=1e-10)
    bound = epsilon_lower_bound([n_correct], [n_guesses], n_audited=n_audited, delta=delta, inclusion="coin")
    assert naive_bound(naive, 0.05) <= bound + 1e-6 <= naive_bound(naive, 0.05) + 0.0501


def test_p_values_of_random_counts():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n_audited, delta = int(rng.integers(1, 60)), 10 ** rng.uniform(-5, -0.5)
        n_guesses = int(rng.integers(0, n_audited + 1))
        n_correct, epsilon = int(rng.integers(n_guesses // 2, n_guesses + 1)), rng.uniform(0, 5)
        p = p_value(epsilon, n_correct, n_guesses, n_audited=n_audited, delta=delta)
        expected = naive_p_value(epsilon, n_correct, n_guesses, n_audited=n_audited, delta=delta)
        assert p == pytest.approx(expected, rel=1e-9), (n_correct, n_guesses, n_audited, delta, epsilon)


def test_a_p_value_that_falls_again_rejects_what_it_rejects():
    def is_rejected(epsilon):
        return (epsilon < 0.5) | ((epsilon > 2) & (epsilon < 3))

    assert audit.largest_rejected(is_rejected, 8.0) == pytest.approx(3, abs=1e-5)
    assert audit.largest_rejected(np.isnan, 8.0) == 0.0


def test_p_values_that_fall_again_are_combined_as_what_they_reject(monkeypatch):
    """Training that is private for epsilon 0 or 1 is so for epsilon 2: the p-value there holds for them too."""
    monkeypatch.setattr(
        audit, "p_value", lambda epsilon, *args, **how: np.array([0.9, 0.5, 0.01, 0.4]).reshape(4, 1, 1)
    )
    counts = np.ones((1, 1))
    p = audit.pooled_p_value(np.arange(4.0), counts, counts, n_audited=1, delta=0.0, inclusion="half")[:, 0]
    np.testing.assert_allclose(p, [0.02, 0.02, 0.02, 0.8])  # C(1, 0) / 2: one sample is a member or none


def test_bounds_in_closed_form():
    """All of r guesses are correct: q^r = 0.05."""
    q = 0.05 ** (1 / 100)
    assert epsilon_lower_bound([100], [100], n_audited=1000, **PURE) == pytest.approx(math.log(q / (1 - q)), abs=1e-6)
    q = 0.05 ** (1 / 400)
    pooled = epsilon_lower_bound([100] * 4, [100] * 4, n_audited=1000, **PURE)
    assert pooled == pytest.approx(math.log(q / (1 - q)), abs=1e-6)


@pytest.mark.parametrize(
    ("inclusion", "delta", "n_targets", "expected"),
    [("half", 1e-5, 1, 3.06), ("coin", 1e-5, 1, 7.83), ("coin", 1e-5, 6, 8.18), ("half", 0.0, 1, 7.15)],
)
def test_the_most_that_10000_samples_show(inclusion, delta, n_targets, expected):
    everything = [10_000] * n_targets
    bound = epsilon_lower_bound(everything, everything, n_audited=10_000, delta=delta, inclusion=inclusion)
    assert bound == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("inclusion", ["coin", "half"])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-4])
def test_the_bound_grows_with_n_correct_and_shrinks_with_delta_and_confidence(inclusion, delta):
    how = dict(n_audited=600, delta=delta, inclusion=inclusion)
    bounds = [epsilon_lower_bound([n_correct], [500], **how) for n_correct in range(0, 501, 10)]
    assert bounds == sorted(bounds)
    assert bounds[25] == 0.0
    assert len(set(bounds)) > 15
    assert epsilon_lower_bound([450], [500], **how | {"delta": delta + 1e-4}) < epsilon_lower_bound([450], [500], **how)
    assert epsilon_lower_bound([499], [500], **how, confidence=0.99) < epsilon_lower_bound([499], [500], **how)


# --- several targets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.0, 1e-4])
def test_targets_of_bernoulli_inclusion_are_one_target_of_all_samples(delta):
    pooled = epsilon_lower_bound([55, 60, 48], [60, 60, 60], n_audited=200, delta=delta, inclusion="coin")
    one = epsilon_lower_bound([163], [180], n_audited=600, delta=delta, inclusion="coin")
    assert pooled == one > 1


def test_four_perfect_targets_show_more_than_one():
    """The counts of the four overfitted targets in benchmarks/RESULTS.md."""
    n_correct, n_guesses = [1939, 1903, 1948, 1893], [1939, 1903, 1949, 1893]
    pooled = epsilon_lower_bound(n_correct, n_guesses, n_audited=10_000, **PURE)
    alone = [epsilon_lower_bound([v], [r], n_audited=10_000, **PURE) for v, r in zip(n_correct, n_guesses, strict=True)]
    assert pooled == pytest.approx(7.39, abs=0.005)
    assert np.median(alone) == pytest.approx(6.45, abs=0.005)


@pytest.mark.parametrize("delta", [0.0, 1e-4])
@pytest.mark.parametrize("n_audited", [40, 41])
@pytest.mark.parametrize("n_correct", [[40], [40, 36], [38, 20, 40]])
def test_exact_halves_are_conditioned_and_combined_by_fisher(n_correct, n_audited, delta):
    factor = 2**n_audited / math.comb(n_audited, n_audited // 2)

    def combined(epsilon):
        p = [min(factor * naive_p_value(epsilon, v, 40, n_audited=n_audited, delta=delta), 1.0) for v in n_correct]
        half_statistic = -math.log(math.prod(p))  # chi-squared with 2 T degrees of freedom, halved: Erlang
        return math.exp(-half_statistic) * sum(half_statistic**k / math.factorial(k) for k in range(len(p)))

    bound = epsilon_lower_bound(n_correct, [40] * len(n_correct), n_audited=n_audited, delta=delta, inclusion="half")
    assert 0 < naive_bound(combined, 0.05) <= bound + 1e-6 <= naive_bound(combined, 0.05) + 0.0501


# --- coverage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inclusion", ["coin", "half"])
@pytest.mark.parametrize("n_targets", [1, 4])
@pytest.mark.parametrize(
    "mechanism",
    [
        RandomizedResponse(0.0),
        RandomizedResponse(2.0, silent=0.5),
        RandomizedResponse(2.0, 2e-3),
        RandomizedResponse(2.0, 2e-3, together=10),
    ],
)
def test_the_bound_exceeds_the_truth_in_at_most_5_percent(mechanism, n_targets, inclusion):
    """1,000 audits of each: benchmarks/attacks_coverage.py --audit."""
    bounds = audit_bounds(mechanism, 200, n_targets=n_targets, inclusion=inclusion, audits=200, choices=1, seed=1)
    assert (bounds > mechanism.epsilon).sum() <= binom.ppf(0.999, 200, 0.05)
    if mechanism.epsilon and inclusion == "coin":
        assert np.median(bounds) > mechanism.epsilon / 2, "the bound is too loose"


# --- the choice ----------------------------------------------------------------------------------------------------


def held_out_scores(rng, gap, n_shadows=6, n_samples=500, exposed=0.1):
    """(scores, truths) of held-out shadows, where a tenth of the samples are exposed."""
    truths = [rng.random(n_samples) < 0.5 for _ in range(n_shadows)]
    is_exposed = [rng.random(n_samples) < exposed for _ in range(n_shadows)]
    shifts = [np.where(truth, gap, -gap) * mask for truth, mask in zip(truths, is_exposed, strict=True)]
    return [rng.normal(size=n_samples) + shift for shift in shifts], truths


def test_held_out_scores_are_counted_as_in_a_loop():
    rng = np.random.default_rng(0)
    scores, truths = held_out_scores(rng, 1.0, n_shadows=2, n_samples=40)
    scores[0][:5] = np.nan
    scores[1] = np.round(scores[1])  # ties
    counts = count_held_out(scores, truths)
    assert (counts.k[0], counts.k[-1]) == (0, 35)
    assert (np.diff(counts.k) > 0).all()
    for k, members, nonmembers in zip(counts.k, counts.members, counts.nonmembers, strict=True):
        guesses = [count_guesses(*pair, n_high=k, n_low=0)[0] for pair in zip(scores, truths, strict=True)]
        assert members == np.mean(guesses)
        guesses = [count_guesses(*pair, n_high=0, n_low=k)[0] for pair in zip(scores, truths, strict=True)]
        assert nonmembers == np.mean(guesses)


@pytest.mark.parametrize("delta", [0.0, 1e-4])
@pytest.mark.parametrize("inclusion", ["coin", "half"])
def test_the_choice_is_the_best_of_all_attacks_and_numbers(inclusion, delta):
    rng = np.random.default_rng(1)
    sets = {name: held_out_scores(rng, gap, n_shadows=1, exposed=0.3) for name, gap in (("weak", 0.5), ("strong", 4.0))}
    how = dict(n_audited=500, delta=delta, inclusion=inclusion)
    attack, n_high, n_low = choose_guesses(
        {name: count_held_out(*shadows) for name, shadows in sets.items()}, n_targets=1, **how
    )
    assert attack == "strong"
    (score,), (truth,) = sets["strong"]

    def bound(n_high, n_low):
        n_correct, n_guesses = count_guesses(score, truth, n_high=n_high, n_low=n_low)
        return epsilon_lower_bound([n_correct], [n_guesses], **how)

    others = [(high, low) for high in range(0, 501, 50) for low in range(0, 501 - high, 50)]
    assert bound(n_high, n_low) >= max(bound(*pair) for pair in others) - 0.05
    assert n_high + n_low < 300, "abstains where nothing is exposed"


def test_delta_is_in_the_choice():
    """Few certain guesses show most without a delta, and nothing where the delta allows for them."""
    rng = np.random.default_rng(5)
    counts = {"attack": count_held_out(*held_out_scores(rng, 0.5, n_samples=10_000, exposed=1.0))}
    (score,), (truth,) = held_out_scores(rng, 0.5, n_shadows=1, n_samples=10_000, exposed=1.0)
    how = dict(n_audited=10_000, inclusion="coin")
    bounds = []
    for assumed in (0.0, 1e-4):
        _, n_high, n_low = choose_guesses(counts, n_targets=1, delta=assumed, **how)
        n_correct, n_guesses = count_guesses(score, truth, n_high=n_high, n_low=n_low)
        bounds.append(epsilon_lower_bound([n_correct], [n_guesses], delta=1e-4, **how))
    assert bounds[1] > bounds[0] + 0.5


def test_the_number_of_guesses_is_fixed_and_ties_are_broken_by_index():
    score, member = np.array([1.0, 0.0, np.nan, 1.0, 0.0, 1.0]), np.array([True, False, True, False, True, True])
    assert count_guesses(score, member, n_high=1, n_low=1) == (2, 2)  # the last and the second
    assert count_guesses(score, member, n_high=2, n_low=2) == (2, 4)
    assert count_guesses(score, member, n_high=3, n_low=2) == (3, 5)
    assert count_guesses(score, member, n_high=4, n_low=9) == (4, 5), "all that have a score, none of them twice"
    assert count_guesses(np.arange(200.0) % 2, np.arange(200) >= 100, n_high=50, n_low=50) == (100, 100)
    assert count_guesses(score, member, n_high=0, n_low=0) == (0, 0)
    assert count_guesses(np.full(6, np.nan), member, n_high=3, n_low=3) == (0, 0)
    assert epsilon_lower_bound([0], [0], n_audited=5, **PURE) == 0.0


def test_without_held_out_scores_nothing_is_guessed():
    counts = {"attack": count_held_out([np.full(6, np.nan)], [np.arange(6) < 3])}
    assert choose_guesses(counts, n_targets=1, n_audited=6, delta=1e-5, inclusion="half") == ("attack", 0, 0)


def test_numbers_that_fair_draws_do_not_give():
    assert is_fair([5000, 5100, 4800], 10_000)
    assert not is_fair([5000, 5300], 10_000)
    assert not is_fair(4700, 10_000)
    assert is_fair(5250, 10_000, n_tests=100)
    assert not is_fair(5250, 10_000)
    assert is_fair(0, 10), "ten samples show nothing"
    assert is_fair([], 10)
