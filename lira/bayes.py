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
Letters: N samples, A queries, K components, J knots of the level, R models scored at once."""

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
BLOCK = 8192  # samples scored at a time: (BLOCK, K) arrays stay in the cache and memory bounded


@dataclass(frozen=True)
class _Evidence:
    """What the shadows say about n samples. level, gap: float64 (n,). variance, count: float64 (2, n),
    non-members first; the variance with its floor, 0 degrees of freedom where count is 1."""

    level: np.ndarray
    gap: np.ndarray
    variance: np.ndarray
    count: np.ndarray

    def take(self, index):
        return _Evidence(self.level[index], self.gap[index], self.variance[:, index], self.count[:, index])

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
    return _Evidence(
        0.5 * (mean_in + mean_out),
        mean_in - mean_out,
        variance,
        statistics.count[:, known].astype(np.float64),
    )


def _learned_prior(evidence):
    """Expectation-maximisation from a start at the quantiles; deterministic."""
    total = len(evidence.level)
    if total > MOST_SAMPLES:
        evidence = evidence.take(np.linspace(0, total - 1, MOST_SAMPLES).astype(int))
    prior = _starting_prior(evidence)
    near = _nearness(evidence.level, prior.knots)
    for _ in range(ITERATIONS):
        prior = _improved(prior, evidence, near, _responsibility(prior, evidence, near)[0])
    return replace(prior, freedom=_freedom(prior, evidence, _responsibility(prior, evidence, near)[0]))


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
    """Linear interpolation between the knots as weights, float64 (n, J); rows sum to 1."""
    return np.stack([np.interp(level, knots, row) for row in np.eye(len(knots))], axis=1)


def _responsibility(prior, evidence, near):
    """(posterior probability of each component, posterior variances (2, n, K)); the former float64 (n, K)."""
    log_weight = np.log(near @ prior.weight + 1e-300)
    variances = []
    for side in (0, 1):
        freedom = evidence.freedom[side][:, None]
        squares = freedom * evidence.variance[side][:, None]
        held, scale = prior.freedom[side], prior.freedom[side] * prior.variance[side]
        variances.append((scale + squares) / (held + freedom))
        log_weight -= 0.5 * freedom * np.log(prior.variance[side])
        log_weight -= 0.5 * (held + freedom) * np.log(1.0 + squares / scale)
    noise = sum(variance / count[:, None] for variance, count in zip(variances, evidence.count, strict=True))
    reach = noise + prior.spread
    log_weight -= 0.5 * (np.log(reach) + (evidence.gap[:, None] - prior.gap) ** 2 / reach)
    log_weight -= log_weight.max(axis=1, keepdims=True)
    share = np.exp(log_weight)
    return share / share.sum(axis=1, keepdims=True), variances


def _improved(prior, evidence, near, share):
    """One maximisation step. The variances of a component count as equal here (its freedom is the
    largest)."""
    components = len(prior.gap)
    weight = near.T @ share + 0.5 / components
    variance = np.empty_like(prior.variance)
    for side in (0, 1):
        freedom, own = evidence.freedom[side], prior.variance[side]
        squares = share.T @ (freedom * evidence.variance[side])
        variance[side] = (squares + 0.5 * own) / (share.T @ freedom + 0.5)
    noise = (1.0 / evidence.count[0])[:, None] * variance[0] + (1.0 / evidence.count[1])[:, None] * variance[1]
    precision = share / (noise + prior.spread)
    gap = (precision * evidence.gap[:, None]).sum(axis=0) / np.maximum(precision.sum(axis=0), 1e-300)
    kept = prior.spread / (noise + prior.spread)  # how much of a sample's distance from the centre is its own
    squares = (kept * (evidence.gap[:, None] - gap)) ** 2 + kept * noise
    spread = ((share * squares).sum(axis=0) + 1e-6) / (share.sum(axis=0) + 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    return replace(prior, weight=weight, gap=gap, spread=spread + 1e-8, variance=variance)


def _freedom(prior, evidence, share):
    """Degrees of freedom of the variances within components, by the moments of their logarithms (Smyth
    2004)."""
    result = np.full(2, MOST_FREEDOM)
    for side in (0, 1):
        half = 0.5 * evidence.freedom[side]
        some = half > 0
        if not some.any():
            continue
        half = half[some]
        unbiased = np.log(evidence.variance[side][some]) - digamma(half) + np.log(half)
        distance = (share[some] * (unbiased[:, None] - np.log(prior.variance[side])) ** 2).sum(axis=1)
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
    for start in range(0, phi.shape[-1], BLOCK):
        some = slice(start, start + BLOCK)
        part = evidence.take(some)
        share, variances = _responsibility(prior, part, _nearness(part.level, prior.knots))
        inside, outside = _predictives(prior, part, np.log(share + 1e-300), variances)
        for own, scored in zip(np.atleast_2d(phi[..., some]), np.atleast_2d(result[..., some]), strict=True):
            scored[:] = _log_density(own, *inside) - _log_density(own, *outside)
    return result


def _predictives(prior, evidence, log_share, variances):
    """(members, non-members), each (log weight, mean, scale, power), (n, K) all but the power (n, 1).

    A side's mean is known from its own shadows, and from the other side's together with the prior of the
    gap."""
    noise = [variance / count[:, None] for variance, count in zip(variances, evidence.count, strict=True)]
    mean_out, mean_in = (mean[:, None] for mean in evidence.mean)
    other_in, other_out = (
        (mean_out + prior.gap, noise[0] + prior.spread),
        (mean_in - prior.gap, noise[1] + prior.spread),
    )
    result = []
    for side, own, (guess, doubt) in ((1, mean_in, other_in), (0, mean_out, other_out)):
        trust = doubt / (noise[side] + doubt)
        power = 0.5 * (prior.freedom[side] + evidence.freedom[side] + 1.0)[:, None]
        spread = variances[side] + trust * noise[side]
        freedom = 2.0 * power - 1.0
        log_weight = log_share - 0.5 * np.log(spread * freedom) + gammaln(power) - gammaln(power - 0.5)
        result.append((log_weight, guess + trust * (own - guess), 1.0 / (spread * freedom), power))
    return result


def _log_density(phi, log_weight, mean, scale, power):
    """Log of the mixture of Student's t at phi, float64 (n,), up to a constant shared by both sides."""
    logs = log_weight - power * np.log(1.0 + scale * (phi[:, None] - mean) ** 2)
    highest = logs.max(axis=1)
    return highest + np.log(np.exp(logs - highest[:, None]).sum(axis=1))
