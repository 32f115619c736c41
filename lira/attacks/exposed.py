"""Who is exposed: for every sample the probability that it is a member, a p-value and a q-value.

All three compare a target's scores with those of the held-out shadows, whose members are known. They assume that
members are drawn at random from the samples, and that a non-member scores in the target as in a held-out shadow. Two
things differ. A held-out shadow is scored with two shadows fewer, so that its scores are noisier: with few shadows (8)
p-values are rather too large, and below MIN_SHADOWS nothing is stated. And shadows share training images that a target
lacks: on overfitted CIFAR-10 models p-values of 0.001 were 1.3 to 1.5 times too small. That half of the samples are
members leaves room for it in the false discovery rate, and none is left where few are (benchmarks/RESULTS.md).

score: float64 (N,), higher = more likely a member, NaN = not scored. Letters: N target samples, H held-out shadows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from lira.attacks.metrics import MIN_PAIRS, clopper_pearson

MIN_SHADOWS = 2 * MIN_PAIRS
N_FOLDS = 5  # of pairs of held-out shadows, for reliability()
N_BINS = 15  # of p_member, equally wide

Scored = Sequence[tuple[np.ndarray, np.ndarray]]  # (score, member) of each of some models


@dataclass(frozen=True)
class Exposure:
    """Of one target. p_member, p_value: float64 (N,), NaN where it is not scored. reliability: of the held-out shadows,
    see reliability(); None where it was not asked for."""

    p_member: np.ndarray
    p_value: np.ndarray
    reliability: pd.DataFrame | None = None


@dataclass(frozen=True)
class Calibration:
    """The scores of one attack on held-out shadows, as its scores on targets are compared with them.

    nonmembers: float64 (n,), ascending. steps, probabilities: float64 (P,), both ascending: the probability of
    membership from each step on."""

    nonmembers: np.ndarray
    steps: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def fit(cls, score: np.ndarray, member: np.ndarray) -> "Calibration | None":
        """score: float64, NaN left out, and member: bool, of the same shape; None without members or non-members.

        Isotonic regression of membership on the score (Zadrozny and Elkan 2002), members and non-members weighing the
        same: a prior of 1/2. Half a non-member above the highest score and half a member below the lowest keep the
        probabilities away from 0 and 1: n members in a row prove no more than n / (n + 1/2)."""
        scored = ~np.isnan(score)
        score, member = score[scored], member[scored]
        n_members = int(member.sum())
        if not 0 < n_members < len(member):
            return None
        distinct, place = np.unique(score, return_inverse=True)
        weight = [1 / (len(member) - n_members), 1 / n_members]
        outside, inside = (
            weight[side] * np.bincount(place[member == bool(side)], minlength=len(distinct)) for side in (0, 1)
        )
        inside = np.concatenate([[weight[1] / 2], inside, [0.0]])
        outside = np.concatenate([[0.0], outside, [weight[0] / 2]])
        fitted = isotonic_regression(inside / (inside + outside), weights=inside + outside)
        first = fitted.blocks[:-1]
        steps = np.concatenate([[-np.inf], distinct, [np.inf]])[first]
        return cls(np.sort(score[~member]), steps, fitted.x[first])

    def p_member(self, score: np.ndarray) -> np.ndarray:
        """Probability of membership at a prior of 1/2, float64 (N,)."""
        step = np.searchsorted(self.steps, score, side="right") - 1  # NaN is sorted last
        return np.where(np.isnan(score), np.nan, self.probabilities[step])

    def p_value(self, score: np.ndarray) -> np.ndarray:
        """Share of non-members that score as high or higher, the sample itself included, float64 (N,): the conformal
        p-value (1 + #{non-members >= score}) / (1 + n) of "this sample is no member"."""
        n = len(self.nonmembers)
        p_value = (1 + n - np.searchsorted(self.nonmembers, score, side="left")) / (1 + n)
        return np.where(np.isnan(score), np.nan, p_value)


def exposures(
    targets: np.ndarray, held_out: Scored, *, pair_sizes: Sequence[int], with_reliability: bool
) -> list[Exposure | None]:
    """One Exposure for each of the targets' scores, float64 (T, N); None without members or non-members.

    held_out: of each shadow, pair after pair; pair_sizes: shadows in each pair."""
    calibration = Calibration.fit(*_together(held_out))
    if calibration is None:
        return [None] * len(targets)
    bins = reliability(held_out, pair_sizes) if with_reliability else None
    return [Exposure(calibration.p_member(score), calibration.p_value(score), bins) for score in targets]


def reliability(held_out: Scored, pair_sizes: Sequence[int]) -> pd.DataFrame:
    """reliability_bins() of the held-out shadows, each with a calibration on other pairs alone: one of N_FOLDS parts of
    the pairs is held out at a time. Arguments as for exposures()."""
    fold = np.repeat(np.arange(len(pair_sizes)) % N_FOLDS, pair_sizes)
    predicted = []
    for number in np.unique(fold):
        others, shadows = (
            [pair for pair, of in zip(held_out, fold, strict=True) if (of == number) == chosen]
            for chosen in (False, True)
        )
        if calibration := Calibration.fit(*_together(others)):
            predicted += [(calibration.p_member(score), member) for score, member in shadows]
    return reliability_bins(*_together(predicted))


def _together(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    scores, members = zip(*scored, strict=True)
    return np.concatenate(scores), np.concatenate(members)


def reliability_bins(p_member: np.ndarray, member: np.ndarray) -> pd.DataFrame:
    """One row for each of N_BINS equally wide bins of p_member that holds samples: its mean, the number of samples, the
    share of members and its 95 % interval over the samples alone (Clopper-Pearson).

    p_member: float64, NaN left out, and member: bool, of the same shape."""
    scored = ~np.isnan(p_member)
    p_member, member = p_member[scored], member[scored]
    bin_of = np.minimum((p_member * N_BINS).astype(int), N_BINS - 1)
    rows = []
    for number in np.unique(bin_of):
        in_bin = bin_of == number
        n, n_members = int(in_bin.sum()), int(member[in_bin].sum())
        rows.append((p_member[in_bin].mean(), n, n_members / n, *clopper_pearson(n_members, n)))
    return pd.DataFrame(rows, columns=["p_member", "n_samples", "share", "share_low", "share_high"])


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error: mean distance of p_member from the share of members, weighted by the samples."""
    return float(np.average(np.abs(bins.p_member - bins.share), weights=bins.n_samples))


def at_prior(p_member: np.ndarray, prior: float) -> np.ndarray:
    """The posterior probability at another prior than 1/2. p_member: float64, any shape."""
    odds = prior / (1 - prior)
    return odds * p_member / (odds * p_member + 1 - p_member)


def q_values(p_value: np.ndarray) -> np.ndarray:
    """The lowest false discovery rate at which a sample is identified (Benjamini and Hochberg 1995), float64 (N,).

    p_value: float64 (N,) of one target, NaN left out. Those with q <= rate are identified. P-values that share their
    non-members are positively dependent, and then the rate holds (Bates et al. 2023), times the share of non-members,
    on average over targets and shadows: not in each run. That share is not estimated from the p-values (Storey 2002):
    those of a target share its model too, and the estimate fails where all its scores are a little high."""
    q_value, scored = np.full(len(p_value), np.nan), np.flatnonzero(~np.isnan(p_value))
    descending = scored[np.argsort(-p_value[scored], kind="stable")]
    n = len(descending)
    q_value[descending] = np.minimum.accumulate(p_value[descending] * n / np.arange(n, 0, -1))
    return q_value


def share_identified(p_value: np.ndarray, fdr: float, prior: float) -> float:
    """Share of members that q_values() would identify among many samples, a share `prior` of them members.

    p_value: float64, of members, NaN for those that were not scored; they count. A p-value is the share of non-members
    that is identified with it."""
    ascending = np.sort(p_value[~np.isnan(p_value)])
    share = np.arange(1, len(ascending) + 1) / max(len(p_value), 1)
    identified = share[ascending <= fdr * (prior * share + (1 - prior) * ascending)]
    return float(identified.max(initial=0.0))
