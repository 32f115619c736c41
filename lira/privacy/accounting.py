"""Epsilon by Opacus's accountants, and the noise multiplier for a target epsilon."""

import functools
import warnings

import numpy as np
from opacus.accountants import create_accountant

from lira.errors import InputError

MAX_NOISE_MULTIPLIER = 1e6


@functools.cache
def epsilon(accountant: str, history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Upper bound on epsilon at delta. accountant: prv or rdp; history: (noise multiplier, sample rate, steps) each.

    Raises InputError if the accountant fails because of extreme values."""
    if not history:
        return 0.0
    steps_taken = create_accountant(accountant)
    steps_taken.history = list(history)
    try:
        with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log(1 - q) is -inf at q = 1
            warnings.filterwarnings("ignore", message="Optimal order is the")  # Opacus chooses the range of orders
            return max(0.0, float(steps_taken.get_epsilon(delta)))
    except (ArithmeticError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no epsilon can be computed for a noise multiplier of {history[0][0]:g} and delta {delta:g}: "
            "take --sigma and --delta of the usual size"
        ) from error


def min_noise_multiplier(target: float, accountant: str, sample_rate: float, steps: int, delta: float) -> float:
    """The smallest noise multiplier with at most the target epsilon, to within 0.01 or 1 % of epsilon.

    Bisection as in Opacus's get_noise_multiplier, but without PRV far above the target, where it takes minutes.
    Raises InputError if no noise multiplier up to MAX_NOISE_MULTIPLIER is enough."""

    def epsilon_at(sigma: float) -> float:
        history = ((sigma, sample_rate, steps),)
        rdp_epsilon = epsilon("rdp", history, delta)  # at most twice that of PRV
        return rdp_epsilon if rdp_epsilon > 2 * target else epsilon(accountant, history, delta)

    low, high = 0.0, 20.0
    while (epsilon_at_high := epsilon_at(high)) > target:
        if (high := 2 * high) > MAX_NOISE_MULTIPLIER:
            raise InputError(
                f"--target-epsilon {target:g} cannot be reached in {steps} steps at delta {delta:g}: raise it, "
                "or train fewer epochs"
            )
    while target - epsilon_at_high > min(0.01, target / 100):
        middle = (low + high) / 2
        if (epsilon_at_middle := epsilon_at(middle)) < target:
            high, epsilon_at_high = middle, epsilon_at_middle
        else:
            low = middle
    return high
