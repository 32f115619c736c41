"""Epsilon by Opacus's accountants, and the noise that a given epsilon takes."""

import contextlib
import functools
import warnings

import numpy as np
from opacus.accountants import create_accountant

from lira.errors import InputError

MAX_NOISE = 1e6


@functools.cache
def epsilon(accountant: str, history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Upper bound at delta. accountant: prv or rdp; history: (noise multiplier, sample rate, steps) of the steps taken.

    Raises InputError where the accountant fails on values out of all proportion."""
    if not history:
        return 0.0
    taken = create_accountant(accountant)
    taken.history = list(history)
    try:
        with _without_warnings():
            return max(0.0, float(taken.get_epsilon(delta)))
    except (ArithmeticError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no epsilon can be computed for a noise multiplier of {history[0][0]:g} and delta {delta:g}: "
            "take --sigma and --delta of the usual size"
        ) from error


def min_noise_multiplier(target: float, accountant: str, sample_rate: float, steps: int, delta: float) -> float:
    """The smallest noise multiplier, to a hundredth of epsilon, that ends at or just below the target.

    The bisection of Opacus's get_noise_multiplier, less the steps far above the target, where PRV takes minutes.
    Raises InputError where no noise is enough."""

    def spent(sigma: float) -> float:
        history = ((sigma, sample_rate, steps),)
        loose = epsilon("rdp", history, delta)  # at most twice what PRV says
        return loose if loose > 2 * target else epsilon(accountant, history, delta)

    low, high = 0.0, 20.0
    while (reached := spent(high)) > target:
        if (high := 2 * high) > MAX_NOISE:
            raise InputError(
                f"--target-epsilon {target:g} cannot be reached in {steps} steps at delta {delta:g}: raise it, "
                "or train fewer epochs"
            )
    while target - reached > min(0.01, target / 100):
        middle = (low + high) / 2
        if (found := spent(middle)) < target:
            high, reached = middle, found
        else:
            low = middle
    return high


@contextlib.contextmanager
def _without_warnings():
    """Silence what a user cannot act on: the range of orders is Opacus's, and log(1 - q) is minus infinity at q = 1."""
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", message="Optimal order is the")
        yield
