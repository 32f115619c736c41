"""The attacks on the confidence in the true class: rmia, ratio, loss."""

import numpy as np

from lira.attacks.inputs import AttackOptions
from lira.attacks.statistics import Score, Statistics, confidence_from_log


def fit_rmia(statistics: Statistics, options: AttackOptions) -> Score:
    """Share of all target samples z that x dominates by gamma (Zarifzadeh et al. 2024); P from both sides.

    Ties are broken by the ratio itself, so that with one query the order of samples is that of log p(x) - log P(x)."""
    mean_out, mean_in = statistics.mean("p")
    return _pairwise_test(np.log(0.5 * (mean_out + mean_in)), options.gamma)


def fit_rmia_offline(statistics: Statistics, options: AttackOptions) -> Score:
    """rmia from non-members alone: P = ((1 + a) P_out + 1 - a) / 2 (Zarifzadeh et al. 2024, appendix B.2.2)."""
    a = options.offline_a
    return _pairwise_test(np.log(0.5 * ((1.0 + a) * statistics.mean("p")[0] + 1.0 - a)), options.gamma)


def _pairwise_test(log_average: np.ndarray, gamma: float) -> Score:
    """The score function of rmia. log_average: float64 (N, A), log P(x)."""

    def score(phi: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        ratio = np.log(confidence_from_log(log_p)) - log_average
        rows = np.moveaxis(ratio, -2, -1)  # (R, A, N)
        shares = [_dominated_share(row, np.log(gamma)) for row in rows.reshape(-1, rows.shape[-1])]
        return np.moveaxis(np.reshape(shares, rows.shape), -1, -2)

    return score


def _dominated_share(ratio: np.ndarray, log_gamma: float) -> np.ndarray:
    """Share of samples z with ratio - ratio_z >= log_gamma, plus less than the share of one sample, which breaks ties.

    ratio: float64 (N,), log of p_x / P(x); NaN is neither scored nor counted as z. Returns float64 (N,)."""
    n_scored = np.count_nonzero(~np.isnan(ratio))
    order = np.argsort(ratio)[:n_scored]  # NaN comes last
    ascending = ratio[order]
    n_dominated = np.searchsorted(ascending, ascending - log_gamma, side="right")
    tie_breaker = 0.5 + 0.5 * ascending / (1.0 + np.abs(ascending))  # increasing in the ratio, in (0, 1)
    result = np.full(ratio.shape, np.nan)
    result[order] = (n_dominated + tie_breaker) / max(n_scored, 1)
    return result


def fit_ratio(statistics: Statistics, options: AttackOptions) -> Score:
    """log p_y minus its mean over the shadows, members and non-members weighing the same."""
    mean_out, mean_in = statistics.mean("log_p")
    mean = 0.5 * (mean_out + mean_in)
    return lambda phi, log_p: log_p - mean


def fit_ratio_offline(statistics: Statistics, options: AttackOptions) -> Score:
    """log p_y minus its mean over non-members (difficulty calibration, Watson et al. 2022)."""
    mean_out = statistics.mean("log_p")[0]
    return lambda phi, log_p: log_p - mean_out


def fit_loss(statistics: Statistics, options: AttackOptions) -> Score:
    """log p_y itself: one threshold for all samples (Yeom et al. 2018). The shadows only set the threshold."""
    return lambda phi, log_p: log_p
