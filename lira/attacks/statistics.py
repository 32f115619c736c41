"""Statistics of the shadows' scores for every sample: counts, means and variances of its members and its non-members.

Letters: S shadows, N target samples, A queries, K classes. Side 0: non-members, side 1: members."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

# score(phi, log_p), what every fit_* returns. phi, log_p: float64 (..., N, A), of the models under attack. Returns
# float64 (..., N, A), higher = member; NaN where the shadows lack a side that the attack needs.
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

LOG_P_FLOOR = -690.0  # exp(-690) = 1e-300: a confidence below it counts as 1e-300, so that ratios stay finite
# A subtraction that leaves less than this share of the sum has lost digits: those samples are summed again.
CANCELLATION = 1e-5
BLOCK = 8192  # samples summed at a time, so that sums stay in the cache and memory stays bounded


def scaled_logit(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Scaled logit z_y - logsumexp over k != y of z_k: the log odds of the true class. Higher = more confident.

    logits: float (..., N, K), K >= 2; label: int (N,) in 0..K-1. Returns float64 (..., N).
    Exact where 1 - p_y underflows (Carlini et al. 2022, section V.C, in the stable form of their code)."""
    logits = np.asarray(logits, dtype=np.float64)
    label = np.asarray(label)
    index = np.broadcast_to(label[..., None], (*logits.shape[:-1], 1))
    # Differences first: close logits of +-500 keep all their digits.
    difference = logits - np.take_along_axis(logits, index, axis=-1)
    np.put_along_axis(difference, index, -np.inf, axis=-1)
    largest = difference.max(axis=-1)
    return -(largest + np.log(np.exp(difference - largest[..., None]).sum(axis=-1)))


def log_confidence(phi: np.ndarray) -> np.ndarray:
    """log p_y = -log(1 + exp(-phi)), in nats, without overflow. phi: float, any shape. Returns float64, same shape."""
    phi = np.asarray(phi, dtype=np.float64)
    return np.minimum(phi, 0.0) - np.log1p(np.exp(-np.abs(phi)))


def confidence_from_log(log_p: np.ndarray) -> np.ndarray:
    """p_y, not below 1e-300. log_p: float64, any shape, in nats."""
    return np.exp(np.maximum(log_p, LOG_P_FLOOR))


QUANTITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "phi": lambda phi: phi,
    "log_p": log_confidence,
    "p": lambda phi: confidence_from_log(log_confidence(phi)),
}


@dataclass
class _Sums:
    """Sums of one quantity over the included shadows, for both sides of every sample.

    total: float64 (2, N, A), of quantity - centre. square: the same of its square, for phi only.
    centre: float64 (2, N, A), each side's own mean, so that squares of small deviations from large means keep their
    digits; 0 for p and log_p, which never change sign and so never cancel."""

    quantity: str
    centre: np.ndarray
    total: np.ndarray
    square: np.ndarray | None

    @classmethod
    def compute(
        cls, quantity: str, phi: np.ndarray, member: np.ndarray, included: np.ndarray, count: np.ndarray
    ) -> "_Sums":
        """phi: float (S, N, A); member, included: bool (S, N); count: int (2, N)."""
        shape = (2, *phi.shape[1:])
        total, centre = np.zeros(shape), np.zeros(shape)
        square = np.zeros(shape) if quantity == "phi" else None
        for start in range(0, shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            shadows = (phi[:, block], member[:, block], included[:, block])
            _add_shadows(quantity, shadows, centre[:, block], total[:, block])
            if square is not None:
                centre[:, block] = total[:, block] / np.maximum(count[:, block], 1)[..., None]
                total[:, block] = 0.0
                _add_shadows(quantity, shadows, centre[:, block], total[:, block], square[:, block])
        return cls(quantity, centre, total, square)

    def copy(self) -> "_Sums":
        """A copy to subtract from; the centre is shared."""
        return replace(self, total=self.total.copy(), square=None if self.square is None else self.square.copy())

    def subtract(self, phi: np.ndarray, member: np.ndarray, included: np.ndarray) -> None:
        """Subtract one shadow. phi: float64 (N, A); member, included: bool (N,)."""
        value = QUANTITIES[self.quantity](phi)
        for side, weight in enumerate(_side_weights(member, included)):
            residual = (value - self.centre[side]) * weight
            self.total[side] -= residual
            if self.square is not None:
                self.square[side] -= residual * residual

    def squared_residuals(self, count: np.ndarray) -> np.ndarray:
        """Sum of squared distances from the side's mean, float64 (2, N, A). count: int (2, N)."""
        assert self.square is not None, f"no squares are summed for {self.quantity}"
        correction = self.total**2 / np.maximum(count, 1)[..., None]
        return np.where(count[..., None] > 1, np.maximum(self.square - correction, 0.0), 0.0)

    def cancelled(self, before: "_Sums", count: np.ndarray) -> np.ndarray:
        """Samples whose sums lost too many digits since `before`, bool (N,). count: int (2, N), after subtraction."""
        if before.square is None:
            remaining, previous = np.abs(self.total), np.abs(before.total)
        else:
            remaining = self.squared_residuals(count)
            rounding_error = 1e-20 * (1.0 + self.centre**2)  # smaller squares are rounding errors of equal values
            previous = np.where(before.square > rounding_error, before.square, 0.0)
        return ((remaining < CANCELLATION * previous) & (count[..., None] > 0)).any(axis=(0, 2))

    def replace_samples(self, index: np.ndarray, recomputed: "_Sums") -> None:
        """Overwrite the sums of the samples index, int (L,)."""
        self.centre = self.centre.copy()  # shared with the sums that these were subtracted from
        self.centre[:, index] = recomputed.centre
        self.total[:, index] = recomputed.total
        if self.square is not None and recomputed.square is not None:
            self.square[:, index] = recomputed.square


def _side_weights(member: np.ndarray, included: np.ndarray) -> list[np.ndarray]:
    """1.0 where the shadow counts for the side and 0.0 elsewhere, for both sides: float64 (N, 1) each.

    Multiplying by a weight is faster than NumPy's `where`, which is slowed by every change of side."""
    return [(included & (member == bool(side))).astype(np.float64)[:, None] for side in (0, 1)]


def _add_shadows(
    quantity: str,
    shadows: tuple[np.ndarray, np.ndarray, np.ndarray],
    centre: np.ndarray,
    total: np.ndarray,
    square: np.ndarray | None = None,
) -> None:
    """Add each shadow's distance from the centre to total, and its square to square, in place.

    shadows: phi (S, n, A), member (S, n), included (S, n)."""
    for phi, member, included in zip(*shadows, strict=True):
        value = QUANTITIES[quantity](np.asarray(phi, dtype=np.float64))
        for side, weight in enumerate(_side_weights(member, included)):
            residual = value - centre[side]
            residual *= weight
            total[side] += residual
            if square is not None:
                square[side] += np.multiply(residual, residual, out=residual)


class Statistics:
    """Counts, means and variances of the shadows' scores for every sample, without the shadows that are left out.

    Made by `from_shadows`; `without` leaves shadows out. Sums are computed on first use. After `without` they are the
    parent's minus the scores left out, which costs as much as those scores, not as all S.

    phi: float (S, N, A), as given (float32 stays float32; each row is converted to float64 where it is used).
    member: bool (S, N). included: bool (S, N), False where a shadow is left out for a sample. count: int64 (2, N),
    included shadows per side: non-members, members."""

    def __init__(
        self,
        phi: np.ndarray,
        member: np.ndarray,
        included: np.ndarray,
        count: np.ndarray,
        parent: "Statistics | None" = None,
        left_out: Sequence[tuple[int | np.ndarray, np.ndarray]] = (),
    ):
        self.phi, self.member, self.included, self.count = phi, member, included, count
        self._parent, self._left_out = parent, left_out
        self._sums: dict[str, _Sums] = {}

    @classmethod
    def from_shadows(cls, phi: np.ndarray, member: np.ndarray, *, included: np.ndarray | None = None) -> "Statistics":
        """phi: float (S, N) or (S, N, A), finite; member: bool (S, N); included: bool (S, N), by default all."""
        phi, member = np.asarray(phi), np.asarray(member, dtype=bool)
        phi = phi[..., None] if phi.ndim == 2 else phi
        included = np.ones(member.shape, dtype=bool) if included is None else np.array(included, dtype=bool)
        n_in = np.count_nonzero(included & member, axis=0)
        return cls(phi, member, included, np.stack([np.count_nonzero(included, axis=0) - n_in, n_in]))

    def without(self, shadows: Sequence[int | np.ndarray]) -> "Statistics":
        """The same statistics with shadows left out.

        shadows: each entry either an int, a shadow left out for every sample, or an int array (N,), one shadow per
        sample, -1 for none. Leaving out a shadow that is left out already changes nothing."""
        included, count, left_out = self.included.copy(), self.count.copy(), []
        samples = np.arange(included.shape[1])
        for shadow in shadows:
            if isinstance(shadow, (int, np.integer)):
                removed = included[shadow].copy()
                included[shadow] = False
                member = self.member[shadow]
            else:
                removed = (shadow >= 0) & included[shadow, samples]
                included[shadow[removed], samples[removed]] = False
                member = self.member[shadow, samples]
            count -= [removed & ~member, removed & member]
            left_out.append((shadow, removed))
        return Statistics(self.phi, self.member, included, count, parent=self, left_out=left_out)

    def take(self, samples: np.ndarray) -> "Statistics":
        """The statistics of these samples, int (n,)."""
        return Statistics(
            self.phi[:, samples], self.member[:, samples], self.included[:, samples], self.count[:, samples]
        )

    def sums(self, quantity: str) -> _Sums:
        """The sums of one of QUANTITIES."""
        if quantity not in self._sums:
            arrays = (self.phi, self.member, self.included, self.count)
            self._sums[quantity] = (
                _Sums.compute(quantity, *arrays) if self._parent is None else self._subtracted(self._parent, quantity)
            )
        return self._sums[quantity]

    def _subtracted(self, parent: "Statistics", quantity: str) -> _Sums:
        before = parent.sums(quantity)
        sums = before.copy()
        samples = np.arange(self.included.shape[1])
        for shadow, removed in self._left_out:
            index = shadow if np.ndim(shadow) == 0 else (shadow, samples)
            sums.subtract(np.asarray(self.phi[index], dtype=np.float64), self.member[index], removed)
        cancelled = np.flatnonzero(sums.cancelled(before, self.count))
        for start in range(0, len(cancelled), BLOCK):
            block = cancelled[start : start + BLOCK]
            arrays = (self.phi[:, block], self.member[:, block], self.included[:, block], self.count[:, block])
            sums.replace_samples(block, _Sums.compute(quantity, *arrays))
        return sums

    def mean(self, quantity: str) -> np.ndarray:
        """Mean of one of QUANTITIES, float64 (2, N, A): non-members, members; NaN where a side is empty."""
        sums, count = self.sums(quantity), self.count[..., None]
        return np.where(count > 0, sums.centre + sums.total / np.maximum(count, 1), np.nan)

    @cached_property
    def squared_residuals(self) -> np.ndarray:
        """Sum of squared residuals of phi, float64 (2, N, A)."""
        return self.sums("phi").squared_residuals(self.count)

    @cached_property
    def _mean_phi(self) -> np.ndarray:
        return self.mean("phi")

    @cached_property
    def _variance_phi(self) -> np.ndarray:
        return self.squared_residuals / np.maximum(self.count - 1, 1)[..., None]

    mean_out = property(lambda self: self._mean_phi[0], doc="Mean phi of non-members, float64 (N, A).")
    mean_in = property(lambda self: self._mean_phi[1], doc="Mean phi of members, float64 (N, A).")
    var_out = property(lambda self: self._variance_phi[0], doc="Variance (n - 1) of their phi, (N, A); 0 for n = 1.")
    var_in = property(lambda self: self._variance_phi[1], doc="Variance (n - 1) of their phi, (N, A); 0 for n = 1.")
