"""The closed forms of LiRA: likelihood ratios and one-sided tests of Gaussians, per sample or with pooled variances.

Every `fit_*` of this package takes the Statistics of the shadows and the AttackOptions and returns the score function
of the attack, see `statistics.Score`."""

import numpy as np
from scipy.special import log_ndtr

from lira.attacks.inputs import AttackOptions
from lira.attacks.statistics import Score, Statistics

VARIANCE_FLOOR = 1e-5  # added to every variance of phi


def log_likelihood_ratio(
    phi: np.ndarray, mean_in: np.ndarray, var_in: np.ndarray, mean_out: np.ndarray, var_out: np.ndarray
) -> np.ndarray:
    """Log of p(phi | member) / p(phi | non-member), in nats. Higher = member.

    phi: float64 (..., N, A); mean_*: (N, A); var_*: (N, A) or (1, A), above 0. Returns float64 (..., N, A).
    Carlini et al. 2022, Algorithm 1, line 15."""
    squares = (phi - mean_out) ** 2 / var_out - (phi - mean_in) ** 2 / var_in
    return 0.5 * (squares + np.log(var_out / var_in))


def pooled_variances(statistics: Statistics) -> np.ndarray:
    """Mean squared residual over all samples, float64 (2, 1, A): non-members, members; 0 where no sample has two."""
    dof = np.maximum(statistics.count - 1, 0).sum(axis=1)[:, None]
    pooled = statistics.squared_residuals.sum(axis=1) / np.maximum(dof, 1)
    return pooled[:, None, :]


def fit_lira(statistics: Statistics, options: AttackOptions) -> Score:
    """Per-sample Gaussians (Carlini et al. 2022, Algorithm 1)."""
    var_in, var_out = statistics.var_in + VARIANCE_FLOOR, statistics.var_out + VARIANCE_FLOOR
    return lambda phi, log_p: log_likelihood_ratio(phi, statistics.mean_in, var_in, statistics.mean_out, var_out)


def fit_lira_pooled(statistics: Statistics, options: AttackOptions) -> Score:
    """Per-sample means, one variance per side (Carlini et al. 2022, section VI.C)."""
    var_out, var_in = pooled_variances(statistics) + VARIANCE_FLOOR
    return lambda phi, log_p: log_likelihood_ratio(phi, statistics.mean_in, var_in, statistics.mean_out, var_out)


def fit_lira_offline(statistics: Statistics, options: AttackOptions) -> Score:
    """One-sided test against the non-members alone (Carlini et al. 2022, equation 4)."""
    deviation = np.sqrt(statistics.var_out + VARIANCE_FLOOR)
    return lambda phi, log_p: log_ndtr((phi - statistics.mean_out) / deviation)


def fit_lira_offline_pooled(statistics: Statistics, options: AttackOptions) -> Score:
    """The one-sided test with one variance for all samples."""
    deviation = np.sqrt(pooled_variances(statistics)[0] + VARIANCE_FLOOR)
    return lambda phi, log_p: log_ndtr((phi - statistics.mean_out) / deviation)
