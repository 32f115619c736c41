"""The LiRA rows in the conventions of the authors' published plotting script, for comparison with published
figures.

Per sample the median instead of the mean, the standard deviation with n in the denominator plus 1e-30, and
only the first c members and c' non-members in the order of the shadows, c and c' the smallest counts over
all samples that have any; a sample that has none gets no score. Pooled means the standard deviation of all
scores, not of residuals: online of the member scores for both sides. Offline the log density itself, with the
sign such that a lower density means member.
Source: plot.py of "Membership Inference Attacks From First Principles" (Carlini et al. 2022).

The functions are used like those of `lira.formulas`."""

import numpy as np

from lira.attacks.gaussian import log_normal

FLOOR = 1e-30  # added to standard deviations, as the script has it
BLOCK = 8192  # samples sorted at a time


def fit_lira(statistics, options):
    inside, outside = _centre_and_deviation(statistics, 1), _centre_and_deviation(statistics, 0)
    return lambda phi, log_p: _log_normal(phi, *inside) - _log_normal(phi, *outside)


def fit_lira_pooled(statistics, options):
    middle_in, _ = _centre_and_deviation(statistics, 1)
    middle_out, _ = _centre_and_deviation(statistics, 0)
    deviation = _deviation_of_all(statistics, 1)
    return lambda phi, log_p: _log_normal(phi, middle_in, deviation) - _log_normal(phi, middle_out, deviation)


def fit_lira_offline(statistics, options):
    outside = _centre_and_deviation(statistics, 0)
    return lambda phi, log_p: -_log_normal(phi, *outside)


def fit_lira_offline_pooled(statistics, options):
    middle, _ = _centre_and_deviation(statistics, 0)
    deviation = _deviation_of_all(statistics, 0)
    return lambda phi, log_p: -_log_normal(phi, middle, deviation)


def _log_normal(phi, mean, deviation):
    return log_normal(phi, mean, (deviation + FLOOR) ** 2)


def _centre_and_deviation(statistics, side):
    """(median, standard deviation), float64 (N, A), of the first c shadows of a side; NaN where it has none."""
    middle = np.full(statistics.phi.shape[1:], np.nan)
    deviation = np.full_like(middle, np.nan)
    for some, values in _first(statistics, side):
        middle[some], deviation[some] = np.median(values, axis=1), values.std(axis=1)
    return middle, deviation


def _deviation_of_all(statistics, side):
    """Standard deviation of all scores of a side, over samples, shadows and queries, a float; NaN without any."""
    total = count = 0.0
    for _, values in _first(statistics, side):
        total, count = total + values.sum(), count + values.size
    squares = sum(((values - total / count) ** 2).sum() for _, values in _first(statistics, side))
    return np.sqrt(squares / count) if count else np.nan


def _first(statistics, side):
    """(samples, float64 (n, c, A)) for blocks of the samples that have the side: its first c shadows in their order."""
    counts = statistics.count[side]
    known = np.flatnonzero(counts)
    for start in range(0, len(known), BLOCK):
        some = known[start : start + BLOCK]
        mask = statistics.kept[:, some] & (statistics.member[:, some] == bool(side))
        mask &= np.cumsum(mask, axis=0) <= counts[known].min()
        sample, shadow = np.nonzero(mask.T)  # sample by sample, shadows in their order, c each
        values = statistics.phi[shadow, some[sample]].astype(np.float64)
        yield some, values.reshape(len(some), -1, values.shape[-1])
