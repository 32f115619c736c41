"""The attacks that are one formula: Gaussian likelihood ratios, confidence ratios, the plain loss.

Every `fit_*` takes the shadows' Statistics and the Options and returns score(phi, log_p): phi and log_p,
float64 (N, A), are those of the model under attack; the score, float64 (N, A), is higher for members and
NaN where the shadows lack a side that the attack needs."""

import numpy as np
from scipy.special import log_ndtr

VARIANCE_FLOOR = 1e-5  # added to every variance of phi, as the design has it
LOG_2PI = np.log(2.0 * np.pi)


def log_normal(phi, mean, variance):
    """Log density of N(mean, variance) at phi, in nats; broadcasts."""
    return -0.5 * ((phi - mean) ** 2 / variance + np.log(variance) + LOG_2PI)


def log_likelihood_ratio(phi, mean_in, var_in, mean_out, var_out):
    """Log of p(phi | member) / p(phi | non-member), in nats. Higher = member.

    phi, mean_*, var_*: float64 (N, A), variances above 0. Returns float64 (N, A).
    Carlini et al. 2022, Algorithm 1, line 15."""
    squares = (phi - mean_out) ** 2 / var_out - (phi - mean_in) ** 2 / var_in
    return 0.5 * (squares + np.log(var_out / var_in))


def pooled_variances(statistics):
    """Mean squared residual over all samples, float64 (2, 1, A): non-members, members; 0 where no side has
    two."""
    freedom = np.maximum(statistics.count - 1, 0).sum(axis=1)[:, None]
    pooled = statistics.squares.sum(axis=1) / np.maximum(freedom, 1)
    return pooled[:, None, :]


def fit_lira(statistics, options):
    """Per-sample Gaussians (Carlini et al. 2022, Algorithm 1)."""
    var_in, var_out = statistics.var_in + VARIANCE_FLOOR, statistics.var_out + VARIANCE_FLOOR
    return lambda phi, log_p: log_likelihood_ratio(phi, statistics.mean_in, var_in, statistics.mean_out, var_out)


def fit_lira_pooled(statistics, options):
    """Per-sample means, one variance a side (Carlini et al. 2022, section VI.C)."""
    var_out, var_in = pooled_variances(statistics) + VARIANCE_FLOOR
    return lambda phi, log_p: log_likelihood_ratio(phi, statistics.mean_in, var_in, statistics.mean_out, var_out)


def fit_lira_offline(statistics, options):
    """One-sided test against the non-members alone (Carlini et al. 2022, equation 4)."""
    deviation = np.sqrt(statistics.var_out + VARIANCE_FLOOR)
    return lambda phi, log_p: log_ndtr((phi - statistics.mean_out) / deviation)


def fit_lira_offline_pooled(statistics, options):
    """The one-sided test with one variance for all samples."""
    deviation = np.sqrt(pooled_variances(statistics)[0] + VARIANCE_FLOOR)
    return lambda phi, log_p: log_ndtr((phi - statistics.mean_out) / deviation)
