"""How the members were drawn over all models, and which shadows must be held out because of it.

What would reveal a held-out shadow's membership is held out with it: its complementary partner or, where every sample
is in nearly equally many models, random balancing shadows. Otherwise the number of members among the remaining shadows
would reveal whether the sample was in the held-out shadow's training set.

Letters: M models, S shadows, N target samples, G models scored together, U models without a partner."""

from collections.abc import Sequence

import numpy as np

BLOCK = 65536  # samples for which random numbers are drawn at a time
SIGNIFICANT = 4.0  # standard errors below the variance or correlation of independent draws

HeldOut = Sequence[int | np.ndarray]  # shadows, as `Statistics.without` takes them: for all samples, or one per sample


def partners(member: np.ndarray) -> np.ndarray:
    """Row of each model's complementary partner, int64 (M,), -1 where it has none. member: bool (M, N)."""
    member = np.asarray(member, dtype=bool)
    rows, complements = np.packbits(member, axis=1), np.packbits(~member, axis=1)
    partner = np.full(len(rows), -1, dtype=np.int64)
    unpaired: dict[bytes, list[int]] = {}
    for row in range(len(rows)):
        candidates = unpaired.get(complements[row].tobytes())
        if candidates:
            other = candidates.pop(0)
            partner[row], partner[other] = other, row
        else:
            unpaired.setdefault(rows[row].tobytes(), []).append(row)
    return partner


class MembershipDesign:
    """The members of all models, and the shadows that are held out with a target or with another shadow.

    Counts are those of models without a partner: complementary pairs add the same to every sample's. Where counts vary
    far less over samples than those of independent draws, as when each sample is in half of the models, give or take a
    lost model, the count of the others reveals a model's membership, and balancing shadows are held out with it.

    member: bool (M, N), rows 0..n_targets-1 the targets. Shadows are counted from 0. seed: of the balancing shadows.
    shadows: those in use, None for all."""

    def __init__(self, member: np.ndarray, n_targets: int, *, seed: int, shadows: Sequence[int] | None = None) -> None:
        member = np.asarray(member, dtype=bool)
        self.targets, self.shadows, self.seed = member[:n_targets], member[n_targets:], seed
        partner = partners(member) - n_targets  # below 0: none, or a target
        self._target_partner, self._shadow_partner = partner[:n_targets], partner[n_targets:]
        unpaired = self._shadow_partner < 0
        counts = self.shadows[unpaired].sum(axis=0), self.targets[self._target_partner < 0].sum(axis=0)
        self._shadows_depend = _vary_less_than_independent(self.shadows[unpaired])
        self._targets_depend = _correlation(*counts) < max(-SIGNIFICANT / np.sqrt(member.shape[1]), -0.9)
        self._candidates = unpaired  # for balancing, bool (S,)
        if shadows is not None:
            self._candidates = unpaired & np.isin(np.arange(len(unpaired)), shadows)

    @property
    def independent(self) -> bool:
        """Whether each target's members look drawn independently of the other models'.

        False where the targets' counts and the shadows', or the targets' alone, add up to nearly the same number for
        every sample: the other rows then reveal who is a member, and a bound that takes the inclusion of each sample as
        a coin of its own is not valid. A target whose complement is a shadow is independent: that shadow is held out.
        """
        return not (self._targets_depend or _vary_less_than_independent(self.targets))

    def pairs(self) -> list[tuple[int, ...]]:
        """Shadows that are held out together: complementary pairs, and (j,) for a shadow without a partner."""
        pairs = [(row, int(other)) for row, other in enumerate(self._shadow_partner)]
        return [(row, other) if other >= 0 else (row,) for row, other in pairs if other < 0 or row < other]

    def held_out_for_targets(self) -> list[int | np.ndarray]:
        """Held out before any target is scored: the targets' partners and, where it takes them, balancing shadows."""
        held_out: list[int | np.ndarray] = [int(row) for row in self._target_partner if row >= 0]
        if self._targets_depend:
            held_out += self._balancing_shadows(self.targets[self._target_partner < 0], held_out, (0, 0))
        return held_out

    def held_out_with(self, pair: tuple[int, ...], held_out: HeldOut) -> list[int | np.ndarray]:
        """Held out, besides `held_out`, while the shadows of a pair are scored as the target."""
        rows: list[int | np.ndarray] = list(pair)
        if len(pair) == 1 and self._shadows_depend:
            is_held_out = np.zeros(self.shadows.shape[1], dtype=bool)  # for these samples the shadow is not scored
            for row in held_out:
                is_held_out |= row == pair[0]
            rows += self._balancing_shadows(
                self.shadows[list(pair)], [*held_out, *rows], (1, pair[0]), scored=~is_held_out
            )
        return rows

    def _balancing_shadows(
        self, member: np.ndarray, held_out: HeldOut, key: tuple[int, int], scored: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Random shadows, int64 (N,) each, -1 for none, without which the counts left reveal nothing of `member`.

        Samples are grouped by how many of the G models scored have them as members. Group by group, a sample is matched
        with those at its quantile of the number of members among the shadows left; all of them are left with the lowest
        of these numbers and with the lowest number of non-members, so that both are distributed equally in all groups.
        At least G shadows are held out for each sample, where so many are left.

        member: bool (G, N), of the models that are scored together. key: of the random draw. scored: bool (N,), the
        samples at which they are; elsewhere, where a shadow that is scored was held out before, one of each side."""
        generator = np.random.default_rng((self.seed, *key, len(held_out)))
        scored = np.ones(member.shape[1], dtype=bool) if scored is None else scored
        available = np.repeat(self._candidates[:, None], member.shape[1], axis=1)
        for row in held_out:
            if isinstance(row, np.ndarray):
                available[row[row >= 0], np.flatnonzero(row >= 0)] = False
            else:
                available[row] = False
        n_members = (available & self.shadows).sum(axis=0)
        surplus = np.ones((3, member.shape[1]), dtype=np.int64)  # to hold out: non-members, members, of either side
        surplus[2] = 0
        lowest, highest = _matched_range(n_members[scored], member[:, scored].sum(axis=0), generator)
        surplus[:2, scored] = highest - n_members[scored], n_members[scored] - lowest
        surplus[2, scored] = np.maximum(len(member) - (highest - lowest), 0)
        last = surplus.cumsum(axis=0)
        balancing = []
        for step in range(last[-1].max(initial=0)):
            samples = np.flatnonzero(last[-1] > step)
            balancing.append(np.full(member.shape[1], -1, dtype=np.int64))
            for start in range(0, len(samples), BLOCK):
                block = samples[start : start + BLOCK]
                side = (last[:, block] <= step).sum(axis=0)  # 2: either
                eligible = available[:, block] & ((side == 2) | (self.shadows[:, block] == side))
                draw = np.where(eligible, generator.random(eligible.shape, dtype=np.float32), -1.0)
                drawn = draw.argmax(axis=0)
                any_left = eligible[drawn, np.arange(len(block))]
                balancing[-1][block[any_left]] = drawn[any_left]
                available[drawn[any_left], block[any_left]] = False
        return balancing


def _vary_less_than_independent(member: np.ndarray) -> bool:
    """Whether the counts of members vary far less over samples than those of independent rows. member: bool (U, N).

    The variance of independent rows is the sum of p (1 - p), p the share of members of each row; that of its estimate
    from N samples follows from the excess kurtosis."""
    if len(member) < 2:
        return False
    variances = (share := member.mean(axis=1)) * (1 - share)
    independent = variances.sum()
    kurtosis = np.sum(variances * (1 - 6 * variances)) / max(independent**2, 1e-300)
    error = np.sqrt(max(2 + kurtosis, 0.0) / member.shape[1])
    return bool(member.sum(axis=0).var() < independent * max(1 - SIGNIFICANT * error, 0.1))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """0 where one of them is constant. first, second: int (N,)."""
    return 0.0 if not np.ptp(first) or not np.ptp(second) else float(np.corrcoef(first, second)[0, 1])


def _matched_range(values: np.ndarray, group: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(lowest, highest) of the values at the same quantile of every group, int (n,) each: distributed equally in all
    groups. Ties have a random order. values, group: int (n,)."""
    order = np.lexsort((generator.random(len(values)), values))
    groups = [order[group[order] == number] for number in np.unique(group)]
    lowest, highest = values.copy(), values.copy()
    for members in groups:
        quantile = (np.arange(len(members)) + generator.random(len(members))) / len(members)
        for others in groups:
            if others is not members:
                matched = values[others[np.minimum(quantile * len(others), len(others) - 1).astype(np.int64)]]
                lowest[members] = np.minimum(lowest[members], matched)
                highest[members] = np.maximum(highest[members], matched)
    return lowest, highest
