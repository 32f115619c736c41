"""Paired mean differences with their intervals, for the benchmarks that compare attacks."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

FIGURES = ("AUC", "TPR at 1 %", "TPR at 0.1 %")


def difference(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high), each float64 (F,): Student's 95 % interval over the units. first, second: float (units, F)."""
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    units, mean = len(differences), differences.mean(axis=0)
    half_width = t.ppf(0.975, units - 1) * differences.std(axis=0, ddof=1) / np.sqrt(units) if units > 1 else np.inf
    return mean, mean - half_width, mean + half_width


def describe(first: ArrayLike, second: ArrayLike) -> str:
    """The differences as text, one column per figure: a tie where the interval contains 0."""
    parts = []
    for mean, low, high in zip(*difference(first, second), strict=True):
        word = "tie  " if low <= 0.0 <= high else "above" if low > 0.0 else "BELOW"
        parts.append(f"{word} {mean:+.4f} [{low:+.4f}, {high:+.4f}]")
    return "   ".join(parts)


def print_differences(name: str, rows: Mapping[str, ArrayLike]) -> None:
    """Print the differences of one row to every other. rows: float (units, F) by attack."""
    units = len(np.asarray(rows[name]))
    print(f"{name} minus each other row, mean of {units} paired differences [95 % interval]: {', '.join(FIGURES)}")
    for other in rows:
        if other != name:
            print(f"  {other:20s}{describe(rows[name], rows[other])}")
