"""Simulated attacks whose true AUC, TPR and FPR are known: how often an interval misses them."""

import numpy as np
from scipy.stats import norm

from lira.attacks.metrics import auc_interval, tpr_at_fpr


def true_auc(distance, rounding=None):
    """AUC of N(0, 1) against N(distance, 1), rounded to multiples of `rounding`; ties count one half."""
    if not rounding:
        return norm.cdf(distance / np.sqrt(2))
    grid = rounding * np.arange(-round(10 / rounding), round(10 / rounding) + 1)
    outside, inside = (norm.cdf(grid + rounding / 2 - d) - norm.cdf(grid - rounding / 2 - d) for d in (0.0, distance))
    return float(inside @ (np.cumsum(outside) - outside / 2))


def misses(n_samples, distance, rounding, rates, *, attacks, seed):
    """dict: metric -> number of attacks whose interval misses the truth."""
    generator = np.random.default_rng((seed, n_samples, round(1000 * distance)))
    member, area = np.arange(n_samples) < n_samples // 2, true_auc(distance, rounding)
    missed: dict[str, int] = {}

    def count(name, low, truth, high):
        missed[name] = missed.get(name, 0) + (not low <= truth <= high)

    for _ in range(attacks):
        score = generator.normal(size=n_samples) + distance * member
        score = np.round(score / rounding) * rounding if rounding else score
        _, low, high = auc_interval(score, member)
        count("auc", low, area, high)
        for rate in rates:
            point = tpr_at_fpr(score, member, rate)
            threshold = point["threshold"] + (rounding or 0.0) / 2  # what is rounded to above it is guessed
            count(f"tpr {rate:g}", point["tpr_low"], norm.sf(threshold - distance), point["tpr_high"])
            count(f"fpr {rate:g}", point["fpr_low"], norm.sf(threshold), point["fpr_high"])
    return missed
