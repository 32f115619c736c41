"""lira-bayes: the likelihood ratio with an empirical-Bayes prior, for few shadows and for many.

With ten members and ten non-members a sample, its own means and variances are the weak part of LiRA, the
gap between the means most of all. Samples resemble each other, so the prior is learned from all of them: a
mixture of components, each with a gap m_in - m_out, a spread of that gap, a variance of members and one of
non-members; how common a component is depends on the sample's level (m_in + m_out) / 2. A mixture rather
than trends, because gap and variance rise together (samples that a model memorises are those that vary
most), in a way that differs between regimes, and because its posterior keeps several explanations of a
sample open where few shadows cannot decide. Within a component variances follow a scaled inverse chi-square
around its own, as in Smyth (2004), so that with many shadows a sample's own variance wins; the level has a
flat prior. Nothing is set by hand: sizes follow the number of samples.

The score is the log ratio of the two posterior predictive densities, each a mixture of Student's t.
Letters: N samples, A queries, K components, J knots of the level, R models scored at once. Arrays of components
and samples are (K, n), samples last, and few samples at a time, so that what is at work stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from .formulas import VARIANCE_FLOOR

# Evenly spread samples that the prior is learned from: enough for its K * (4 + J) numbers.
MOST_SAMPLES = 2500
SAMPLES_A_COMPONENT, MOST_A_SIDE = 100, 5  # K is at most 5 variances times 5 gaps
SAMPLES_A_KNOT, MOST_KNOTS = 250, 8
ITERATIONS = 25
MOST_FREEDOM = 1000.0  # beyond it a component's variances count as equal
BLOCK = 512  # samples at a time: about ten (K, BLOCK) arrays of float64 fit the second-level cache
TINY = 1e-300  # added to a share, so that its logarithm is finite


@dataclass(frozen=True)
class _Evidence:
    """What the shadows say about n samples. level, gap: float64 (n,). variance: float64 (2, n), non-members first,
    with its floor. count: float64 (2, n), or (2, 1) where it is the same for all samples, as with complementary
    pairs: what depends on it alone is then computed once. 0 degrees of freedom where count is 1."""

    level: np.ndarray
    gap: np.ndarray
    variance: np.ndarray
    count: np.ndarray

    def take(self, index):
        count = self.count if self.count.shape[1] == 1 else self.count[:, index]
        return _Evidence(self.level[index], self.gap[index], self.variance[:, index], count)

    @property
    def freedom(self):
        return self.count - 1.0

    @property
    def mean(self):
        """float64 (2, n): non-members, members."""
        return self.level - 0.5 * self.gap, self.level + 0.5 * self.gap


@dataclass(frozen=True)
class _Prior:
    """knots: (J,) levels. weight: (J, K), rows sum to 1. gap, spread: (K,), mean and variance of the gap.
    variance: (2, K). freedom: (2,), how alike the variances within a component are."""

    knots: np.ndarray
    weight: np.ndarray
    gap: np.ndarray
    spread: np.ndarray
    variance: np.ndarray
    freedom: np.ndarray


def fit_lira_bayes(statistics, options):
    """See the head of this file. Returns score(phi, log_p), phi float64 (R, N, A)."""
    known = (statistics.count > 0).all(axis=0)
    queries = [_evidence(statistics, known, query) for query in range(statistics.mean_in.shape[1])]
    fitted = [(evidence, _learned_prior(evidence)) for evidence in queries] if known.any() else []

    def score(phi, log_p):
        result = np.full(phi.shape, np.nan)
        for query, (evidence, prior) in enumerate(fitted):
            result[..., known, query] = _log_ratio(phi[..., known, query], evidence, prior)
        return result

    return score


def _evidence(statistics, known, query):
    mean_in, mean_out = statistics.mean_in[known, query], statistics.mean_out[known, query]
    variance = np.stack([statistics.var_out[known, query], statistics.var_in[known, query]]) + VARIANCE_FLOOR
    count = statistics.count[:, known].astype(np.float64)
    count = count[:, :1] if np.all(count == count[:, :1]) else count
    return _Evidence(0.5 * (mean_in + mean_out), mean_in - mean_out, variance, count)


def _learned_prior(evidence):
    """Expectation-maximisation from a start at the quantiles; deterministic."""
    total = len(evidence.level)
    if total > MOST_SAMPLES:
        evidence = evidence.take(np.linspace(0, total - 1, MOST_SAMPLES).astype(int))
    prior = _starting_prior(evidence)
    parts = [(part, _nearness(part.level, prior.knots)) for _, part in _blocks(evidence)]

    def shares():
        return [_posterior(prior, part, near)[0] for part, near in parts]

    for _ in range(ITERATIONS):
        prior = _improved(prior, parts, shares())
    return replace(prior, freedom=_freedom(prior, evidence, np.concatenate(shares(), axis=1)))


def _blocks(evidence):
    """(slice, evidence of these samples), BLOCK samples at a time."""
    for start in range(0, len(evidence.level), BLOCK):
        some = slice(start, start + BLOCK)
        yield some, evidence.take(some)


def _starting_prior(evidence):
    """Components at the quantiles of the variance, and of the gap among samples of about that variance."""
    total = len(evidence.level)
    side = int(np.clip(np.sqrt(total / SAMPLES_A_COMPONENT), 1, MOST_A_SIDE))
    middles = (np.arange(side) + 0.5) / side
    spread = np.var(evidence.gap) / 4 + VARIANCE_FLOOR
    freedom = evidence.freedom.sum(axis=0)
    squares = (evidence.freedom * evidence.variance).sum(axis=0)
    # Where no side has two values, a quarter of the gaps' spread stands in for the variance.
    pooled = np.where(freedom > 0, squares / np.maximum(freedom, 1.0), spread)
    centre = np.quantile(pooled, middles)
    order = np.argsort(pooled, kind="stable")
    gaps = [np.quantile(evidence.gap[some], middles) for some in np.array_split(order, side)]
    knots = np.quantile(evidence.level, np.linspace(0.03, 0.97, int(np.clip(total // SAMPLES_A_KNOT, 1, MOST_KNOTS))))
    return _Prior(
        knots=np.unique(knots),
        weight=np.full((len(np.unique(knots)), side * side), 1.0 / side**2),
        gap=np.concatenate(gaps),
        spread=np.full(side * side, spread),
        variance=np.tile(np.repeat(centre, side), (2, 1)),
        freedom=np.full(2, MOST_FREEDOM),
    )


def _nearness(level, knots):
    """Linear interpolation between the knots as weights, float64 (J, n); columns sum to 1."""
    return np.stack([np.interp(level, knots, row) for row in np.eye(len(knots))])


def _posterior(prior, evidence, near):
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
    reach += prior.spread[:, None]
    away = evidence.gap - prior.gap[:, None]
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
    total = weights = squares = 0.0
    steps = []
    for (part, _), share in zip(parts, shares, strict=True):
        noise = variance[0][:, None] / part.count[0] + variance[1][:, None] / part.count[1]
        kept = own / (noise + own)  # how much of a sample's distance from the centre is its own
        weighed = share * kept
        total, weights = total + weighed @ part.gap, weights + weighed.sum(axis=1)
        steps.append((part.gap, noise, kept, weighed))
    gap = total / np.maximum(weights, TINY)
    for gaps, noise, kept, weighed in steps:
        away = gaps - gap[:, None]
        away *= away
        away *= kept
        away += noise
        squares = squares + np.einsum("kn,kn->k", away, weighed)
    members = sum(share.sum(axis=1) for share in shares)
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


def _log_ratio(phi, evidence, prior):
    """Log ratio of the predictive densities, float64 (R, n) or (n,) like phi."""
    result = np.empty_like(phi)
    for some, part in _blocks(evidence):
        inside, outside = _predictives(prior, part)
        for own, scored in zip(np.atleast_2d(phi[..., some]), np.atleast_2d(result[..., some]), strict=True):
            scored[:] = _log_density(own, *inside) - _log_density(own, *outside)
    return result


def _predictives(prior, evidence):
    """(members, non-members), each (log weight, mean, scale, power), (K, n) all but the power (n,).

    A side's mean is known from its own shadows, and from the other side's together with the prior of the
    gap."""
    share, noise = _posterior(prior, evidence, _nearness(evidence.level, prior.knots))
    share += TINY
    result = []
    for side, sign in ((1, 1.0), (0, -1.0)):
        guess = evidence.mean[1 - side] + sign * prior.gap[:, None]
        doubt = noise[1 - side] + prior.spread[:, None]
        doubt /= noise[side] + doubt  # the trust in the own mean
        mean = evidence.mean[side] - guess
        mean *= doubt
        mean += guess
        doubt += evidence.count[side]
        doubt *= noise[side]  # the variance of the predictive
        freedom = prior.freedom[side] + evidence.freedom[side]
        doubt *= freedom
        scale = np.divide(1.0, doubt, out=doubt)
        log_weight = np.log(share * np.sqrt(scale))
        log_weight += _log_norm(prior.freedom[side], evidence.freedom[side])
        result.append((log_weight, mean, scale, 0.5 * (freedom + 1.0)))
    return result


def _log_norm(held, freedom):
    """Log of gamma((f + 1) / 2) / gamma(f / 2), f = held + freedom: float64 (n,). freedom: whole numbers, so that a
    table of the few there are serves all samples."""
    half = 0.5 * (held + np.arange(freedom.max() + 1.0))
    return (gammaln(half + 0.5) - gammaln(half))[freedom.astype(int)]


def _log_density(phi, log_weight, mean, scale, power):
    """Log of the mixture of Student's t at phi, float64 (n,), up to a constant shared by both sides."""
    logs = phi - mean
    logs *= logs
    logs *= scale
    logs += 1.0
    np.log(logs, out=logs)
    logs *= -power
    logs += log_weight
    highest = logs.max(axis=0)
    logs -= highest
    np.exp(logs, out=logs)
    return highest + np.log(logs.sum(axis=0))
