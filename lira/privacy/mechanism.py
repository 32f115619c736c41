"""Whether training took the steps that its accountant was told of, at the coordinates of gradient canaries.

In units of the clipping norm, and with the images' clipped sum subtracted, the noisy sum of one step at the coordinate
of a canary is, times the canary's sign, x = w b + sigma z: b whether the canary is in this step's Poisson sample, w = 1
its weight, z a standard normal number that is new in every step. Each check compares one of these with the accountant's
history. The intervals are exact: chi-square for the noise scale, F for the correlation, binomial for the participation,
normal for the weight.

Only sums over canaries leave this module: the noise at one coordinate, even its sum over the steps, would undo the
noise in the weights there. So every scope has at least MIN_CANARIES members and as many non-members. Tensors with
fewer are one scope together; where even these are too few, their canaries are left out of all sums, since the
difference of two sums would be their noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, chi2, f, norm

from lira.privacy.audit import Mechanism

CONFIDENCE = 0.999  # of all checks of a run together
MIN_CANARIES = 4  # members, and as many non-members, behind every estimate
TOGETHER, SMALL = "all", "small tensors"


@dataclass(frozen=True)
class CanarySums:
    """What was added up in the steps of one target. Of each canary, (M,): member, its coin; tensor, the position of its
    tensor; total, the sum of x; quiet_squares, that of x^2 where it was not in the sample; n_in, how often it was;
    total_in, the sum of x there; n_once, the number of epochs with exactly one such step."""

    n_steps: int
    n_epochs: int
    member: np.ndarray
    tensor: np.ndarray
    total: np.ndarray
    quiet_squares: np.ndarray
    n_in: np.ndarray
    total_in: np.ndarray
    n_once: np.ndarray


class Estimate(NamedTuple):
    """The value that one check finds at the canaries of a scope (a tensor, or several). n: the independent draws, for
    the correlation the canaries, behind it."""

    check: str
    scope: str
    value: float
    n: int


class Outcome(NamedTuple):
    """One row of mechanism.csv: deviates where what is claimed lies outside of [low, high]."""

    check: str
    scope: str
    claimed: float
    estimate: float
    low: float
    high: float
    deviates: bool


def steps_per_epoch(sample_rate: float) -> int:
    return max(round(1 / sample_rate), 1)


def estimates(sums: CanarySums, tensors: Sequence[str]) -> list[Estimate]:
    """All checks of one target, without those that have no draw. tensors: their names."""
    n_by_coin = [np.bincount(sums.tensor[coin], minlength=len(tensors)) for coin in (sums.member, ~sums.member)]
    small = np.minimum(*n_by_coin) < MIN_CANARIES  # (tensors,)
    scope = np.where(small[sums.tensor], len(tensors), sums.tensor)
    in_small = sums.member[scope == len(tensors)]
    shared = min(in_small.sum(), (~in_small).sum()) >= MIN_CANARIES
    used = (scope < len(tensors)) | shared
    named = [(TOGETHER, used), *((name, scope == i) for i, name in enumerate([*tensors, SMALL]))]
    found = [Estimate("steps", TOGETHER, sums.n_steps, sums.n_steps)]
    for name, chosen in named:
        if (chosen & used).any():
            found += _estimates_of(sums, name, chosen)
    return [estimate for estimate in found if estimate.n > 0]


def _estimates_of(sums: CanarySums, scope: str, chosen: np.ndarray) -> list[Estimate]:
    n_steps, members, others = sums.n_steps, chosen & sums.member, chosen & ~sums.member
    n_members, n_others, n_in = int(members.sum()), int(others.sum()), int(sums.n_in[members].sum())
    n_quiet = (n_members + n_others) * n_steps - n_in
    scale = np.sqrt(sums.quiet_squares[chosen].sum() / max(n_quiet, 1))
    # Analysis of variance of the noise of the canaries that are not in the run: between and within canaries.
    between = np.sum(sums.total[others] ** 2) / n_steps
    within = np.maximum(sums.quiet_squares[others].sum() - between, 0) / max(n_steps - 1, 1)
    variance = between + (n_steps - 1) * within
    found = [
        Estimate("noise scale", scope, float(scale), n_quiet),
        Estimate("participation", scope, n_in / max(n_members * n_steps, 1), n_members * n_steps),
        Estimate("weight", scope, float(sums.total_in[members].sum() / max(n_in, 1)), n_in),
    ]
    if n_steps > 1 and variance > 0:
        found.append(Estimate("correlation", scope, float((between - within) / variance), n_others))
    if n_epochs := n_members * sums.n_epochs:
        found.append(Estimate("once per epoch", scope, sums.n_once[members].sum() / n_epochs, n_epochs))
    return found


def check_mechanisms(
    found: Sequence[Sequence[Estimate]], mechanisms: Sequence[Mechanism], *, confidence: float = CONFIDENCE
) -> list[list[Outcome]]:
    """What the estimates of each target say of what is claimed for it; the confidence is that of all together."""
    significance = (1 - confidence) / max(sum(map(len, found)), 1)
    outcomes: list[list[Outcome]] = []
    for of_target, mechanism in zip(found, mechanisms, strict=True):
        outcomes.append([])
        for check, scope, value, n in of_target:
            claimed, interval = CHECKS[check]
            low, high = interval(value, n, mechanism, significance / 2)
            expected = claimed(mechanism)
            deviates = not low <= expected <= high
            outcomes[-1].append(Outcome(check, scope, expected, value, float(low), float(high), deviates))
    return outcomes


Interval = Callable[[float, int, Mechanism, float], tuple[float, float]]  # value, n, mechanism, significance of a side


def _scale_interval(value: float, n: int, mechanism: Mechanism, side: float) -> tuple[float, float]:
    return value * np.sqrt(n / chi2.isf(side, n)), value * np.sqrt(n / chi2.ppf(side, n))


def _correlation_interval(value: float, n: int, mechanism: Mechanism, side: float) -> tuple[float, float]:
    """Of an intraclass correlation: (1 + (t - 1) rho) / (1 - rho), estimated by the ratio of the mean squares between
    and within n canaries of t steps, is that ratio divided by a draw of F(n, n (t - 1))."""
    t = mechanism.steps
    ratio = (1 + (t - 1) * value) / max(1 - value, 1e-12)
    low, high = ratio / f.isf(side, n, n * (t - 1)), ratio / f.ppf(side, n, n * (t - 1))
    return (low - 1) / (low + t - 1), (high - 1) / (high + t - 1)


def _binomial_interval(value: float, n: int, mechanism: Mechanism, side: float) -> tuple[float, float]:
    """Clopper and Pearson's."""
    k = round(value * n)
    return (beta.ppf(side, k, n - k + 1) if k else 0.0), (beta.isf(side, k + 1, n - k) if k < n else 1.0)


def _weight_interval(value: float, n: int, mechanism: Mechanism, side: float) -> tuple[float, float]:
    half_width = norm.isf(side) * mechanism.sigma / np.sqrt(n)
    return value - half_width, value + half_width


def _once_per_epoch(mechanism: Mechanism) -> float:
    n, q = steps_per_epoch(mechanism.sample_rate), mechanism.sample_rate
    return n * q * (1 - q) ** (n - 1)


CHECKS: dict[str, tuple[Callable[[Mechanism], float], Interval]] = {  # check -> (what is claimed, interval)
    "noise scale": (lambda mechanism: mechanism.sigma, _scale_interval),
    "correlation": (lambda mechanism: 0.0, _correlation_interval),
    "participation": (lambda mechanism: mechanism.sample_rate, _binomial_interval),
    "once per epoch": (_once_per_epoch, _binomial_interval),
    "weight": (lambda mechanism: 1.0, _weight_interval),
    "steps": (lambda mechanism: mechanism.steps, lambda value, n, mechanism, side: (value, value)),
}
