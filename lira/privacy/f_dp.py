"""Trade-off curves: what the guesses of one attack say about f-DP, and the curve of a mechanism.

Mahloujifar, Melis, Chaudhuri, "Auditing f-Differential Privacy in One Run" (arXiv 2410.22235). Each of m audited
samples is in the training set with probability 1/2, independently; the k samples with the highest scores are guessed
to be members. f-DP limits how well any test tells a training set with a sample from one without it: its false positive
rate is at least F(its true positive rate), where F is convex; the paper writes F as the inverse of f̄.

Let N be the number of correct guesses, i a sample drawn at random, r_j = 2 P[N >= j and i is guessed correctly] and
h_j = 2 P[N >= j and i is guessed wrongly]. "i is guessed, and at least j - 1 others correctly" is a test for the
membership of i: since all guesses are "member", its true positive rate is r_j and its false positive rate h_(j-1), so
that h_(j-1) >= F(r_j). (Of guesses on both sides only r_j / 2 and h_j / 2 are known to obey this, as in the paper:
guesses of members alone say as much as the paper's about half as many samples.) P[N = j] adds 2 j / m of it to r_j and
2 (k - j) / m to h_j. If P[N >= v] = p, the smallest r and h have all of p at N = v, and further down no more than F
demands; p is impossible where they exceed r_0 + h_0 = 2 k / m.

This allows for guesses that are right or wrong together. Of several targets, which are independent given the shadows,
the p-values are combined by Fisher's method instead of auditing them as one, which shows more."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri
from scipy.stats import chi2

from lira.privacy.audit import (
    CONFIDENCE,
    CanaryScores,
    HeldOutCounts,
    Mechanism,
    candidates,
    count_guesses,
    fisher,
    largest_rejected,
    undominated,
)

MAX_MU = 64.0  # beyond it no number of samples shows anything: the false positive rate underflows
MAX_LOG_P = 30.0  # the curve of compose() is exact to about e^-30 of probability
CELLS_PER_DEVIATION, MAX_CELLS = 32, 2**19  # of the grid of compose()
DELTA = 1e-5  # of the epsilon of a Gaussian curve where training has no guarantee, and so no delta

Family = Callable[[np.ndarray, np.ndarray], np.ndarray]  # F of curves: (true positive rate, parameter) -> lowest FPR


def gaussian(tpr: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """The lowest false positive rate at these true positive rates under mu-GDP: to tell N(0, 1) from N(mu, 1)."""
    return ndtr(ndtri(tpr) - mu)


def is_impossible(
    p: ArrayLike, n_correct: ArrayLike, n_guesses: ArrayLike, parameter: ArrayLike, *, n_audited: int, family: Family
) -> np.ndarray:
    """Whether P[at least n_correct of n_guesses guesses of "member" are correct] = p contradicts the curve, bool.

    Algorithm 3 of the paper, see above; where p is impossible, every larger one is. n_guesses <= n_audited / 2;
    n_correct may be fractional, for expected counts; parameter: of the family. The arguments are broadcast."""
    shape = np.broadcast_shapes(*map(np.shape, (p, n_correct, n_guesses, parameter)))
    arrays = (np.broadcast_to(np.asarray(value, np.float64), shape) for value in (p, n_correct, n_guesses, parameter))
    tau, correct, k, x = (array.ravel() for array in arrays)
    impossible, unit = np.zeros(len(tau), dtype=bool), 2 / n_audited
    place = np.flatnonzero(correct >= 1)
    columns = (tau * correct * unit, tau * (k - correct) * unit, correct - 1.0, k, x)
    r, h, j, k, x = (column[place] for column in columns)
    while len(place):
        lowest_h = family(np.minimum(r, 1.0), x)
        r = r + (lowest_h - h) * j / (k - j)
        exceeds = r + lowest_h >= k * unit
        impossible[place[exceeds]] = True
        undecided = ~exceeds & (lowest_h > h) & (j >= 1)  # where F demands no more, nothing is added further down
        h, j = lowest_h, j - 1
        if not undecided.all():
            place = place[undecided]
            r, h, j, k, x = (column[undecided] for column in (r, h, j, k, x))
    return impossible.reshape(shape)


def largest_mu(
    n_correct: ArrayLike,
    n_guesses: ArrayLike,
    *,
    n_audited: int,
    log_factor: float = 0.0,
    significance: float = 1 - CONFIDENCE,
) -> float:
    """The largest mu whose Gaussian curve the guesses reject, 0 without one: training is mu-GDP for no smaller mu.

    n_correct, n_guesses: int, or of each target (T,); n_audited: samples of one target; log_factor: by which the
    p-value of each target is higher, see log_halves_factor(). Independent targets are combined by Fisher's method."""
    correct, guesses = np.broadcast_arrays(np.atleast_1d(n_correct), n_guesses)
    n_targets = len(correct)
    # What all targets together reject lies between what single ones reject whose p-values are just small enough.
    p = np.exp(-chi2.isf(significance, 2 * n_targets) / (2 * n_targets) - log_factor)
    alone = [_largest_mu(p, *pair, n_audited=n_audited) for pair in set(zip(correct, guesses, strict=True))]

    def is_rejected(mu: np.ndarray) -> np.ndarray:
        log_p = log_p_value(correct, guesses, mu[:, None], n_audited=n_audited, family=gaussian)  # (G, T)
        return fisher(log_p + log_factor) < significance

    low, high = min(alone), max(alone)
    return largest_rejected(is_rejected, high, low=low, n_zooms=3) if low < high else low


def _largest_mu(p: float, n_correct: int, n_guesses: int, *, n_audited: int) -> float:
    """The largest mu by whose Gaussian curve the p-value of these guesses is below p."""
    return largest_rejected(
        lambda mu: is_impossible(p, n_correct, n_guesses, mu, n_audited=n_audited, family=gaussian), MAX_MU
    )


def p_value(
    n_correct: ArrayLike, n_guesses: ArrayLike, *, n_audited: int, curve: "Curve", log_factor: float = 0.0
) -> float:
    """The highest probability of as many correct guesses under the curve. The arguments are those of largest_mu()."""
    correct, guesses = np.broadcast_arrays(np.atleast_1d(n_correct), n_guesses)
    log_p = log_p_value(correct, guesses, 0.0, n_audited=n_audited, family=curve.lowest_fpr)
    return float(fisher(log_p + log_factor))


def log_p_value(
    n_correct: ArrayLike, n_guesses: ArrayLike, parameter: ArrayLike, *, n_audited: int, family: Family
) -> np.ndarray:
    """Log of the highest probability of at least n_correct of n_guesses correct guesses, at least -MAX_LOG_P; to 1e-5,
    from above. The arguments are those of is_impossible()."""
    counts = np.broadcast_arrays(*map(np.asarray, (n_correct, n_guesses, parameter)))
    possible, impossible = np.full(counts[0].shape, -MAX_LOG_P), np.zeros(counts[0].shape)
    for _ in range(22):
        middle = (possible + impossible) / 2
        reached = is_impossible(np.exp(middle), *counts, n_audited=n_audited, family=family)
        possible, impossible = np.where(reached, possible, middle), np.where(reached, middle, impossible)
    return impossible


def choose_guesses(
    counts: Mapping[str, HeldOutCounts], *, n_audited: int, significance: float = 1 - CONFIDENCE
) -> tuple[str, int]:
    """(attack, k) that rejects the largest mu for the mean counts of the held-out shadows, for one target.

    counts: by attack, at least one. The targets' scores and membership are not used, so the bound stays valid. Targets
    are expected to be alike: what is best for one of them is best for all."""
    usable = {attack: (held_out.k > 0) & (held_out.k <= n_audited // 2) for attack, held_out in counts.items()}
    choices = [(attack, int(k)) for attack, which in usable.items() for k in counts[attack].k[which]]
    if not choices:
        return next(iter(counts)), 0
    n_correct = np.concatenate([counts[attack].members[which] for attack, which in usable.items()])
    n_guesses = np.array([k for _, k in choices], dtype=np.float64)
    order = undominated(n_correct, n_guesses)
    counted = n_correct[order], n_guesses[order]

    def is_rejected(mu: np.ndarray) -> np.ndarray:
        return is_impossible(significance, *counted, mu[:, None], n_audited=n_audited, family=gaussian)

    largest = largest_rejected(lambda mu: np.any(is_rejected(mu), axis=1), MAX_MU, n_zooms=4)
    return choices[order[is_rejected(np.array([largest]))[0].argmax()]]


def choose_test(mechanism: Mechanism, *, n_audited: int) -> int:
    """The number k of guesses on canaries whose test of the mechanism's own curve is expected to have the smallest
    p-value if the noise is half of what is claimed. n_audited: canaries of one target."""
    halved = expected_counts(compose(replace(mechanism, sigma=mechanism.sigma / 2)), n_audited)
    usable = halved.k <= n_audited // 2
    counted = halved.members[usable], halved.k[usable]
    log_p = log_p_value(*counted, 0.0, n_audited=n_audited, family=compose(mechanism).lowest_fpr)
    return int(halved.k[usable][log_p.argmin()])


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at delta of the Gaussian mechanism of this mu (Dong, Roth, Su, arXiv 1905.02383, Corollary 2.13)."""

    def log_excess(epsilon: float) -> float:
        log_tpr, log_fpr = log_ndtr(mu / 2 - epsilon / mu), log_ndtr(-mu / 2 - epsilon / mu)
        with np.errstate(divide="ignore"):  # of 0 where the two are equal in float64
            return log_tpr + np.log(-np.expm1(np.minimum(epsilon + log_fpr - log_tpr, 0.0))) - np.log(delta)

    if mu <= 0 or log_excess(0.0) <= 0:
        return 0.0
    return float(brentq(log_excess, 0.0, mu * (mu / 2 + 40)))  # above it, delta is below Phi(-40)


def audit_canaries(scores: CanaryScores, mechanism: Mechanism, *, delta: float) -> tuple[float, float]:
    """(epsilon at delta of the largest Gaussian curve that the canaries of one run refute at 95 %, or 0; p-value of the
    mechanism's own curve). Both numbers of guesses are fixed before a score is read."""
    n = len(scores.score)
    _, k = choose_guesses({"": expected_counts(compose(mechanism), n)}, n_audited=n)
    bound, test = (
        count_guesses(scores.score, scores.member, n_high=n_high, n_low=0)
        for n_high in (k, choose_test(mechanism, n_audited=n))
    )
    epsilon = gaussian_epsilon(largest_mu(*bound, n_audited=n), delta)
    return epsilon, p_value(*test, n_audited=n, curve=compose(mechanism))


@dataclass(frozen=True)
class Curve:
    """How well membership can be told from the best score: tpr and fpr, float64 (G,), from (0, 0) to (1, 1), of the
    guess "member" above each threshold, those in between by interpolation; fpr is convex in tpr."""

    tpr: np.ndarray
    fpr: np.ndarray

    def lowest_fpr(self, tpr: np.ndarray, parameter: ArrayLike = 0.0) -> np.ndarray:
        """F, see above; a family of one curve: the parameter is not used."""
        return np.interp(tpr, self.tpr, self.fpr)


@functools.lru_cache(maxsize=8)
def compose(mechanism: Mechanism) -> Curve:
    """The curve of a mechanism for the addition of one sample, by FFT of its log-likelihood ratio of membership.

    One step releases N(0, sigma^2) without the sample and (1 - q) N(0, sigma^2) + q N(1, sigma^2) with it. Each cell
    of the grid keeps both of its probabilities, placed at its two ends (Doroshenko et al., arXiv 2207.04380): a
    likelihood ratio that is spread like this can only be more revealing, so that tests of the curve stay valid."""
    step = _deviation(mechanism) / CELLS_PER_DEVIATION
    low, high = _range(mechanism, step)
    step = max(step, (high - low) / MAX_CELLS)
    loss, outside, inside = _one_step(mechanism, step)
    n, first, n_low = 2 ** int(np.ceil(np.log2((high - low) / step + 2))), round(loss[0] / step), int(low // step)
    total = (n_low + np.arange(n)) * step
    composed = []
    for mass in (outside, inside):  # what lies beyond the range is wrapped around: a probability of e^-35
        wrapped = np.bincount(np.arange(len(mass)) % n, mass, n)
        mass = np.fft.irfft(np.fft.rfft(wrapped) ** mechanism.steps, n)
        composed.append(np.roll(mass, mechanism.steps * first - n_low).clip(min=0.0))
    outside, inside = composed
    outside = np.where(total > 0, inside * np.exp(-np.maximum(total, 0)), outside)  # exact where it is small
    tpr, fpr = (np.append(0.0, np.cumsum(mass[::-1])) for mass in (inside, outside))
    return Curve(tpr / tpr[-1], fpr / fpr[-1])


def expected_counts(curve: Curve, n_audited: int) -> HeldOutCounts:
    """The counts to expect of so many canaries under a curve, half of them members, for k from 8 to n_audited / 2."""
    k = candidates(n_audited, first=8)
    half = n_audited / 2
    n_guessed = half * (curve.tpr + curve.fpr)
    members = half * np.interp(k, n_guessed, curve.tpr)
    nonmembers = half * (1 - np.interp(n_audited - k, n_guessed, curve.fpr))
    return HeldOutCounts(k, members, nonmembers)


def _log_ratio(x: np.ndarray, mechanism: Mechanism) -> np.ndarray:
    """The log-likelihood ratio of one step that releases x, in units of the clipping norm."""
    sigma, q = mechanism.sigma, mechanism.sample_rate
    with np.errstate(divide="ignore"):  # log 0 where every step has every sample
        return np.logaddexp(np.log1p(-q), np.log(q) + (2 * x - 1) / (2 * sigma**2))


def _ends(mechanism: Mechanism) -> np.ndarray:
    """The least and the largest log-likelihood ratio of one step but for a probability of e^-50."""
    return _log_ratio(np.array([-10, 10]) * mechanism.sigma + [0, 1], mechanism)


def _deviation(mechanism: Mechanism) -> float:
    """The standard deviation of the log-likelihood ratio of one step: without the sample or with it, the smaller."""
    x = np.linspace(-10 * mechanism.sigma, 1 + 10 * mechanism.sigma, 20_001)
    ratio, log_outside = _log_ratio(x, mechanism), -((x / mechanism.sigma) ** 2) / 2
    weights = [np.exp(log - log.max()) for log in (log_outside, log_outside + ratio)]
    return float(min(np.sqrt(np.cov(ratio, aweights=weight, ddof=0)) for weight in weights))


def _one_step(mechanism: Mechanism, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log-likelihood ratios, multiples of step; their probabilities without the sample; and with it), float64 (G,)."""
    sigma, q = mechanism.sigma, mechanism.sample_rate
    low, high = _ends(mechanism) / step
    ends = np.arange(np.floor(low), np.ceil(high) + 1) * step
    with np.errstate(divide="ignore"):
        log_absent = np.log1p(-q)
    with np.errstate(divide="ignore", over="ignore"):
        present = ends + np.log1p(-np.minimum(np.exp(log_absent - ends), 1.0))  # log(e^ends - (1 - q))
    edges = sigma**2 * (present - np.log(q)) + 0.5
    edges[0], edges[-1] = -np.inf, np.inf
    outside = _between(edges / sigma)
    inside = (1 - q) * outside + q * _between((edges - 1) / sigma)
    scale = np.exp(np.clip(ends[:-1], -700, 700))
    # The probabilities of a cell, at its upper end (the rest at its lower), so that their ratio there is e^end.
    upper_outside = np.clip((inside / scale - outside) / np.expm1(step), 0.0, outside)
    upper_inside = np.clip((inside - outside * scale) / -np.expm1(-step), 0.0, inside)
    outside, inside = (
        np.append(mass - upper, 0.0) + np.append(0.0, upper)
        for mass, upper in ((outside, upper_outside), (inside, upper_inside))
    )
    return ends, outside, inside


def _between(edges: np.ndarray) -> np.ndarray:
    """The probabilities of a standard normal variable between neighbouring edges, exact in both tails."""
    return np.where(edges[:-1] > 0, -np.diff(ndtr(-edges)), np.diff(ndtr(edges)))


def _range(mechanism: Mechanism, step: float) -> tuple[float, float]:
    """Where the log-likelihood ratio of all steps lies, but for a probability of e^-35 (Chernoff's bound)."""
    low, high = _ends(mechanism)
    loss, outside, inside = _one_step(mechanism, max(step, (high - low) / MAX_CELLS))
    ends = []
    for mass, sign in ((outside, -1.0), (inside, 1.0)):
        values, log_mass = sign * loss[mass > 0], np.log(mass[mass > 0])
        scales = np.geomspace(0.5, 64, 15) / np.sqrt(
            np.cov(values, aweights=np.exp(log_mass), ddof=0) * mechanism.steps
        )
        ends.append(sign * min((mechanism.steps * logsumexp(s * values + log_mass) + 35) / s for s in scales))
    return ends[0], ends[1]
