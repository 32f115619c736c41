"""lira-bayes: the likelihood ratio with an empirical-Bayes prior, for few shadows and for many.

With ten members and ten non-members per sample, a sample's own means and variances are the weak part of LiRA, the gap
between the means most of all. Samples resemble each other, so the prior is learned from all of them: a mixture of
components, each with a mean and a variance of the gap m_in - m_out, a variance of members and one of non-members. How
common a component is depends on the sample's midpoint (m_in + m_out) / 2, and gaps are multiples of their trend over
the midpoint. A mixture rather than trends alone, because gap and variance rise together (memorized samples vary most),
in a way that differs between training setups, and because its posterior keeps several components where few
shadows cannot tell them apart. Within a component variances follow a scaled inverse chi-square around the component's,
as in Smyth (2004), so that with many shadows a sample's own variance dominates. The midpoint has a flat prior. The
numbers of components and knots follow from the number of samples.

The score is the log ratio of the two posterior predictive densities, each a mixture of Student's t.
Letters: N samples, n of them at a time, A queries, J knots, K components, R models scored at once. Side 0:
non-members, side 1: members."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from lira.attacks.gaussian import VARIANCE_FLOOR
from lira.attacks.inputs import AttackOptions
from lira.attacks.statistics import Score, Statistics

# (samples, steps) of expectation-maximization, first on fewer samples, then on more, evenly spaced: enough for the
# K * (4 + J) parameters of the prior.
ROUNDS = ((1250, 20), (5000, 8))
RELAXATION = 1.8  # times the plain EM step: over-relaxation, which converges below 2 (Peters and Walker 1978)
SAMPLES_PER_COMPONENT, MAX_QUANTILES = 100, 5  # K is at most 5 variances times 5 gaps
SAMPLES_PER_KNOT, MAX_KNOTS = 150, 16
MAX_DOF = 1000.0  # beyond it a component's variances count as equal
BLOCK = 512  # samples at a time: about ten (K, BLOCK) arrays of float64 fit the second-level cache
TINY = 1e-300  # added where a logarithm or a quotient must stay finite


def fit_lira_bayes(statistics: Statistics, options: AttackOptions) -> Score:
    """Per-sample Gaussians under a prior learned from all samples, see the module docstring."""
    usable = np.all(statistics.count > 0, axis=0)
    queries = range(statistics.mean_in.shape[1]) if usable.any() else ()
    summaries = [_summarize(statistics, usable, query) for query in queries]
    fitted = [(summary, fit_prior(summary)) for summary in summaries]

    def score(phi: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        result = np.full(phi.shape, np.nan)
        for query, (summary, prior) in enumerate(fitted):
            result[..., usable, query] = _log_ratio(phi[..., usable, query], summary, prior)
        return result

    return score


@dataclass(frozen=True)
class SampleSummaries:
    """The shadows' statistics of n samples. midpoint, gap: float64 (n,). variance: float64 (2, n), with its floor.
    count: float64 (2, n), or (2, 1) where it is the same for all samples, as with complementary pairs: what depends on
    it alone is then computed once. gap_scale: float64 (n,), the unit of the prior's gaps, see gap_trend()."""

    midpoint: np.ndarray
    gap: np.ndarray
    variance: np.ndarray
    count: np.ndarray
    gap_scale: np.ndarray

    def take(self, index: np.ndarray | slice) -> "SampleSummaries":
        """The summaries of these samples."""
        count = self.count if self.count.shape[1] == 1 else self.count[:, index]
        return SampleSummaries(
            self.midpoint[index], self.gap[index], self.variance[:, index], count, self.gap_scale[index]
        )

    def subsample(self, max_samples: int) -> "SampleSummaries":
        """At most max_samples of them, evenly spaced."""
        n = len(self.midpoint)
        return self if n <= max_samples else self.take(np.linspace(0, n - 1, max_samples).astype(int))

    def blocks(self) -> Iterator[tuple[slice, "SampleSummaries"]]:
        """(slice, those samples), BLOCK samples at a time."""
        for start in range(0, len(self.midpoint), BLOCK):
            block = slice(start, start + BLOCK)
            yield block, self.take(block)

    @property
    def dof(self) -> np.ndarray:
        """Degrees of freedom of the variances, float64 like count; 0 where a side has one shadow."""
        return self.count - 1.0

    @property
    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """float64 (n,) each: non-members, members."""
        return self.midpoint - 0.5 * self.gap, self.midpoint + 0.5 * self.gap


def _summarize(statistics: Statistics, usable: np.ndarray, query: int) -> SampleSummaries:
    """usable: bool (N,), the samples that have both sides."""
    mean_in, mean_out = statistics.mean_in[usable, query], statistics.mean_out[usable, query]
    variance = np.stack([statistics.var_out[usable, query], statistics.var_in[usable, query]]) + VARIANCE_FLOOR
    count = statistics.count[:, usable].astype(np.float64)
    count = count[:, :1] if np.all(count == count[:, :1]) else count
    midpoint, gap = 0.5 * (mean_in + mean_out), mean_in - mean_out
    return SampleSummaries(midpoint, gap, variance, count, gap_trend(midpoint, gap))


def gap_trend(midpoint: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """How large gaps are at a sample's midpoint, float64 (n,): a least-squares piecewise-linear fit, at least a tenth
    of the gaps' root mean square.

    Training on a sample changes little where the model is sure of it anyway. The components need not express that:
    their gaps are multiples of the trend."""
    hats = hat_functions(midpoint, _knots(midpoint))
    products = hats @ hats.T
    ridge = 1e-6 * np.trace(products) / len(hats)
    trend = np.linalg.solve(products + ridge * np.eye(len(hats)), hats @ gap) @ hats
    return np.maximum(trend, 0.1 * np.sqrt(np.mean(gap**2)) + 1e-6)


def _knots(midpoint: np.ndarray) -> np.ndarray:
    """Quantiles of the midpoints, float64 (J,)."""
    n_knots = int(np.clip(len(midpoint) // SAMPLES_PER_KNOT, 1, MAX_KNOTS))
    return np.unique(np.quantile(midpoint, np.linspace(0.03, 0.97, n_knots)))


def hat_functions(midpoint: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Weights of the knots in linear interpolation, float64 (J, n); columns sum to 1."""
    samples, last = np.arange(len(midpoint)), len(knots) - 1
    left = np.clip(np.searchsorted(knots, midpoint) - 1, 0, max(last - 1, 0))
    right = np.minimum(left + 1, last)
    width = np.where(right > left, knots[right] - knots[left], 1.0)
    right_weight = np.clip((midpoint - knots[left]) / width, 0.0, 1.0)
    hats = np.zeros((len(knots), len(midpoint)))
    hats[left, samples] = 1.0 - right_weight
    hats[right, samples] += right_weight
    return hats


@dataclass(frozen=True)
class Prior:
    """knots: (J,) midpoints. weight: (J, K), rows sum to 1. gap_mean, gap_variance: (K,), in units of the gap_scale
    and of its square. variance: (2, K). dof: (2,), degrees of freedom of the inverse chi-square within components."""

    knots: np.ndarray
    weight: np.ndarray
    gap_mean: np.ndarray
    gap_variance: np.ndarray
    variance: np.ndarray
    dof: np.ndarray


Blocks = Sequence[tuple[SampleSummaries, np.ndarray]]  # of samples, each with its hat functions (J, n)


def fit_prior(summaries: SampleSummaries) -> Prior:
    """Expectation-maximization from a start at the quantiles; deterministic."""
    prior = _initial_prior(summaries.subsample(ROUNDS[-1][0]))
    for max_samples, n_steps in ROUNDS:
        subsample = summaries.subsample(max_samples)
        blocks = [(block, hat_functions(block.midpoint, prior.knots)) for _, block in subsample.blocks()]
        for step in range(n_steps):
            updated = _maximize(prior, blocks, _responsibilities(prior, blocks))
            # The last step is a plain EM step, so that the parameters satisfy its equations.
            prior = updated if step == n_steps - 1 else _extrapolate(prior, updated)
    return replace(prior, dof=_fit_dof(prior, subsample, np.concatenate(_responsibilities(prior, blocks), axis=1)))


def _initial_prior(summaries: SampleSummaries) -> Prior:
    """Components at the quantiles of the variance, and of the gap among samples of about that variance, shrunk by the
    share of the gaps' variance that is noise."""
    n_quantiles = int(np.clip(np.sqrt(len(summaries.midpoint) / SAMPLES_PER_COMPONENT), 1, MAX_QUANTILES))
    n_components = n_quantiles**2
    quantiles = (np.arange(n_quantiles) + 0.5) / n_quantiles
    dof = summaries.dof.sum(axis=0)
    squares = (summaries.dof * summaries.variance).sum(axis=0)
    # Where neither side has two values, a quarter of the gaps' variance stands in for the variance.
    pooled = np.where(dof > 0, squares / np.maximum(dof, 1.0), np.var(summaries.gap) / 4 + VARIANCE_FLOOR)
    gap = summaries.gap / summaries.gap_scale
    noise_variance = (summaries.variance / summaries.count).sum(axis=0) / summaries.gap_scale**2
    precision = 1.0 / (noise_variance + np.var(gap))
    mean, mean_square = np.average(gap, weights=precision), np.average(gap**2, weights=precision)
    variance = mean_square - mean**2
    reliability = np.clip(1.0 - np.average(noise_variance, weights=precision) / (variance + TINY), 0.02, 1.0)
    order = np.argsort(pooled, kind="stable")
    gaps = np.concatenate([np.quantile(gap[group], quantiles) for group in np.array_split(order, n_quantiles)])
    knots = _knots(summaries.midpoint)
    return Prior(
        knots=knots,
        weight=np.full((len(knots), n_components), 1.0 / n_components),
        gap_mean=mean + np.sqrt(reliability) * (gaps - mean),
        gap_variance=np.full(n_components, reliability * max(variance, 0.0) / 4 + VARIANCE_FLOOR),
        variance=np.tile(np.repeat(np.quantile(pooled, quantiles), n_quantiles), (2, 1)),
        dof=np.full(2, MAX_DOF),
    )


def _responsibilities(prior: Prior, blocks: Blocks) -> list[np.ndarray]:
    """The expectation step: posterior probability of each component, float64 (K, n) per block."""
    return [_posterior(prior, block, hats)[0] for block, hats in blocks]


def _posterior(prior: Prior, summaries: SampleSummaries, hats: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(responsibilities, mean_variances): the posterior probability of each component, float64 (K, n), and within it
    the posterior variance of each side's mean, float64 (K, n) each. hats: (J, n)."""
    deviances, mean_variances = [], []  # deviance: -2 log likelihood
    for side in (0, 1):
        dof, total_dof = summaries.dof[side], prior.dof[side] + summaries.dof[side]
        prior_squares = (prior.dof[side] * prior.variance[side])[:, None]
        ratio = dof * summaries.variance[side] * (1.0 / prior_squares)
        one_plus_ratio = np.add(ratio, 1.0, out=ratio)
        mean_variances.append(one_plus_ratio * (prior_squares / (total_dof * summaries.count[side])))
        log_ratio = np.log(one_plus_ratio, out=one_plus_ratio)
        log_power = np.multiply(log_ratio, total_dof, out=log_ratio)
        deviances.append(np.add(log_power, dof * np.log(prior.variance[side])[:, None], out=log_power))
    noise_variance = mean_variances[0] + mean_variances[1]
    gap_variance = np.add(noise_variance, prior.gap_variance[:, None] * summaries.gap_scale**2, out=noise_variance)
    residual = summaries.gap - prior.gap_mean[:, None] * summaries.gap_scale
    squared = np.multiply(residual, residual, out=residual)
    gap_deviance = np.divide(squared, gap_variance, out=squared)
    variance_deviance = np.add(deviances[0], deviances[1], out=deviances[0])
    deviance = np.add(variance_deviance, gap_deviance, out=variance_deviance)
    excess = np.subtract(deviance, deviance.min(axis=0), out=deviance)
    log_likelihood = np.multiply(excess, -0.5, out=excess)
    likelihood = np.exp(log_likelihood, out=log_likelihood)
    # The factors outside the exponential span only some powers of ten, so that no sample's components all underflow.
    weighted = np.multiply(likelihood, prior.weight.T @ hats, out=likelihood)
    joint = np.divide(weighted, np.sqrt(gap_variance, out=gap_variance), out=weighted)
    responsibilities = np.multiply(joint, 1.0 / joint.sum(axis=0), out=joint)
    return responsibilities, mean_variances


def _maximize(prior: Prior, blocks: Blocks, responsibilities: Sequence[np.ndarray]) -> Prior:
    """One maximization step. The variances of a component count as equal here (its dof is the largest).

    responsibilities: (K, n) per block."""
    n_components = len(prior.gap_mean)
    n_samples = np.full((len(prior.knots), n_components), 0.5 / n_components)
    squares, dof = np.zeros((2, 2, n_components))
    for (block, hats), responsibility in zip(blocks, responsibilities, strict=True):
        n_samples += hats @ responsibility.T
        squares += (block.dof * block.variance) @ responsibility.T
        dof += np.broadcast_to(block.dof, block.variance.shape) @ responsibility.T
    variance = (squares + 0.5 * prior.variance) / (dof + 0.5)
    gap_mean, gap_variance = _maximize_gaps(prior, blocks, responsibilities, variance)
    weight = n_samples / n_samples.sum(axis=1, keepdims=True)
    return replace(prior, weight=weight, gap_mean=gap_mean, gap_variance=gap_variance, variance=variance)


def _maximize_gaps(
    prior: Prior, blocks: Blocks, responsibilities: Sequence[np.ndarray], variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(gap_mean, gap_variance), float64 (K,), given the new variances (2, K)."""
    prior_variance = prior.gap_variance[:, None]
    weighted_gaps, total_weight, squares, n_samples = np.zeros((4, len(prior.gap_mean)))
    terms = []
    for (block, _), responsibility in zip(blocks, responsibilities, strict=True):
        square_scale = block.gap_scale**2
        noise_variance = variance[0][:, None] / block.count[0] + variance[1][:, None] / block.count[1]
        true_variance = prior_variance * square_scale
        total_variance = np.add(true_variance, noise_variance, out=true_variance)
        # Times square_scale this is the shrinkage weight: the share of a residual that is the sample's true gap.
        shrinkage = np.divide(prior_variance, total_variance, out=total_variance)
        weight = responsibility * shrinkage
        weighted_gaps += weight @ (block.gap * block.gap_scale)
        total_weight += weight @ square_scale
        n_samples += responsibility.sum(axis=1)
        terms.append((block, square_scale, noise_variance, shrinkage, weight))
    gap_mean = weighted_gaps / np.maximum(total_weight, TINY)
    for block, square_scale, noise_variance, shrinkage, weight in terms:
        residual = block.gap - gap_mean[:, None] * block.gap_scale
        squared = np.multiply(residual, residual, out=residual)
        scaled = np.multiply(squared, square_scale, out=squared)
        shrunk = np.multiply(scaled, shrinkage, out=scaled)
        second_moment = np.add(shrunk, noise_variance, out=shrunk)  # of the true gap, divided by shrinkage
        squares += np.einsum("kn,kn->k", second_moment, weight)
    return gap_mean, (squares + 1e-6) / (n_samples + 1e-6) + 1e-8


def _extrapolate(prior: Prior, updated: Prior) -> Prior:
    """RELAXATION times the step from prior to updated; positive parameters on the scale of their logarithm."""

    def scaled(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return old * (new / old) ** RELAXATION

    weight = scaled(prior.weight, updated.weight)
    return replace(
        updated,
        weight=weight / weight.sum(axis=1, keepdims=True),
        gap_mean=prior.gap_mean + RELAXATION * (updated.gap_mean - prior.gap_mean),
        gap_variance=scaled(prior.gap_variance, updated.gap_variance),
        variance=scaled(prior.variance, updated.variance),
    )


def _fit_dof(prior: Prior, summaries: SampleSummaries, responsibilities: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the variances within components, (2,), by the moments of their logarithms (Smyth 2004).

    responsibilities: (K, n)."""
    result = np.full(2, MAX_DOF)
    for side in (0, 1):
        half = 0.5 * np.broadcast_to(summaries.dof[side], summaries.midpoint.shape)
        usable = half > 0
        if not usable.any():
            continue
        half = half[usable]
        unbiased = np.log(summaries.variance[side][usable]) - digamma(half) + np.log(half)
        squares = (responsibilities[:, usable] * (unbiased - np.log(prior.variance[side])[:, None]) ** 2).sum(axis=0)
        excess = float(np.mean(squares - polygamma(1, half)))
        result[side] = _inverse_trigamma(excess) * 2.0
    return np.clip(result, 2.0, MAX_DOF)


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value, by Newton's method on 1 / trigamma (Smyth 2004, appendix); inf for value <= 0."""
    if value <= 2.0 / MAX_DOF:
        return np.inf
    x = 0.5 + 1.0 / value
    for _ in range(20):
        trigamma = polygamma(1, x)
        x += trigamma * (1.0 - trigamma / value) / polygamma(2, x)
    return float(x)


@dataclass(frozen=True)
class _Predictive:
    """A mixture of Student's t per sample. log_weight, location, inverse_scale: (K, n), the last is
    1 / (dof * variance); power: (n,), (dof + 1) / 2."""

    log_weight: np.ndarray
    location: np.ndarray
    inverse_scale: np.ndarray
    power: np.ndarray

    def log_density(self, phi: np.ndarray) -> np.ndarray:
        """float64 (n,), up to a constant shared by both sides."""
        residual = phi - self.location
        squared = np.multiply(residual, residual, out=residual)
        ratio = np.multiply(squared, self.inverse_scale, out=squared)
        one_plus_ratio = np.add(ratio, 1.0, out=ratio)
        log_ratio = np.log(one_plus_ratio, out=one_plus_ratio)
        log_kernel = np.multiply(log_ratio, -self.power, out=log_ratio)
        log_joint = np.add(log_kernel, self.log_weight, out=log_kernel)
        largest = log_joint.max(axis=0)
        relative = np.subtract(log_joint, largest, out=log_joint)
        return largest + np.log(np.exp(relative, out=relative).sum(axis=0))


def _log_ratio(phi: np.ndarray, summaries: SampleSummaries, prior: Prior) -> np.ndarray:
    """Log ratio of the predictive densities, float64 (R, n) or (n,) like phi."""
    result = np.empty_like(phi)
    for block, samples in summaries.blocks():
        members, nonmembers = _predictives(prior, samples)
        for values, ratio in zip(np.atleast_2d(phi[..., block]), np.atleast_2d(result[..., block]), strict=True):
            ratio[:] = members.log_density(values) - nonmembers.log_density(values)
    return result


def _predictives(prior: Prior, summaries: SampleSummaries) -> tuple[_Predictive, _Predictive]:
    """(members, non-members).

    A side's mean is estimated twice: from its own shadows, and from the other side's shifted by the prior's gap."""
    hats = hat_functions(summaries.midpoint, prior.knots)
    responsibilities, mean_variances = _posterior(prior, summaries, hats)
    component_weight = np.add(responsibilities, TINY, out=responsibilities)

    def predictive(side: int, sign: float) -> _Predictive:
        other_mean = summaries.mean[1 - side] + sign * prior.gap_mean[:, None] * summaries.gap_scale
        other_variance = mean_variances[1 - side] + prior.gap_variance[:, None] * summaries.gap_scale**2
        own_weight = np.divide(other_variance, mean_variances[side] + other_variance, out=other_variance)
        difference = summaries.mean[side] - other_mean
        shift = np.multiply(difference, own_weight, out=difference)
        location = np.add(shift, other_mean, out=shift)
        multiple = np.add(own_weight, summaries.count[side], out=own_weight)
        variance = np.multiply(multiple, mean_variances[side], out=multiple)  # the side's plus that of the location
        dof = prior.dof[side] + summaries.dof[side]
        scale = np.multiply(variance, dof, out=variance)
        inverse_scale = np.divide(1.0, scale, out=scale)
        log_height = np.log(component_weight * np.sqrt(inverse_scale))
        log_weight = np.add(log_height, _log_gamma_ratio(prior.dof[side], summaries.dof[side]), out=log_height)
        return _Predictive(log_weight, location, inverse_scale, 0.5 * (dof + 1.0))

    return predictive(1, 1.0), predictive(0, -1.0)


def _log_gamma_ratio(prior_dof: float, dof: np.ndarray) -> np.ndarray:
    """Log of gamma((f + 1) / 2) / gamma(f / 2), f = prior_dof + dof: float64 like dof, integers, so that a table
    of the few that occur serves all samples."""
    half = 0.5 * (prior_dof + np.arange(dof.max() + 1.0))
    return (gammaln(half + 0.5) - gammaln(half))[dof.astype(int)]
