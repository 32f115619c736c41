"""The prior of lira-bayes: what the samples have in common, a mixture that is learned from all of them.

Letters: K components, J knots of the level. Arrays of components and samples are (K, n), samples last, and few samples
at a time, so that what is at work stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, polygamma

from .formulas import VARIANCE_FLOOR

# (samples, steps): expectation-maximisation goes on with ever more samples, evenly spread, enough for the K * (4 + J)
# numbers of the prior.
ROUNDS = ((1250, 20), (5000, 8))
RELAXATION = 1.8  # steps this much longer than EM's own, which converges below 2 (Peters and Walker 1978)
SAMPLES_A_COMPONENT, MOST_A_SIDE = 100, 5  # K is at most 5 variances times 5 gaps
SAMPLES_A_KNOT, MOST_KNOTS = 150, 16
MOST_FREEDOM = 1000.0  # beyond it a component's variances count as equal
BLOCK = 512  # samples at a time: about ten (K, BLOCK) arrays of float64 fit the second-level cache
TINY = 1e-300  # added where a logarithm or a quotient must stay finite


@dataclass(frozen=True)
class Evidence:
    """What the shadows say about n samples. level, gap: float64 (n,). variance: float64 (2, n), non-members first,
    with its floor. count: float64 (2, n), or (2, 1) where it is the same for all samples, as with complementary
    pairs: what depends on it alone is then computed once. 0 degrees of freedom where count is 1. scale: float64 (n,),
    the unit of the prior's gaps, see gap_trend()."""

    level: np.ndarray
    gap: np.ndarray
    variance: np.ndarray
    count: np.ndarray
    scale: np.ndarray

    def take(self, index):
        count = self.count if self.count.shape[1] == 1 else self.count[:, index]
        return Evidence(self.level[index], self.gap[index], self.variance[:, index], count, self.scale[index])

    def spread_out(self, most):
        """At most so many samples, evenly spread."""
        total = len(self.level)
        return self if total <= most else self.take(np.linspace(0, total - 1, most).astype(int))

    def blocks(self):
        """(slice, evidence of these samples), BLOCK samples at a time."""
        for start in range(0, len(self.level), BLOCK):
            some = slice(start, start + BLOCK)
            yield some, self.take(some)

    @property
    def freedom(self):
        return self.count - 1.0

    @property
    def mean(self):
        """float64 (2, n): non-members, members."""
        return self.level - 0.5 * self.gap, self.level + 0.5 * self.gap


@dataclass(frozen=True)
class Prior:
    """knots: (J,) levels. weight: (J, K), rows sum to 1. gap, spread: (K,), mean and variance of the gap in units of
    the scale. variance: (2, K). freedom: (2,), how alike the variances within a component are."""

    knots: np.ndarray
    weight: np.ndarray
    gap: np.ndarray
    spread: np.ndarray
    variance: np.ndarray
    freedom: np.ndarray


def gap_trend(level, gap):
    """How large gaps are at a sample's level, float64 (n,): least squares of hat functions, at least a tenth of the
    gaps' root mean square.

    Where a model is sure of a sample it has little to gain from having seen it. The components need not spell that
    out: their gaps are multiples of the trend."""
    near = nearness(level, _knots(level))
    products = near @ near.T
    ridge = 1e-6 * np.trace(products) / len(near)
    trend = np.linalg.solve(products + ridge * np.eye(len(near)), near @ gap) @ near
    return np.maximum(trend, 0.1 * np.sqrt(np.mean(gap**2)) + 1e-6)


def learned_prior(evidence):
    """Expectation-maximisation from a start at the quantiles; deterministic."""
    prior = _starting_prior(evidence.spread_out(ROUNDS[-1][0]))
    for samples, steps in ROUNDS:
        some = evidence.spread_out(samples)
        parts = [(part, nearness(part.level, prior.knots)) for _, part in some.blocks()]
        for step in range(steps):
            better = _improved(prior, parts, _shares(prior, parts))
            # The last step is EM's own, so that what it promises of the parameters holds.
            prior = better if step == steps - 1 else _relaxed(prior, better)
    return replace(prior, freedom=_freedom(prior, some, np.concatenate(_shares(prior, parts), axis=1)))


def _shares(prior, parts):
    return [posterior(prior, part, near)[0] for part, near in parts]


def _relaxed(prior, better):
    """Further in the direction of the step; what must stay positive, by its logarithm."""

    def further(name):
        return getattr(prior, name) * (getattr(better, name) / getattr(prior, name)) ** RELAXATION

    weight = further("weight")
    return replace(
        better,
        weight=weight / weight.sum(axis=1, keepdims=True),
        gap=prior.gap + RELAXATION * (better.gap - prior.gap),
        spread=further("spread"),
        variance=further("variance"),
    )


def _starting_prior(evidence):
    """Components at the quantiles of the variance, and of the gap among samples of about that variance, drawn in by
    what noise makes of the gaps."""
    side = int(np.clip(np.sqrt(len(evidence.level) / SAMPLES_A_COMPONENT), 1, MOST_A_SIDE))
    middles = (np.arange(side) + 0.5) / side
    freedom = evidence.freedom.sum(axis=0)
    squares = (evidence.freedom * evidence.variance).sum(axis=0)
    # Where no side has two values, a quarter of the gaps' spread stands in for the variance.
    pooled = np.where(freedom > 0, squares / np.maximum(freedom, 1.0), np.var(evidence.gap) / 4 + VARIANCE_FLOOR)
    gap, noise = evidence.gap / evidence.scale, (evidence.variance / evidence.count).sum(axis=0) / evidence.scale**2
    trust = 1.0 / (noise + np.var(gap))
    middle, spread = np.average(gap, weights=trust), np.average(gap**2, weights=trust)
    spread -= middle**2
    real = np.clip(1.0 - np.average(noise, weights=trust) / (spread + TINY), 0.02, 1.0)
    order = np.argsort(pooled, kind="stable")
    gaps = [np.quantile(gap[some], middles) for some in np.array_split(order, side)]
    knots = _knots(evidence.level)
    return Prior(
        knots=knots,
        weight=np.full((len(knots), side * side), 1.0 / side**2),
        gap=middle + np.sqrt(real) * (np.concatenate(gaps) - middle),
        spread=np.full(side * side, real * max(spread, 0.0) / 4 + VARIANCE_FLOOR),
        variance=np.tile(np.repeat(np.quantile(pooled, middles), side), (2, 1)),
        freedom=np.full(2, MOST_FREEDOM),
    )


def _knots(level):
    """Quantiles of the levels, float64 (J,)."""
    most = int(np.clip(len(level) // SAMPLES_A_KNOT, 1, MOST_KNOTS))
    return np.unique(np.quantile(level, np.linspace(0.03, 0.97, most)))


def nearness(level, knots):
    """Linear interpolation between the knots as weights, float64 (J, n); columns sum to 1."""
    samples, last = np.arange(len(level)), len(knots) - 1
    left = np.clip(np.searchsorted(knots, level) - 1, 0, max(last - 1, 0))
    right = np.minimum(left + 1, last)
    share = np.clip((level - knots[left]) / np.where(right > left, knots[right] - knots[left], 1.0), 0.0, 1.0)
    near = np.zeros((len(knots), len(level)))
    near[left, samples] = 1.0 - share
    near[right, samples] += share
    return near


def posterior(prior, evidence, near):
    """(share, noise): the posterior probability of each component, float64 (K, n), and for both sides the posterior
    variance of the side's mean within it, float64 (2, K, n)."""
    share, noise = 0.0, []
    for side in (0, 1):
        freedom, held = evidence.freedom[side], prior.freedom[side]
        scale = (held * prior.variance[side])[:, None]
        ratio = freedom * evidence.variance[side] * (1.0 / scale)
        ratio += 1.0
        noise.append(ratio * (scale / ((held + freedom) * evidence.count[side])))
        np.log(ratio, out=ratio)
        ratio *= held + freedom
        ratio += freedom * np.log(prior.variance[side])[:, None]
        share = share + ratio
    reach = noise[0] + noise[1]
    reach += prior.spread[:, None] * evidence.scale**2
    away = evidence.gap - prior.gap[:, None] * evidence.scale
    away *= away
    away /= reach
    share += away
    share -= share.min(axis=0)
    share *= -0.5
    np.exp(share, out=share)
    # The factors outside the exponent stay within some powers of ten, so that no sample loses all its components.
    share *= prior.weight.T @ near
    share /= np.sqrt(reach, out=reach)
    share *= 1.0 / share.sum(axis=0)
    return share, noise


def _improved(prior, parts, shares):
    """One maximisation step. The variances of a component count as equal here (its freedom is the largest).

    parts: list of (evidence, near); shares: list of (K, n)."""
    components = len(prior.gap)
    weight = np.full((len(prior.knots), components), 0.5 / components)
    squares, freedom = np.zeros((2, 2, components))
    for (part, near), share in zip(parts, shares, strict=True):
        weight += near @ share.T
        squares += (part.freedom * part.variance) @ share.T
        freedom += np.broadcast_to(part.freedom, part.variance.shape) @ share.T
    variance = (squares + 0.5 * prior.variance) / (freedom + 0.5)
    gap, spread = _improved_gaps(prior, parts, shares, variance)
    weight /= weight.sum(axis=1, keepdims=True)
    return replace(prior, weight=weight, gap=gap, spread=spread, variance=variance)


def _improved_gaps(prior, parts, shares, variance):
    """(gap, spread), float64 (K,), once the variances (2, K) are known."""
    own = prior.spread[:, None]
    total = weights = squares = members = 0.0
    steps = []
    for (part, _), share in zip(parts, shares, strict=True):
        unit, noise = part.scale**2, variance[0][:, None] / part.count[0] + variance[1][:, None] / part.count[1]
        kept = own * unit
        kept += noise
        np.divide(own, kept, out=kept)  # times the unit: how much of a sample's distance from the centre is its own
        weighed = share * kept
        total, weights = total + weighed @ (part.gap * part.scale), weights + weighed @ unit
        members = members + share.sum(axis=1)
        steps.append((part, unit, noise, kept, weighed))
    gap = total / np.maximum(weights, TINY)
    for part, unit, noise, kept, weighed in steps:
        away = part.gap - gap[:, None] * part.scale
        away *= away
        away *= unit
        away *= kept
        away += noise
        squares = squares + np.einsum("kn,kn->k", away, weighed)
    return gap, (squares + 1e-6) / (members + 1e-6) + 1e-8


def _freedom(prior, evidence, share):
    """Degrees of freedom of the variances within components, by the moments of their logarithms (Smyth
    2004)."""
    result = np.full(2, MOST_FREEDOM)
    for side in (0, 1):
        half = 0.5 * np.broadcast_to(evidence.freedom[side], evidence.level.shape)
        some = half > 0
        if not some.any():
            continue
        half = half[some]
        unbiased = np.log(evidence.variance[side][some]) - digamma(half) + np.log(half)
        distance = (share[:, some] * (unbiased - np.log(prior.variance[side])[:, None]) ** 2).sum(axis=0)
        excess = float(np.mean(distance - polygamma(1, half)))
        result[side] = _from_trigamma(excess) * 2.0
    return np.clip(result, 2.0, MOST_FREEDOM)


def _from_trigamma(value):
    """x with trigamma(x) = value, by Newton's method on 1 / trigamma (Smyth 2004, appendix); inf for value
    <= 0."""
    if value <= 2.0 / MOST_FREEDOM:
        return np.inf
    x = 0.5 + 1.0 / value
    for _ in range(20):
        trigamma = polygamma(1, x)
        x += trigamma * (1.0 - trigamma / value) / polygamma(2, x)
    return float(x)
