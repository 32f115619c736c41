"""The bound against the formula by brute force, against mechanisms of known epsilon, and the choice of thresholds."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from lira.privacy.audit import (
    choose_thresholds,
    count_guesses,
    count_held_out,
    epsilon_lower_bound,
    p_value,
    significance,
)

PURE = dict(delta=0.0, inclusion="coin")


def brute_force(n_correct, n_guesses, *, n_audited, delta, p_limit):
    """The largest epsilon of a grid, from 0 up to the first that is not rejected; every sum written out."""
    bound = 0.0
    for epsilon in np.arange(0.0, 12.0, 0.01):
        q = math.exp(epsilon) / (1 + math.exp(epsilon))
        mass = [math.comb(n_guesses, k) * q**k * (1 - q) ** (n_guesses - k) for k in range(n_guesses + 1)]
        alpha = max((sum(mass[max(n_correct - i, 0) : n_correct]) / i for i in range(1, n_audited + 1)), default=0.0)
        if sum(mass[n_correct:]) + 2 * n_audited * delta * alpha > p_limit:
            break
        bound = epsilon
    return bound


@pytest.mark.parametrize("delta", [0.0, 1e-4, 2e-3])
@pytest.mark.parametrize(
    ("n_correct", "n_guesses", "n_audited"),
    [(20, 20, 20), (20, 20, 100), (55, 60, 200), (70, 100, 100), (0, 10, 30), (5, 10, 30)],
)
def test_the_bound_is_that_of_the_formula(n_correct, n_guesses, n_audited, delta):
    expected = brute_force(n_correct, n_guesses, n_audited=n_audited, delta=delta, p_limit=0.05)
    bound = epsilon_lower_bound(n_correct, n_guesses, n_audited=n_audited, delta=delta, inclusion="coin")
    assert expected <= bound + 1e-6 <= expected + 0.0101
    if bound:
        assert p_value(bound, n_correct, n_guesses, n_audited=n_audited, delta=delta) == pytest.approx(0.05, rel=1e-4)


def test_the_significance_of_a_half_includes_the_probability_of_a_half():
    probability = math.comb(20, 10) / 2**20
    assert significance(20, "coin") == pytest.approx(0.05)
    assert significance(20, "half") == pytest.approx(0.05 * probability)
    assert significance(21, "half") == pytest.approx(0.05 * math.comb(21, 10) / 2**21)
    expected = brute_force(20, 20, n_audited=20, delta=1e-4, p_limit=0.05 * probability)
    assert epsilon_lower_bound(20, 20, n_audited=20, delta=1e-4, inclusion="half") == pytest.approx(expected, abs=0.011)


def test_a_bound_in_closed_form():
    """All of r guesses are correct: q^r = 0.05."""
    q = 0.05 ** (1 / 100)
    assert epsilon_lower_bound(100, 100, n_audited=1000, **PURE) == pytest.approx(math.log(q / (1 - q)))


@pytest.mark.parametrize("inclusion", ["coin", "half"])
@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_the_bound_grows_with_n_correct_and_shrinks_with_delta_and_confidence(inclusion, delta):
    how = dict(n_audited=600, delta=delta, inclusion=inclusion)
    bounds = [epsilon_lower_bound(n_correct, 500, **how) for n_correct in range(0, 501, 10)]
    assert bounds == sorted(bounds)
    assert bounds[25] == 0.0
    assert len(set(bounds)) > 20
    assert epsilon_lower_bound(450, 500, **how) > epsilon_lower_bound(450, 500, **how | {"delta": 1e-4})
    assert epsilon_lower_bound(450, 500, **how) > epsilon_lower_bound(450, 500, **how, confidence=0.99)
    assert epsilon_lower_bound(450, 500, **how, confidence=0.9) > epsilon_lower_bound(450, 500, **how)


def test_the_p_value_rises_with_epsilon_where_it_is_used():
    for delta in (0.0, 1e-5, 1 / 1200):
        p = [p_value(epsilon, 400, 500, n_audited=600, delta=delta) for epsilon in np.linspace(0, 4, 81)]
        assert all(np.diff(p) >= -1e-12), delta
    bound = epsilon_lower_bound(500, 500, n_audited=600, delta=1 / 1199, inclusion="coin")
    assert bound == 0.0, "no claim where it need not rise"


# --- coverage ------------------------------------------------------------------------------------------------------

MECHANISMS, SAMPLES = 1000, 200


def responses(rng, epsilon, inclusion):
    """(member, score): 1,000 times randomized response, the worst case of epsilon-privacy, with the truth."""
    member = rng.random((MECHANISMS, SAMPLES)) < 0.5
    if inclusion == "half":
        member = rng.permuted(np.tile(np.arange(SAMPLES) < SAMPLES // 2, (MECHANISMS, 1)), axis=1)
    truthful = rng.random(member.shape) < math.exp(epsilon) / (1 + math.exp(epsilon))
    return member, np.where(truthful, member, ~member).astype(float)


def n_above(epsilon, score, member, **how):
    """The number of mechanisms whose bound exceeds epsilon."""
    counts = [count_guesses(*pair, threshold_low=0.5, threshold_high=0.5) for pair in zip(score, member, strict=True)]
    bounds = {pair: epsilon_lower_bound(*pair, n_audited=SAMPLES, **how) for pair in set(counts)}
    return sum(bounds[pair] > epsilon for pair in counts)


@pytest.mark.parametrize("inclusion", ["coin", "half"])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("abstain", [0.0, 0.7])
def test_the_bound_exceeds_the_truth_in_at_most_5_percent(inclusion, epsilon, abstain):
    """At epsilon 0 the guesses are random: the bound is 0 for at least 95 % of them."""
    rng = np.random.default_rng(3)
    member, score = responses(rng, epsilon, inclusion)
    score[rng.random(score.shape) < abstain] = np.nan
    n_wrong = n_above(epsilon, score, member, delta=0.0, inclusion=inclusion)
    assert n_wrong <= binom.ppf(0.999, MECHANISMS, 0.05)
    if inclusion == "coin" and not abstain:
        assert n_wrong >= binom.ppf(0.001, MECHANISMS, 0.02), "the bound is too loose"


def test_the_bound_exceeds_the_truth_in_at_most_5_percent_with_delta():
    """With probability delta the score reveals a sample's inclusion: (epsilon, delta)-private for each sample."""
    rng, epsilon, delta = np.random.default_rng(4), 1.0, 1e-3
    member, score = responses(rng, epsilon, "coin")
    revealed = rng.random(member.shape) < delta
    score[revealed] = member[revealed]
    assert n_above(epsilon, score, member, delta=delta, inclusion="coin") <= binom.ppf(0.999, MECHANISMS, 0.05)


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
    score, member = np.concatenate(scores), np.concatenate(truths)
    assert (counts.thresholds[0], counts.thresholds[-1], counts.n_shadows) == (-np.inf, np.inf, 2)
    assert (np.diff(counts.thresholds) > 0).all()
    for threshold, (n_nonmembers, n_members) in zip(counts.thresholds, counts.above, strict=True):
        assert n_members == sum(m and s >= threshold for s, m in zip(score, member, strict=True))
        assert n_nonmembers == sum(not m and s >= threshold for s, m in zip(score, member, strict=True))


def test_the_choice_is_the_best_of_all_thresholds_and_attacks():
    rng = np.random.default_rng(1)
    counts = {name: count_held_out(*held_out_scores(rng, gap)) for name, gap in (("weak", 0.5), ("strong", 6.0))}
    attack, low, high = choose_thresholds(counts, n_audited=500, inclusion="coin")
    assert attack == "strong"
    assert -6 < low < -2 < 2 < high < 6, "abstains where nothing is exposed"
    (score,), (member,) = held_out_scores(rng, 6.0, n_shadows=1)
    chosen = count_guesses(score, member, threshold_low=low, threshold_high=high)
    assert 20 < chosen[1] < 120
    every = count_guesses(score, member, threshold_low=0.0, threshold_high=0.0)
    bounds = [epsilon_lower_bound(*pair, n_audited=500, **PURE) for pair in (chosen, every)]
    assert bounds[0] > bounds[1] + 0.5


def test_guesses_are_counted_once_and_missing_scores_not_at_all():
    score, member = np.array([2.0, 1.0, 0.0, -1.0, np.nan]), np.array([True, False, True, False, True])
    assert count_guesses(score, member, threshold_low=0.0, threshold_high=1.0) == (2, 3)
    assert count_guesses(score, member, threshold_low=-np.inf, threshold_high=np.inf) == (0, 0)
    assert epsilon_lower_bound(0, 0, n_audited=5, **PURE) == 0.0
