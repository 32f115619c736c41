"""lira-bayes: the likelihood ratio with an empirical-Bayes prior, for few shadows and for many.

With ten members and ten non-members a sample, its own means and variances are the weak part of LiRA, the
gap between the means most of all. Samples resemble each other, so the prior is learned from all of them: a
mixture of components, each with a gap m_in - m_out, a spread of that gap, a variance of members and one of
non-members; how common a component is depends on the sample's level (m_in + m_out) / 2, and gaps are multiples
of their trend in the level. A mixture rather than trends alone, because gap and variance rise together (samples
that a model memorises are those that vary most), in a way that differs between regimes, and because its
posterior keeps several explanations of a sample open where few shadows cannot decide. Within a component
variances follow a scaled inverse chi-square around its own, as in Smyth (2004), so that with many shadows a
sample's own variance wins; the level has a flat prior. Nothing is set by hand: sizes follow the number of samples.

The score is the log ratio of the two posterior predictive densities, each a mixture of Student's t.
Letters: N samples, A queries, K components, R models scored at once."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from lira.attacks.gaussian import VARIANCE_FLOOR

# (samples, steps): expectation-maximisation goes on with ever more samples, evenly spread, enough for the K * (4 + J)
# numbers of the prior.
ROUNDS = ((1250, 20), (5000, 8))
RELAXATION = 1.8  # steps this much longer than EM's own, which converges below 2 (Peters and Walker 1978)
SAMPLES_A_COMPONENT, MAX_A_SIDE = 100, 5  # K is at most 5 variances times 5 gaps
SAMPLES_A_KNOT, MAX_KNOTS = 150, 16
MAX_FREEDOM = 1000.0  # beyond it a component's variances count as equal
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
    side = int(np.clip(np.sqrt(len(evidence.level) / SAMPLES_A_COMPONENT), 1, MAX_A_SIDE))
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
        freedom=np.full(2, MAX_FREEDOM),
    )


def _knots(level):
    """Quantiles of the levels, float64 (J,)."""
    most = int(np.clip(len(level) // SAMPLES_A_KNOT, 1, MAX_KNOTS))
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
    result = np.full(2, MAX_FREEDOM)
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
    return np.clip(result, 2.0, MAX_FREEDOM)


def _from_trigamma(value):
    """x with trigamma(x) = value, by Newton's method on 1 / trigamma (Smyth 2004, appendix); inf for value
    <= 0."""
    if value <= 2.0 / MAX_FREEDOM:
        return np.inf
    x = 0.5 + 1.0 / value
    for _ in range(20):
        trigamma = polygamma(1, x)
        x += trigamma * (1.0 - trigamma / value) / polygamma(2, x)
    return float(x)


def fit_lira_bayes(statistics, options):
    """See the head of this file. Returns score(phi, log_p), phi float64 (R, N, A)."""
    known = (statistics.count > 0).all(axis=0)
    queries = range(statistics.mean_in.shape[1]) if known.any() else ()
    fitted = [(evidence, learned_prior(evidence)) for evidence in (_evidence(statistics, known, a) for a in queries)]

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
    level, gap = 0.5 * (mean_in + mean_out), mean_in - mean_out
    return Evidence(level, gap, variance, count, gap_trend(level, gap))


def _log_ratio(phi, evidence, prior):
    """Log ratio of the predictive densities, float64 (R, n) or (n,) like phi."""
    result = np.empty_like(phi)
    for some, part in evidence.blocks():
        inside, outside = _predictives(prior, part)
        for own, scored in zip(np.atleast_2d(phi[..., some]), np.atleast_2d(result[..., some]), strict=True):
            scored[:] = _log_density(own, *inside) - _log_density(own, *outside)
    return result


def _predictives(prior, evidence):
    """(members, non-members), each (log weight, mean, scale, power), (K, n) all but the power (n,).

    A side's mean is known from its own shadows, and from the other side's together with the prior of the
    gap."""
    share, noise = posterior(prior, evidence, nearness(evidence.level, prior.knots))
    share += TINY
    result = []
    for side, sign in ((1, 1.0), (0, -1.0)):
        guess = evidence.mean[1 - side] + sign * prior.gap[:, None] * evidence.scale
        doubt = noise[1 - side] + prior.spread[:, None] * evidence.scale**2
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
