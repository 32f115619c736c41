"""The attacks on confidences: rmia, the confidence ratio, the plain loss.

Used like those of `lira.attacks.gaussian`."""

import numpy as np

from lira.attacks.statistics import confidence_from_log


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
