"""A lower bound on the epsilon of a training procedure, from one attack on each model that was trained with it.

Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846). Each of m audited samples is
in the training set with probability 1/2, independently: Bernoulli inclusion. As in Algorithm 1, the k+ samples with the
highest scores are guessed to be members and the k- with the lowest non-members; k+ and k- are fixed beforehand, here on
the shadows. If training were (epsilon, delta)-private for the addition or removal of one sample, P[at least v of r
guesses correct] could not exceed the p-value of Theorem 5.2: the bound is the largest epsilon that it rejects.

T targets are independent given the shadows. With Bernoulli inclusion they are one mechanism on T m samples; with exact
halves, where each p-value is conditional, the p-values of the targets are combined by Fisher's method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, expit, gammaln, logit
from scipy.stats import binom, chi2

CONFIDENCE = 0.95
CANDIDATES_PER_TAIL = 40
N_GRID = 17  # values of epsilon that the search for the bound tries at a time, each time between two of the last


@dataclass(frozen=True)
class Mechanism:
    """What the epsilon of one target is claimed for, from the accountant's history: so many times the clipped sum of a
    Poisson sample at this rate, plus Gaussian noise of standard deviation sigma, in units of the clipping norm."""

    sigma: float
    sample_rate: float
    steps: int


@dataclass(frozen=True)
class CanaryScores:
    """The gradient canaries of one target, each in the run by a fair coin of its own.

    score: float64 (M,), the log-likelihood ratio of membership summed over the steps, in nats; higher = member.
    member: bool (M,), the coins."""

    score: np.ndarray
    member: np.ndarray


def p_value(
    epsilon: ArrayLike, n_correct: ArrayLike, n_guesses: ArrayLike, *, n_audited: int, delta: float
) -> np.ndarray:
    """The highest probability that at least n_correct of n_guesses are correct under (epsilon, delta)-private training.

    Theorem 5.2, with m = n_audited, v = n_correct, r = n_guesses and B binomial (r, e^epsilon / (1 + e^epsilon)):
    p = P[B >= v] + 2 m delta max over i = 1 … v of P[v > B >= v - i] / i, at most 1. The first three arguments are
    broadcast; the counts may be fractions, for expected counts."""
    q, n_correct, n_guesses = np.broadcast_arrays(expit(epsilon), n_correct, n_guesses)

    def at_least(i: ArrayLike) -> np.ndarray:
        """P[B >= n_correct - i]"""
        k = n_correct - i
        return np.where(k > 0, betainc(np.maximum(k, 1e-9), n_guesses - k + 1, q), 1.0)

    beta = at_least(0)
    if not delta:
        return beta
    # P[v > B >= v - i] / i is the mean of the i probabilities below v. Since these rise and then fall, so does their
    # mean: it is highest where the next probability is the first below it.
    low, high = np.ones(q.shape), np.maximum(np.ceil(n_correct), 1)
    while np.any(low < high):
        i = (low + high) // 2
        falls = at_least(i + 1) - at_least(i) < (at_least(i) - beta) / i
        low, high = np.where(falls, low, np.minimum(i + 1, high)), np.where(falls, i, high)
    return np.minimum(beta + 2 * n_audited * delta * (at_least(low) - beta) / low, 1.0)


def pooled_p_value(
    epsilon: np.ndarray, n_correct: np.ndarray, n_guesses: np.ndarray, *, n_audited: int, delta: float, inclusion: str
) -> np.ndarray:
    """The p-value of all targets together, float64 (G, C).

    epsilon: (G,), rising. n_correct, n_guesses: (C, T), of C candidate attacks on each of T targets. n_audited: of one
    target. inclusion: "coin", or "half" where exactly half of the samples (n_audited // 2) are members, see
    log_halves_factor()."""
    n_targets = n_correct.shape[1]
    if inclusion == "coin":
        totals = n_correct.sum(axis=1), n_guesses.sum(axis=1)
        return p_value(epsilon[:, None], *totals, n_audited=n_targets * n_audited, delta=delta)
    p = p_value(epsilon[:, None, None], n_correct, n_guesses, n_audited=n_audited, delta=delta)  # (G, C, T)
    p = np.clip(p * np.exp(log_halves_factor(n_audited)), 1e-300, 1.0)
    # (epsilon, delta)-private training is so for every larger epsilon: the p-value there holds for epsilon too.
    p = np.minimum.accumulate(p[::-1])[::-1]
    return fisher(np.log(p))


def fisher(log_p: np.ndarray) -> np.ndarray:
    """The p-value of independent tests together, by Fisher's method. log_p: (…, T), of 1 where it is above 0."""
    return chi2.sf(-2 * np.minimum(log_p, 0.0).sum(axis=-1), 2 * log_p.shape[-1])


def log_halves_factor(n_audited: int) -> float:
    """How much more probable, in nats, any outcome is at most if exactly half of m samples are members: to condition
    independent inclusion on that event is to divide by its probability, C(m, m // 2) / 2^m."""
    half = n_audited // 2
    return n_audited * np.log(2.0) - gammaln(n_audited + 1) + gammaln(half + 1) + gammaln(n_audited - half + 1)


def epsilon_lower_bound(
    n_correct: Sequence[int],
    n_guesses: Sequence[int],
    *,
    n_audited: int,
    delta: float,
    inclusion: str,
    confidence: float = CONFIDENCE,
) -> float:
    """The largest epsilon that the guesses on all targets reject at this confidence, or 0; always finite.

    Not all of the models can then be (epsilon, delta)-private for any epsilon below it. n_correct <= n_guesses <=
    n_audited: of each target, (T,); delta: of the weakest guarantee, 0 without one. The p-value need not rise with
    epsilon; the bound is valid all the same, since training is private for every epsilon above its own too."""
    correct, guesses = np.atleast_2d(n_correct), np.atleast_2d(n_guesses)  # (1, T)

    def is_rejected(epsilon: np.ndarray) -> np.ndarray:
        p = pooled_p_value(epsilon, correct, guesses, n_audited=n_audited, delta=delta, inclusion=inclusion)
        return p[:, 0] < 1 - confidence

    return largest_rejected(is_rejected, _max_epsilon(1 - confidence, correct.size * n_audited))


def _max_epsilon(significance: float, n_samples: int) -> float:
    """Above it not even correct guesses on all samples reject."""
    return max(float(logit(significance ** (1 / n_samples))), 0.0) + 0.1


def largest_rejected(
    is_rejected: Callable[[np.ndarray], np.ndarray], high: float, *, low: float = 0.0, n_zooms: int = 6
) -> float:
    """The largest value from low to high that is rejected, low without one; exact to the range / (N_GRID - 1)^n_zooms.

    is_rejected: of a rising grid (G,), returns bool (G,). What counts is the largest rejected value, even if some below
    it are not rejected."""
    for _ in range(n_zooms):
        grid = np.linspace(low, high, N_GRID)
        rejected = np.flatnonzero(is_rejected(grid[:-1]))
        if not len(rejected):
            break
        low, high = grid[rejected[-1]], grid[rejected[-1] + 1]
    return float(low)


@dataclass(frozen=True)
class HeldOutCounts:
    """How many guesses on held-out shadows are correct, by their number.

    k: int64 (G,), candidate numbers of guesses, rising from 0 to all; members, nonmembers: float64 (G,), how many of
    the k highest scores are those of members, and of the k lowest of non-members, mean over the shadows."""

    k: np.ndarray
    members: np.ndarray
    nonmembers: np.ndarray


def count_held_out(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> HeldOutCounts:
    """scores: per held-out shadow, float64 (n,), higher = member, NaN = not scored. truths: bool (n,), its members."""
    ranked = [truth[_rank(score)] for score, truth in zip(scores, truths, strict=True)]
    k = candidates(min(map(len, ranked)))
    members, nonmembers = (
        np.mean([np.append(0, np.cumsum(side))[k] for side in sides], axis=0)
        for sides in ([truth[::-1] for truth in ranked], [~truth for truth in ranked])
    )
    return HeldOutCounts(k, members, nonmembers)


def candidates(n: int, *, first: int = 1) -> np.ndarray:
    """Numbers of guesses on n samples, int64 (G,), rising: 40 from `first` to n / 2, as many from n, and 0 and n."""
    tail = np.round(np.geomspace(min(first, max(n / 2, 1)), max(n / 2, 1), CANDIDATES_PER_TAIL)).astype(np.int64)
    return np.unique(np.clip(np.concatenate([[0], tail, n - tail, [n]]), 0, n))


def undominated(n_correct: np.ndarray, n_guesses: np.ndarray) -> np.ndarray:
    """Places of the choices, by falling n_correct at the same n_wrong, but for those to which another has as many
    correct guesses and no more wrong ones. float64 (C,) each."""
    order = np.lexsort([-n_correct, n_guesses - n_correct])
    return order[np.diff(np.maximum.accumulate(n_correct[order]), prepend=-1) > 0]


def _rank(score: np.ndarray) -> np.ndarray:
    """The samples that have a score, from the lowest to the highest; ties by index."""
    order = np.argsort(score, kind="stable")  # NaN last
    return order[: np.count_nonzero(~np.isnan(score))]


def choose_guesses(
    counts: Mapping[str, HeldOutCounts], *, n_targets: int, n_audited: int, delta: float, inclusion: str
) -> tuple[str, int, int]:
    """(attack, k+, k-) with the largest bound at this delta for the mean counts of the held-out shadows.

    counts: by attack, at least one. The targets' scores and membership are not used, so the bound stays valid."""
    choices, n_correct, n_guesses = [], [], []
    for attack, held_out in counts.items():
        high, low = np.nonzero(held_out.k[:, None] + held_out.k <= held_out.k[-1])
        choices += [(attack, *pair) for pair in zip(held_out.k[high].tolist(), held_out.k[low].tolist(), strict=True)]
        n_correct.append(held_out.members[high] + held_out.nonmembers[low])
        n_guesses.append(held_out.k[high] + held_out.k[low])
    correct, guesses = np.concatenate(n_correct), np.concatenate(n_guesses)
    order = undominated(correct, guesses)
    # The targets are expected to be alike. With exact halves, what is best for one of them is best for all.
    n_alike = n_targets if inclusion == "coin" else 1
    correct, guesses = (np.repeat(value[order][:, None], n_alike, axis=1) for value in (correct, guesses))  # (C, T)

    def p(epsilon: np.ndarray) -> np.ndarray:
        return pooled_p_value(epsilon, correct, guesses, n_audited=n_audited, delta=delta, inclusion=inclusion)

    max_epsilon = _max_epsilon(1 - CONFIDENCE, n_alike * n_audited)
    best = largest_rejected(lambda grid: p(grid).min(axis=1) < 1 - CONFIDENCE, max_epsilon, n_zooms=2)
    return choices[order[p(np.array([best]))[0].argmin()]]


def is_fair(n_members: ArrayLike, n_samples: int, *, n_tests: int = 1) -> bool:
    """Whether all of these numbers can be those of n_samples independent draws with probability 1/2.

    Two-sided tests, at a significance of 1e-6 for n_tests of them together: true members never fail them by chance."""
    smaller = np.minimum(n_members, n_samples - np.asarray(n_members))
    return bool(np.all(2 * binom.cdf(smaller, n_samples, 0.5) >= 1e-6 / n_tests))


def count_guesses(score: np.ndarray, member: np.ndarray, *, n_high: int, n_low: int) -> tuple[int, int]:
    """(n_correct, n_guesses) of one target: its n_high highest and n_low lowest scores, fewer where fewer are scored.

    score: float64 (N,), higher = member, NaN = not scored, which may depend on the shadows alone; member: bool (N,)."""
    truth = member[_rank(score)]
    n_high = min(n_high, len(truth))
    n_low = min(n_low, len(truth) - n_high)
    n_correct = truth[len(truth) - n_high :].sum() + (~truth[:n_low]).sum()
    return int(n_correct), n_high + n_low
