"""One set of shadows plays the attacks against models: thresholds and training from left-out shadows, then
scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import learned
from .audit import Tally, tally
from .metrics import auc, best_threshold
from .moments import Statistics, log_confidence
from .official import OFFICIAL
from .pairing import Design
from .table import ATTACKS, FEWEST_SHADOWS, chosen

# Enough left-out scores for a threshold: more shadows than these (and more scores than these) move it by
# less than its own noise, and the cost of every attack would grow with them.
MOST_PLAYERS = 32
MOST_LEFT_OUT_SCORES = 2_000_000


@dataclass(frozen=True)
class Scored:
    """One attack on one model.

    target: row into phi. score: float64 (N,), higher = member, NaN = this sample cannot be scored.
    threshold: guess member where score >= threshold; the most accurate cut on the shadows' own left-out
    scores, NaN where there are none. strength: mean AUC of those left-out scores, the target's truth
    unused. shadows: how many the score was made with. tally: those left-out scores counted at candidate cut-offs, for
    the audit; None where there are none."""

    attack: str
    target: int
    score: np.ndarray
    threshold: float
    strength: float
    shadows: int
    tally: Tally | None = None


class Bench:
    """What one call attacks with: the shadows' statistics, how their members were drawn, the attacks asked
    for.

    phi: float (M, N, A) and member: bool (M, N), checked. shadows: rows that serve as shadows, by default
    all from n_targets on."""

    def __init__(self, phi, member, n_targets, attacks, options, shadows=None):
        self.phi, self.member, self.n_targets, self.options = phi, member, n_targets, options
        self.design = Design(self.member, n_targets, seed=options.seed)
        self.aside = self.design.aside_for_targets()
        kept = np.ones(self.member[n_targets:].shape, dtype=bool)
        if shadows is not None:
            kept[np.setdiff1d(np.arange(len(kept)), np.asarray(shadows) - n_targets)] = False
        all_shadows = Statistics.from_shadows(self.phi[n_targets:], self.member[n_targets:], kept=kept)
        self.statistics = all_shadows.without(self.aside)
        self.names = chosen(attacks, int(kept.any(axis=1).sum()))
        self.formulas = [name for name in self.names if ATTACKS[name].fit]
        if "learned" in self.names:
            self.formulas += [name for name in learned.FEATURE_ATTACKS if name not in self.formulas]

    def groups(self, statistics):
        """Groups of shadows that still count in these statistics."""
        return [group for group in self.design.groups() if all(statistics.kept[row].any() for row in group)]

    def play(self, statistics, rows, *, aside=None, progress=None):
        """Attack models, rows of phi, with these statistics; thresholds from the shadows that they hold."""
        rows = list(rows)
        left_out, examples = self._left_out(statistics, self.aside if aside is None else aside, progress)
        scores, values = self._scores(statistics, rows)
        if "learned" in self.names:
            for score, truth in learned.left_out_scores(examples, self.options.seed):
                left_out["learned"].add(score, truth)
            numbers = range(len(examples.groups))
            model = learned.train(*examples.of(numbers), seed=self.options.seed)
            scores["learned"] = np.stack([model(asked) for asked in values])
        cuts = {name: left_out[name].cut() for name in self.names}
        tallies = {name: left_out[name].tally() for name in self.names}
        shadows = int(statistics.kept.any(axis=1).sum())
        return [
            Scored(name, row, scores[name][place], *cuts[name], shadows, tallies[name])
            for place, row in enumerate(rows)
            for name in self.names
        ]

    def _left_out(self, statistics, aside, progress):
        """(dict of _LeftOut, Examples): shadow after shadow plays the target.

        The statistics behind the examples of `learned` leave out the player's pair, not also that of the shadow which
        its left-out score is for: the score's training examples know that shadow as one of many, never its truth as a
        label."""
        groups = _spread(self.groups(statistics), self.member.shape[1])
        left_out = {name: _LeftOut() for name in self.names}
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
                    if name in left_out:
                        left_out[name].add(scores[name][place][usable], truth)
                if values is not None:
                    examples.add(values[place][usable], truth)
            if progress:
                progress(done + 1, len(groups))
        return left_out, examples

    def _scores(self, statistics, rows):
        """(dict of scores (R, N) of the models `rows` of phi, features (R, N, F) of `learned` or None)."""
        phi = np.asarray(self.phi[list(rows)], dtype=np.float64)
        log_p = log_confidence(phi)
        official = OFFICIAL if self.options.convention == "official" else {}
        scores = {}
        for name in self.formulas:
            score = official.get(name, ATTACKS[name].fit)(statistics, self.options)
            scores[name] = score(phi, log_p).mean(axis=-1)
        return scores, learned.features(statistics, phi, scores) if "learned" in self.names else None


class _LeftOut:
    """The left-out scores of the shadows that played the target for one attack."""

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

    def tally(self):
        return tally(self.scores, self.truths) if self.scores else None


def _spread(groups, n_samples):
    """At most MOST_PLAYERS shadows' worth of groups, evenly spread, fewer where the samples are many."""
    players = int(np.clip(MOST_LEFT_OUT_SCORES // n_samples, FEWEST_SHADOWS, MOST_PLAYERS))
    most = max(1, players // max(len(group) for group in groups)) if groups else 0
    if len(groups) <= most:
        return groups
    return [groups[index] for index in np.linspace(0, len(groups) - 1, most).round().astype(int)]
