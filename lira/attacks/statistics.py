"""What the shadows say about every sample: counts, means and variances of its members and its non-members.

Letters: S shadows, N target samples, A queries, K classes. Side 0 are the non-members, side 1 the members."""

from functools import cached_property

import numpy as np

LOG_P_FLOOR = -690.0  # exp(-690) = 1e-300: a confidence below it counts as 1e-300, so that ratios stay finite
# A subtraction that leaves less than this share of what was there before has lost digits: sum those samples
# afresh.
LOST_SHARE = 1e-5
BLOCK = 8192  # samples summed at a time, so that sums stay in the cache and memory stays bounded


def scaled_logit(logits, label):
    """Scaled logit z_y - logsumexp over k != y of z_k: the log odds of the true class. Higher = more
    confident.

    logits: float (..., N, K), K >= 2; label: int (N,) in 0..K-1. Returns float64 (..., N).
    Exact where 1 - p_y underflows (Carlini et al. 2022, section V.C, in the stable form of their code)."""
    logits = np.asarray(logits, dtype=np.float64)
    label = np.asarray(label)
    index = np.broadcast_to(label[..., None], (*logits.shape[:-1], 1))
    # Differences first: close logits of +-500 keep all their digits.
    difference = logits - np.take_along_axis(logits, index, axis=-1)
    np.put_along_axis(difference, index, -np.inf, axis=-1)
    highest = difference.max(axis=-1)
    return -(highest + np.log(np.exp(difference - highest[..., None]).sum(axis=-1)))


def log_confidence(phi):
    """log p_y = -log(1 + exp(-phi)), in nats, without overflow. phi: float, any shape. Returns float64,
    same shape."""
    phi = np.asarray(phi, dtype=np.float64)
    return np.minimum(phi, 0.0) - np.log1p(np.exp(-np.abs(phi)))


def confidence_from_log(log_p):
    """p_y, not below 1e-300. log_p: float64, any shape, in nats."""
    return np.exp(np.maximum(log_p, LOG_P_FLOOR))


QUANTITIES = {
    "phi": lambda phi: phi,
    "log_p": log_confidence,
    "p": lambda phi: confidence_from_log(log_confidence(phi)),
}


class _Sums:
    """Sums of one quantity over the shadows kept, for both sides of every sample.

    total: float64 (2, N, A), of quantity - centre. square: the same of its square, for phi only.
    centre: float64 (2, N, A), each side's own mean, so that squares of small spreads around large means keep
    their digits; 0 for p and log_p, which never change sign and so never cancel."""

    def __init__(self, quantity, centre, total, square):
        self.quantity, self.centre, self.total, self.square = quantity, centre, total, square

    @classmethod
    def over(cls, quantity, phi, member, kept, count):
        """phi: float (S, N, A); member, kept: bool (S, N); count: int (2, N)."""
        shape = (2, *phi.shape[1:])
        total, centre = np.zeros(shape), np.zeros(shape)
        square = np.zeros(shape) if quantity == "phi" else None
        for start in range(0, shape[1], BLOCK):
            some = slice(start, start + BLOCK)
            rows = (phi[:, some], member[:, some], kept[:, some])
            if quantity == "phi":
                _add_rows(quantity, rows, centre[:, some], total[:, some])
                centre[:, some] = total[:, some] / np.maximum(count[:, some], 1)[..., None]
                total[:, some] = 0.0
                _add_rows(quantity, rows, centre[:, some], total[:, some], square[:, some])
            else:
                _add_rows(quantity, rows, centre[:, some], total[:, some])
        return cls(quantity, centre, total, square)

    def copy(self):
        square = None if self.square is None else self.square.copy()
        return _Sums(self.quantity, self.centre, self.total.copy(), square)

    def subtract(self, value, member, kept):
        """Take one shadow's scores away. value: float64 (N, A); member, kept: bool (N,)."""
        value = QUANTITIES[self.quantity](value)
        for side, weight in enumerate(_weights(member, kept)):
            residual = (value - self.centre[side]) * weight
            self.total[side] -= residual
            if self.square is not None:
                self.square[side] -= residual * residual

    def squared_residuals(self, count):
        """Sum of squared distances from the side's mean, float64 (2, N, A). count: int (2, N)."""
        correction = self.total**2 / np.maximum(count, 1)[..., None]
        return np.where(count[..., None] > 1, np.maximum(self.square - correction, 0.0), 0.0)

    def lost(self, before, count):
        """Samples whose subtraction left too few digits, bool (N,)."""
        if self.square is None:
            left, was = np.abs(self.total), np.abs(before.total)
        else:
            left, was = self.squared_residuals(count), before.square
            rounding = 1e-20 * (1.0 + self.centre**2)  # squares below it are rounding of equal values
            was = np.where(was > rounding, was, 0.0)
        return ((left < LOST_SHARE * was) & (count[..., None] > 0)).any(axis=(0, 2))

    def replace(self, index, fresh):
        """Put fresh sums in place for the samples index, int (L,)."""
        self.centre = self.centre.copy()  # shared with the sums that these were subtracted from
        self.centre[:, index] = fresh.centre
        self.total[:, index] = fresh.total
        if self.square is not None:
            self.square[:, index] = fresh.square


def _as_float(values):
    return np.asarray(values, dtype=np.float64)


def _weights(member, kept):
    """1.0 where the shadow counts for the side and 0.0 elsewhere, for both sides: float64 (N, 1) each.

    Multiplied with: NumPy's `where` stops at every change of side."""
    return [(kept & (member == bool(side))).astype(np.float64)[:, None] for side in (0, 1)]


def _add_rows(quantity, rows, centre, total, square=None):
    """Add each shadow's distances from the centres, and their squares, in place. rows: phi, member, kept."""
    for phi, member, kept in zip(*rows, strict=True):
        value = QUANTITIES[quantity](_as_float(phi))
        for side, weight in enumerate(_weights(member, kept)):
            residual = value - centre[side]
            residual *= weight
            total[side] += residual
            if square is not None:
                residual *= residual
                square[side] += residual


class Statistics:
    """What the shadows say about every sample, less the shadows that were left out.

    Made by `from_shadows`; `without` leaves shadows out. Sums are made when first asked for, and those of a
    child are its parent's less what was left out: a cost of the rows left out, not of all S.

    phi: float (S, N, A), as given (float32 stays float32; each row is turned into float64 when it is used).
    member: bool (S, N). kept: bool (S, N), True where the shadow still counts for the sample. count: int64 (2, N),
    shadows kept a side: non-members, members."""

    def __init__(self, phi, member, kept, count, parent=None, dropped=()):
        self.phi, self.member, self.kept, self.count = phi, member, kept, count
        self._parent, self._dropped, self._made = parent, dropped, {}

    @classmethod
    def from_shadows(cls, phi, member, *, kept=None):
        """phi: float (S, N) or (S, N, A), finite; member: bool (S, N); kept: bool (S, N), by default all."""
        phi, member = np.asarray(phi), np.asarray(member, dtype=bool)
        phi = phi[..., None] if phi.ndim == 2 else phi
        kept = np.ones(member.shape, dtype=bool) if kept is None else np.array(kept, dtype=bool)
        inside = np.count_nonzero(kept & member, axis=0)
        return cls(phi, member, kept, np.stack([np.count_nonzero(kept, axis=0) - inside, inside]))

    def without(self, rows):
        """The same statistics with shadows left out.

        rows: each entry either an int, a shadow left out for every sample, or an int array (N,), one shadow
        for each sample, -1 for none. A shadow that is left out already stays out."""
        kept, count, dropped = self.kept.copy(), self.count.copy(), []
        samples = np.arange(kept.shape[1])
        for row in rows:
            if np.ndim(row) == 0:
                where = kept[row].copy()
                kept[row] = False
                member = self.member[row]
            else:
                where = (row >= 0) & kept[row, samples]
                kept[row[where], samples[where]] = False
                member = self.member[row, samples]
            count -= [where & ~member, where & member]
            dropped.append((row, where))
        return Statistics(self.phi, self.member, kept, count, parent=self, dropped=tuple(dropped))

    def sums(self, quantity):
        """The sums of one quantity of QUANTITIES."""
        if quantity not in self._made:
            self._made[quantity] = self._fresh(quantity) if self._parent is None else self._updated(quantity)
        return self._made[quantity]

    def _fresh(self, quantity):
        return _Sums.over(quantity, self.phi, self.member, self.kept, self.count)

    def _updated(self, quantity):
        before = self._parent.sums(quantity)
        sums = before.copy()
        samples = np.arange(self.kept.shape[1])
        for row, where in self._dropped:
            index = row if np.ndim(row) == 0 else (row, samples)
            sums.subtract(_as_float(self.phi[index]), self.member[index], where)
        lost = np.flatnonzero(sums.lost(before, self.count))
        for start in range(0, len(lost), BLOCK):
            some = lost[start : start + BLOCK]
            arrays = (self.phi[:, some], self.member[:, some], self.kept[:, some], self.count[:, some])
            sums.replace(some, _Sums.over(quantity, *arrays))
        return sums

    def mean(self, quantity):
        """Mean of a quantity, float64 (2, N, A): non-members, members; NaN where a side is empty."""
        sums, count = self.sums(quantity), self.count[..., None]
        return np.where(count > 0, sums.centre + sums.total / np.maximum(count, 1), np.nan)

    @cached_property
    def squares(self):
        """Sum of squared residuals of phi, float64 (2, N, A)."""
        return self.sums("phi").squared_residuals(self.count)

    @cached_property
    def _mean_phi(self):
        return self.mean("phi")

    @cached_property
    def _variance_phi(self):
        return self.squares / np.maximum(self.count - 1, 1)[..., None]

    n_out = property(lambda self: self.count[0], doc="Non-member shadows of each sample, int64 (N,).")
    n_in = property(lambda self: self.count[1], doc="Member shadows of each sample, int64 (N,).")
    mean_out = property(lambda self: self._mean_phi[0], doc="Mean phi of non-members, float64 (N, A).")
    mean_in = property(lambda self: self._mean_phi[1], doc="Mean phi of members, float64 (N, A).")
    var_out = property(
        lambda self: self._variance_phi[0], doc="Variance (n - 1) of phi of non-members, (N, A); 0 for n = 1."
    )
    var_in = property(
        lambda self: self._variance_phi[1], doc="Variance (n - 1) of phi of members, (N, A); 0 for n = 1."
    )
