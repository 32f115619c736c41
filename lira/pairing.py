"""Who steps aside when a model plays the target, so that the count of members left gives nothing away.

Shadows in complementary pairs leave together. Without pairs, where every sample has the same count of
members over all models, one random shadow of the opposite side is left out for each sample. Where the
counts vary (independent draws), they say nothing about one model, and it leaves alone."""

from __future__ import annotations

import numpy as np

BLOCK = 65536  # samples for which random numbers are drawn at a time


def partners(member):
    """Row of each model's complementary partner, int64 (M,), -1 where it has none. member: bool (M, N)."""
    packed = np.packbits(np.asarray(member, dtype=bool), axis=1)
    opposite = np.packbits(~np.asarray(member, dtype=bool), axis=1)
    partner = np.full(len(packed), -1, dtype=np.int64)
    waiting: dict[bytes, list[int]] = {}
    for row in range(len(packed)):
        same = waiting.get(opposite[row].tobytes())
        if same:
            other = same.pop(0)
            partner[row], partner[other] = other, row
        else:
            waiting.setdefault(packed[row].tobytes(), []).append(row)
    return partner


class Design:
    """How the members were drawn over all models, and what follows for leaving models out.

    member: bool (M, N), rows 0..n_targets-1 the targets; the rows of `groups` and of what `aside` gives
    count the shadows from 0. seed: of the random shadows left out."""

    def __init__(self, member, n_targets, *, seed=0):
        member = np.asarray(member, dtype=bool)
        self.shadows, self.targets, self.seed = member[n_targets:], member[:n_targets], seed
        partner = partners(member)
        self._target_partner = partner[:n_targets] - n_targets  # below 0: none, or another target
        own = partner[n_targets:] - n_targets
        self.partner = np.where(own >= 0, own, -1)
        counts, shadow_counts = member.sum(axis=0), self.shadows.sum(axis=0)
        self._equal_shadows = bool(np.all(shadow_counts == shadow_counts[0]))
        self._equal_models = bool(np.all(counts == counts[0])) and not self._equal_shadows

    def groups(self):
        """Shadows that leave together, list of tuples: pairs (j, partner), or (j,) alone."""
        pairs = [(row, int(other)) for row, other in enumerate(self.partner)]
        return [(row, other) if other >= 0 else (row,) for row, other in pairs if other < 0 or row < other]

    def aside_for_targets(self):
        """Left out before any target is scored: a target's own partner, or its random opposites.

        Returns a list for `Statistics.without`."""
        aside = [int(row) for row in self._target_partner if row >= 0]
        if self._equal_models:
            for target in np.flatnonzero(self._target_partner < 0):
                aside.append(self._opposite(self.targets[target], aside, (0, int(target))))
        return aside

    def aside(self, group, already=()):
        """Left out while the shadows of a group play the target, besides `already` (which it may not
        repeat). A sample for which the player is left out already has equal sides, and needs no opposite."""
        rows = list(group)
        if len(group) == 1 and (self._equal_shadows or self._equal_models):
            opposite = self._opposite(self.shadows[group[0]], [*already, *rows], (1, group[0]))
            for row in already:
                opposite[np.broadcast_to(row == group[0], opposite.shape)] = -1
            rows.append(opposite)
        return rows

    def _opposite(self, own, aside, key):
        """One random shadow of the other side for each sample, int64 (N,), -1 where none is left.

        own: bool (N,), the membership of the model that plays the target; aside: what is left out already."""
        generator = np.random.default_rng((self.seed, *key, len(aside)))
        chosen = np.empty(len(own), dtype=np.int64)
        for start in range(0, len(own), BLOCK):
            stop = min(start + BLOCK, len(own))
            free = self.shadows[:, start:stop] != own[start:stop]
            for row in aside:
                if np.ndim(row) == 0:
                    free[row] = False
                else:
                    some = row[start:stop]
                    free[some[some >= 0], np.flatnonzero(some >= 0)] = False
            lot = generator.random(free.shape, dtype=np.float32)
            lot[~free] = -1.0
            best = lot.argmax(axis=0)
            chosen[start:stop] = np.where(free[best, np.arange(stop - start)], best, -1)
        return chosen
