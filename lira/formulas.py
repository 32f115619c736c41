"""The attacks that are one formula: Gaussian likelihood ratios, confidence ratios, the plain loss.

Every `fit_*` takes the shadows' Statistics and the Options and returns score(phi, log_p): phi and log_p,
float64 (N, A), are those of the model under attack; the score, float64 (N, A), is higher for members and
NaN where the shadows lack a side that the attack needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from .errors import InputError
from .moments import confidence_from_log

VARIANCE_FLOOR = 1e-5  # added to every variance of phi, as the design has it
CONVENTIONS = ("lira", "official")
LOG_2PI = np.log(2.0 * np.pi)


@dataclass(frozen=True)
class Options:
    """What the attacks can be told. gamma and offline_a are rmia's (Zarifzadeh et al. 2024; 2 and 0.3 are
    theirs for CIFAR-10). seed: of the random shadows left out and of `learned`."""

    convention: str = "lira"
    gamma: float = 2.0
    offline_a: float = 0.3
    seed: int = 0

    def __post_init__(self):
        if self.convention not in CONVENTIONS:
            raise InputError(f"unknown convention {self.convention!r}: choose from {', '.join(CONVENTIONS)}")
        if not self.gamma > 0 or not 0 <= self.offline_a <= 1:
            raise InputError(
                f"gamma must be above 0 and offline_a from 0 to 1, not {self.gamma} and {self.offline_a}: change them"
            )


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


def fit_rmia(statistics, options):
    """Share of all target samples that x beats by gamma (Zarifzadeh et al. 2024), members and non-members
    known."""
    mean_out, mean_in = statistics.mean("p")
    return _pairwise_test(np.log(0.5 * (mean_out + mean_in)), options.gamma)


def fit_rmia_offline(statistics, options):
    """rmia from non-members alone: P = ((1 + a) P_out + 1 - a) / 2 (Zarifzadeh et al. 2024, appendix
    B.2.2)."""
    a = options.offline_a
    return _pairwise_test(np.log(0.5 * ((1.0 + a) * statistics.mean("p")[0] + 1.0 - a)), options.gamma)


def _pairwise_test(log_average, gamma):
    """log_average: float64 (N, A), log P(x). Returns the score function of rmia."""

    def score(phi, log_p):
        ratio = np.log(confidence_from_log(log_p)) - log_average
        columns = np.moveaxis(ratio, -2, -1)  # (R, A, N)
        shares = [_dominance(column, np.log(gamma)) for column in columns.reshape(-1, columns.shape[-1])]
        return np.moveaxis(np.reshape(shares, columns.shape), -1, -2)

    return score


def _dominance(ratio, log_gamma):
    """Share of samples z with ratio - ratio_z >= log_gamma, and below the next share a term that breaks ties.

    ratio: float64 (N,), log of p_x / P(x), NaN where unknown (neither scored nor counted as z). Returns
    (N,)."""
    known = np.count_nonzero(~np.isnan(ratio))
    order = np.argsort(ratio)[:known]  # NaN comes last
    reference = ratio[order]
    beaten = np.searchsorted(reference, reference - log_gamma, side="right")
    squashed = 0.5 + 0.5 * reference / (1.0 + np.abs(reference))  # increasing in the ratio, in (0, 1)
    result = np.full(ratio.shape, np.nan)
    result[order] = (beaten + squashed) / max(known, 1)
    return result


def fit_ratio(statistics, options):
    """log p_y less its mean over members and non-members, which weigh the same."""
    mean_out, mean_in = statistics.mean("log_p")
    middle = 0.5 * (mean_out + mean_in)
    return lambda phi, log_p: log_p - middle


def fit_ratio_offline(statistics, options):
    """log p_y less its mean over non-members (difficulty calibration, Watson et al. 2022)."""
    mean_out = statistics.mean("log_p")[0]
    return lambda phi, log_p: log_p - mean_out


def fit_loss(statistics, options):
    """The confidence itself: one threshold for all samples (Yeom et al. 2018). The shadows set the
    threshold only."""
    return lambda phi, log_p: log_p
