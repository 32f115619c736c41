"""One set of shadows plays the attacks against models: thresholds and training from held-out shadows, then
scores."""

from dataclasses import dataclass

import numpy as np

from lira.attacks import learned
from lira.attacks.inputs import MIN_SHADOWS
from lira.attacks.metrics import auc, best_threshold
from lira.attacks.registry import ATTACKS, select_attacks
from lira.attacks.statistics import Statistics, log_confidence
from lira.privacy.audit import HeldOutCounts, count_held_out

BLOCK = 65536  # samples for which random numbers are drawn at a time
# Enough held-out scores for a threshold: more shadows than these (and more scores than these) move it by
# less than its own noise, and the cost of every attack would grow with them.
MAX_PLAYERS = 32
MAX_LEFT_OUT_SCORES = 2_000_000


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model.

    target: row into phi. score: float64 (N,), higher = member, NaN = this sample cannot be scored.
    threshold: guess member where score >= threshold; the most accurate cut on the shadows' own held-out
    scores, NaN where there are none. held_out_auc: mean AUC of those held-out scores, the target's truth
    unused. shadows: how many the score was made with. tally: those held-out scores counted at candidate cut-offs, for
    the audit; None where there are none."""

    attack: str
    target: int
    score: np.ndarray
    threshold: float
    held_out_auc: float
    shadows: int
    tally: HeldOutCounts | None = None


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


class MembershipDesign:
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


class Attacker:
    """What one call attacks with: the shadows' statistics, how their members were drawn, the attacks asked
    for.

    phi: float (M, N, A) and member: bool (M, N), checked. shadows: rows that serve as shadows, by default
    all from n_targets on."""

    def __init__(self, phi, member, n_targets, attacks, options, shadows=None):
        self.phi, self.member, self.n_targets, self.options = phi, member, n_targets, options
        self.design = MembershipDesign(self.member, n_targets, seed=options.seed)
        self.aside = self.design.aside_for_targets()
        kept = np.ones(self.member[n_targets:].shape, dtype=bool)
        if shadows is not None:
            kept[np.setdiff1d(np.arange(len(kept)), np.asarray(shadows) - n_targets)] = False
        all_shadows = Statistics.from_shadows(self.phi[n_targets:], self.member[n_targets:], kept=kept)
        self.statistics = all_shadows.without(self.aside)
        self.names = select_attacks(attacks, int(kept.any(axis=1).sum()))
        self.formulas = [name for name in self.names if ATTACKS[name].fit]
        if "learned" in self.names:
            self.formulas += [name for name in learned.FEATURE_ATTACKS if name not in self.formulas]

    def groups(self, statistics):
        """Groups of shadows that still count in these statistics."""
        return [group for group in self.design.groups() if all(statistics.kept[row].any() for row in group)]

    def play(self, statistics, rows, *, aside=None, progress=None):
        """Attack models, rows of phi, with these statistics; thresholds from the shadows that they hold."""
        rows = list(rows)
        held_out, examples = self._held_out(statistics, self.aside if aside is None else aside, progress)
        scores, values = self._scores(statistics, rows)
        if "learned" in self.names:
            for score, truth in learned.held_out_scores(examples, self.options.seed):
                held_out["learned"].add(score, truth)
            numbers = range(len(examples.groups))
            model = learned.train(*examples.of(numbers), seed=self.options.seed)
            scores["learned"] = np.stack([model(asked) for asked in values])
        cuts = {name: held_out[name].cut() for name in self.names}
        tallies = {name: held_out[name].count_held_out() for name in self.names}
        shadows = int(statistics.kept.any(axis=1).sum())
        return [
            AttackResult(name, row, scores[name][place], *cuts[name], shadows, tallies[name])
            for place, row in enumerate(rows)
            for name in self.names
        ]

    def _held_out(self, statistics, aside, progress):
        """(dict of _HeldOut, Examples): shadow after shadow plays the target.

        The statistics behind the examples of `learned` leave out the player's pair, not also that of the shadow which
        its held-out score is for: the score's training examples know that shadow as one of many, never its truth as a
        label."""
        groups = _spread(self.groups(statistics), self.member.shape[1])
        held_out = {name: _HeldOut() for name in self.names}
        examples = learned.Examples(sum(map(len, groups)), self.options.seed)
        for done, group in enumerate(groups):
            nested = statistics.without(self.design.aside(group, aside))
            scores, values = self._scores(nested, [self.n_targets + player for player in group])
            examples.new_group()
            for place, player in enumerate(group):
                # Where a target without a partner set the player aside, its score is not used either.
                usable = statistics.kept[player]
                truth = self.member[self.n_targets + player][usable]
                for name in self.formulas:
                    if name in held_out:
                        held_out[name].add(scores[name][place][usable], truth)
                if values is not None:
                    examples.add(values[place][usable], truth)
            if progress:
                progress(done + 1, len(groups))
        return held_out, examples

    def _scores(self, statistics, rows):
        """(dict of scores (R, N) of the models `rows` of phi, features (R, N, F) of `learned` or None)."""
        phi = np.asarray(self.phi[list(rows)], dtype=np.float64)
        log_p = log_confidence(phi)
        scores = {}
        for name in self.formulas:
            score = ATTACKS[name].load(self.options.convention)(statistics, self.options)
            scores[name] = score(phi, log_p).mean(axis=-1)
        return scores, learned.features(statistics, phi, scores) if "learned" in self.names else None


class _HeldOut:
    """The held-out scores of the shadows that played the target for one attack."""

    def __init__(self):
        self.scores, self.truths, self.aucs = [], [], []

    def add(self, score, truth):
        self.scores.append(score)
        self.truths.append(truth)
        self.aucs.append(auc(score, truth))

    def cut(self):
        """(threshold, strength)."""
        known = [value for value in self.aucs if not np.isnan(value)]
        if not known:
            return np.nan, np.nan
        threshold = best_threshold(np.concatenate(self.scores), np.concatenate(self.truths))
        return threshold, float(np.mean(known))

    def count_held_out(self):
        return count_held_out(self.scores, self.truths) if self.scores else None


def _spread(groups, n_samples):
    """At most MAX_PLAYERS shadows' worth of groups, evenly spread, fewer where the samples are many."""
    players = int(np.clip(MAX_LEFT_OUT_SCORES // n_samples, MIN_SHADOWS, MAX_PLAYERS))
    most = max(1, players // max(len(group) for group in groups)) if groups else 0
    if len(groups) <= most:
        return groups
    return [groups[index] for index in np.linspace(0, len(groups) - 1, most).round().astype(int)]
