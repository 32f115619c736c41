"""Simulated attacks with a known truth: how often an interval misses it."""

import numpy as np
from scipy.stats import norm

from lira.attacks.metrics import auc_interval, tpr_at_fpr


def true_auc(distance, grain=None):
    """Area under the ROC of N(0, 1) against N(distance, 1), rounded to multiples of grain; ties count one half."""
    if not grain:
        return norm.cdf(distance / np.sqrt(2))
    grid = grain * np.arange(-round(10 / grain), round(10 / grain) + 1)
    outside, inside = (norm.cdf(grid + grain / 2 - d) - norm.cdf(grid - grain / 2 - d) for d in (0.0, distance))
    return float(inside @ (np.cumsum(outside) - outside / 2))


def misses(n_samples, distance, grain, rates, *, attacks, seed):
    """dict of how many of the attacks have an interval without the truth, by figure."""
    generator = np.random.default_rng((seed, n_samples, round(1000 * distance)))
    member, area = np.arange(n_samples) < n_samples // 2, true_auc(distance, grain)
    missed: dict[str, int] = {}

    def count(name, low, truth, high):
        missed[name] = missed.get(name, 0) + (not low <= truth <= high)

    for _ in range(attacks):
        score = generator.normal(size=n_samples) + distance * member
        score = np.round(score / grain) * grain if grain else score
        _, low, high = auc_interval(score, member)
        count("auc", low, area, high)
        for rate in rates:
            step = tpr_at_fpr(score, member, rate)
            cut = step["cut"] + (grain or 0.0) / 2  # what was rounded to above the cut is guessed
            count(f"tpr {rate:g}", step["tpr_low"], norm.sf(cut - distance), step["tpr_high"])
            count(f"fpr {rate:g}", step["fpr_low"], norm.sf(cut), step["fpr_high"])
    return missed
