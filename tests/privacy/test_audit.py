"""The bound against the formula by brute force, against mechanisms of known epsilon, and its choice of n_guesses."""

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


def brute_force(n_correct, n_guesses, *, n_audited, delta, refuted):
    """The largest epsilon of a grid, from 0 up to the first that is not refuted; every sum written out."""
    bound = 0.0
    for epsilon in np.arange(0.0, 12.0, 0.01):
        q = math.exp(epsilon) / (1 + math.exp(epsilon))
        mass = [math.comb(n_guesses, k) * q**k * (1 - q) ** (n_guesses - k) for k in range(n_guesses + 1)]
        alpha = max((sum(mass[max(n_correct - i, 0) : n_correct]) / i for i in range(1, n_audited + 1)), default=0.0)
        if sum(mass[n_correct:]) + 2 * n_audited * delta * alpha > refuted:
            break
        bound = epsilon
    return bound


@pytest.mark.parametrize("delta", [0.0, 1e-4, 2e-3])
@pytest.mark.parametrize(
    ("n_correct", "n_guesses", "n_audited"),
    [(20, 20, 20), (20, 20, 100), (55, 60, 200), (70, 100, 100), (0, 10, 30), (5, 10, 30)],
)
def test_the_bound_is_that_of_the_formula(n_correct, n_guesses, n_audited, delta):
    expected = brute_force(n_correct, n_guesses, n_audited=n_audited, delta=delta, refuted=0.05)
    bound = epsilon_lower_bound(n_correct, n_guesses, n_audited=n_audited, delta=delta)
    assert expected <= bound + 1e-6 <= expected + 0.0101
    if bound:
        assert p_value(bound, n_correct, n_guesses, n_audited=n_audited, delta=delta) == pytest.approx(0.05, rel=1e-4)


def test_the_bound_of_a_half_compares_with_the_probability_of_a_half():
    share = math.comb(20, 10) / 2**20
    assert significance(20, "half") == pytest.approx(0.05 * share)
    assert significance(21, "half") == pytest.approx(0.05 * math.comb(21, 10) / 2**21)
    expected = brute_force(20, 20, n_audited=20, delta=1e-4, refuted=0.05 * share)
    assert epsilon_lower_bound(20, 20, n_audited=20, delta=1e-4, inclusion="half") == pytest.approx(expected, abs=0.011)


def test_a_known_number():
    """All of r n_guesses n_correct: q^r = 0.05."""
    q = 0.05 ** (1 / 100)
    assert epsilon_lower_bound(100, 100, n_audited=1000) == pytest.approx(math.log(q / (1 - q)))


@pytest.mark.parametrize("inclusion", ["coin", "half"])
@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_it_grows_with_the_right_guesses_and_shrinks_with_what_weakens_it(inclusion, delta):
    bounds = [
        epsilon_lower_bound(n_correct, 500, n_audited=600, delta=delta, inclusion=inclusion)
        for n_correct in range(0, 501, 10)
    ]
    assert bounds == sorted(bounds)
    assert bounds[25] == 0.0
    assert len(set(bounds)) > 20
    strong = dict(n_audited=600, delta=delta, inclusion=inclusion)
    assert epsilon_lower_bound(450, 500, **strong) > epsilon_lower_bound(450, 500, **strong | {"delta": 1e-4})
    assert epsilon_lower_bound(450, 500, **strong) > epsilon_lower_bound(450, 500, **strong | {"confidence": 0.99})
    assert epsilon_lower_bound(450, 500, **strong, confidence=0.9) > epsilon_lower_bound(450, 500, **strong)


def test_p_rises_with_epsilon_as_long_as_it_is_used():
    for delta in (0.0, 1e-5, 1 / 1200):
        p = [p_value(epsilon, 400, 500, n_audited=600, delta=delta) for epsilon in np.linspace(0, 4, 81)]
        assert all(np.diff(p) >= -1e-12), delta
    assert epsilon_lower_bound(500, 500, n_audited=600, delta=1 / 1199) == 0.0, "no claim where it need not rise"


# --- coverage ------------------------------------------------------------------------------------------------------

MECHANISMS, SAMPLES = 1000, 200


def responses(rng, epsilon, inclusion):
    """(member, score): 1,000 times randomised response, the worst that epsilon-privacy allows, with the truth."""
    member = rng.random((MECHANISMS, SAMPLES)) < 0.5
    if inclusion == "half":
        member = rng.permuted(np.tile(np.arange(SAMPLES) < SAMPLES // 2, (MECHANISMS, 1)), axis=1)
    honest = rng.random(member.shape) < math.exp(epsilon) / (1 + math.exp(epsilon))
    return member, np.where(honest, member, ~member).astype(float)


@pytest.mark.parametrize("inclusion", ["coin", "half"])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("abstain", [0.0, 0.7])
def test_it_exceeds_the_truth_in_at_most_5_percent(inclusion, epsilon, abstain):
    """epsilon 0 are random guessers: their bound is 0 for at least 95 %."""
    rng = np.random.default_rng(3)
    member, score = responses(rng, epsilon, inclusion)
    score[rng.random(score.shape) < abstain] = np.nan
    counts = [count_guesses(*pair, threshold_low=0.5, threshold_high=0.5) for pair in zip(score, member, strict=True)]
    known = {}
    bounds = [
        known.setdefault(pair, epsilon_lower_bound(*pair, n_audited=SAMPLES, inclusion=inclusion)) for pair in counts
    ]
    wrong, allowed = sum(bound > epsilon for bound in bounds), binom.ppf(0.999, MECHANISMS, 0.05)
    assert wrong <= allowed
    if inclusion == "coin" and not abstain:
        assert wrong >= binom.ppf(0.001, MECHANISMS, 0.02), "so loose that it says little"


def test_it_exceeds_the_truth_in_at_most_5_percent_with_delta():
    """With probability delta a sample's coin is told outright: (epsilon, delta)-private for each sample."""
    rng, epsilon, delta = np.random.default_rng(4), 1.0, 1e-3
    member, score = responses(rng, epsilon, "coin")
    told = rng.random(member.shape) < delta
    score[told] = member[told]
    counts = [count_guesses(*pair, threshold_low=0.5, threshold_high=0.5) for pair in zip(score, member, strict=True)]
    bounds = [epsilon_lower_bound(*pair, n_audited=SAMPLES, delta=delta) for pair in counts]
    assert sum(bound > epsilon for bound in bounds) <= binom.ppf(0.999, MECHANISMS, 0.05)


# --- the choice ----------------------------------------------------------------------------------------------------


def scores(rng, strength, players=6, samples=500, sure=0.1):
    """Held-out scores where only a tenth of the samples say anything."""
    truths = [rng.random(samples) < 0.5 for _ in range(players)]
    tell = [rng.random(samples) < sure for _ in range(players)]
    shift = [np.where(truth, strength, -strength) * told for truth, told in zip(truths, tell, strict=True)]
    return [rng.normal(size=samples) + one for one in shift], truths


def test_a_tally_counts_as_a_loop_does():
    rng = np.random.default_rng(0)
    held_out, truths = scores(rng, 1.0, players=2, samples=40)
    held_out[0][:5] = np.nan
    held_out[1] = np.round(held_out[1])  # ties
    one = count_held_out(held_out, truths)
    score, member = np.concatenate(held_out), np.concatenate(truths)
    assert (one.cuts[0], one.cuts[-1], one.players) == (-np.inf, np.inf, 2)
    assert (np.diff(one.cuts) > 0).all()
    for cut, (outside, inside) in zip(one.cuts, one.above, strict=True):
        assert inside == sum(m and s >= cut for s, m in zip(score, member, strict=True))
        assert outside == sum(not m and s >= cut for s, m in zip(score, member, strict=True))


def test_the_choice_is_the_best_of_all_pairs_and_attacks():
    rng = np.random.default_rng(1)
    tallies = {name: count_held_out(*scores(rng, strength)) for name, strength in (("weak", 0.5), ("strong", 6.0))}
    attack, low, high = choose_thresholds(tallies, n_audited=500, inclusion="coin")
    assert attack == "strong"
    assert -6 < low < -2 < 2 < high < 6, "abstains from what says nothing"
    held_out, truths = scores(rng, 6.0, players=1)
    n_correct, n_guesses = count_guesses(held_out[0], truths[0], threshold_low=low, threshold_high=high)
    assert 20 < n_guesses < 120
    every = count_guesses(held_out[0], truths[0], threshold_low=0.0, threshold_high=0.0)
    assert epsilon_lower_bound(n_correct, n_guesses, n_audited=500) > epsilon_lower_bound(*every, n_audited=500) + 0.5


def test_guesses_are_counted_once_and_unknown_ones_not_at_all():
    score, member = np.array([2.0, 1.0, 0.0, -1.0, np.nan]), np.array([True, False, True, False, True])
    assert count_guesses(score, member, threshold_low=0.0, threshold_high=1.0) == (2, 3)
    assert count_guesses(score, member, threshold_low=-np.inf, threshold_high=np.inf) == (0, 0)
    assert epsilon_lower_bound(0, 0, n_audited=5) == 0.0
