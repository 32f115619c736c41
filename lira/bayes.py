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

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from .formulas import VARIANCE_FLOOR
from .prior import TINY, Evidence, gap_trend, learned_prior, nearness, posterior


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
