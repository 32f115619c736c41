"""Paired mean differences with their intervals, for the benchmarks that compare attacks."""

import numpy as np
from scipy.stats import t

FIGURES = ("AUC", "TPR at 1 %", "TPR at 0.1 %")


def difference(one, two):
    """(mean, low, high), each float64 (F,): Student's 95 % interval over the units. one, two: float (units, F)."""
    differences = np.asarray(one, dtype=float) - np.asarray(two, dtype=float)
    units, mean = len(differences), differences.mean(axis=0)
    reach = t.ppf(0.975, units - 1) * differences.std(axis=0, ddof=1) / np.sqrt(units) if units > 1 else np.inf
    return mean, mean - reach, mean + reach


def tell(one, two):
    """The differences as text, a column a figure: a tie where the interval holds 0."""
    parts = []
    for mean, low, high in zip(*difference(one, two), strict=True):
        word = "tie  " if low <= 0.0 <= high else "above" if low > 0.0 else "BELOW"
        parts.append(f"{word} {mean:+.4f} [{low:+.4f}, {high:+.4f}]")
    return "   ".join(parts)


def tell_against_all(name, rows):
    """Print the differences of one row to every other. rows: dict of float (units, F)."""
    units = len(rows[name])
    print(f"{name} minus each other row, mean of {units} paired differences [95 % interval]: {', '.join(FIGURES)}")
    for other in rows:
        if other != name:
            print(f"  {other:20s}{tell(rows[name], rows[other])}")
