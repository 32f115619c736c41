"""The LiRA attacks in the conventions of the authors' published plotting script, for comparison with published figures.

Per sample the median instead of the mean, the standard deviation with n in the denominator plus 1e-30, and only the
first c members and c' non-members in the order of the shadows, c and c' the smallest counts over all samples that have
any; a sample that has none gets no score. Pooled: the standard deviation of all scores, not of residuals; online that
of the member scores for both sides. Offline: the log density itself, negated, since a lower density means member.
Source: plot.py of "Membership Inference Attacks From First Principles" (Carlini et al. 2022)."""

from collections.abc import Iterator

import numpy as np

from lira.attacks.inputs import AttackOptions
from lira.attacks.statistics import Score, Statistics

FLOOR = 1e-30  # added to standard deviations
BLOCK = 8192  # samples sorted at a time


def fit_lira(statistics: Statistics, options: AttackOptions) -> Score:
    """Per-sample Gaussians."""
    members, nonmembers = _median_and_deviation(statistics, 1), _median_and_deviation(statistics, 0)
    return lambda phi, log_p: _log_normal(phi, *members) - _log_normal(phi, *nonmembers)


def fit_lira_pooled(statistics: Statistics, options: AttackOptions) -> Score:
    """Per-sample medians, one standard deviation for all samples and both sides."""
    median_in, _ = _median_and_deviation(statistics, 1)
    median_out, _ = _median_and_deviation(statistics, 0)
    deviation = _pooled_deviation(statistics, 1)
    return lambda phi, log_p: _log_normal(phi, median_in, deviation) - _log_normal(phi, median_out, deviation)


def fit_lira_offline(statistics: Statistics, options: AttackOptions) -> Score:
    """Per-sample Gaussians of the non-members alone."""
    nonmembers = _median_and_deviation(statistics, 0)
    return lambda phi, log_p: -_log_normal(phi, *nonmembers)


def fit_lira_offline_pooled(statistics: Statistics, options: AttackOptions) -> Score:
    """Medians of the non-members, one standard deviation for all samples."""
    median, _ = _median_and_deviation(statistics, 0)
    deviation = _pooled_deviation(statistics, 0)
    return lambda phi, log_p: -_log_normal(phi, median, deviation)


def _log_normal(phi: np.ndarray, mean: np.ndarray, deviation: np.ndarray | float) -> np.ndarray:
    """Log density of a Gaussian at phi, in nats; broadcasts."""
    variance = (deviation + FLOOR) ** 2
    return -0.5 * ((phi - mean) ** 2 / variance + np.log(variance) + np.log(2.0 * np.pi))


def _median_and_deviation(statistics: Statistics, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(median, standard deviation), float64 (N, A), of the first c shadows of a side; NaN where it has none."""
    median = np.full(statistics.phi.shape[1:], np.nan)
    deviation = np.full_like(median, np.nan)
    for block, values in _first_shadows(statistics, side):
        median[block], deviation[block] = np.median(values, axis=1), values.std(axis=1)
    return median, deviation


def _pooled_deviation(statistics: Statistics, side: int) -> float:
    """Standard deviation of all scores of a side over samples, shadows and queries; NaN without any."""
    total = count = 0.0
    for _, values in _first_shadows(statistics, side):
        total, count = total + values.sum(), count + values.size
    squares = sum(((values - total / count) ** 2).sum() for _, values in _first_shadows(statistics, side))
    return np.sqrt(squares / count) if count else np.nan


def _first_shadows(statistics: Statistics, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(samples, phi float64 (n, c, A)) for blocks of the samples that have the side: its first c shadows in order."""
    count = statistics.count[side]
    samples = np.flatnonzero(count)
    for start in range(0, len(samples), BLOCK):
        block = samples[start : start + BLOCK]
        first = statistics.included[:, block] & (statistics.member[:, block] == bool(side))
        first &= np.cumsum(first, axis=0) <= count[samples].min()
        row, shadow = np.nonzero(first.T)  # sample by sample, c shadows each, in their order
        values = statistics.phi[shadow, block[row]].astype(np.float64)
        yield block, values.reshape(len(block), -1, values.shape[-1])
