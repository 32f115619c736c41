"""Score models against the shadows. Thresholds come from held-out shadows: each in turn is scored as the target.

What would reveal a held-out shadow's membership is held out with it: its complementary partner or, where every sample
is in equally many models, one random balancing shadow of the other side per sample. Otherwise the number of members
among the remaining shadows would reveal whether the sample was in the held-out shadow's training set.

Letters: M models, S shadows, N target samples, A queries, R models scored together, F features of `learned`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lira.attacks import learned
from lira.attacks.inputs import AttackOptions
from lira.attacks.metrics import auc, best_threshold
from lira.attacks.registry import ATTACKS, MIN_SHADOWS, select_attacks
from lira.attacks.statistics import Statistics, log_confidence
from lira.privacy.audit import HeldOutCounts, count_held_out

BLOCK = 65536  # samples for which random numbers are drawn at a time
# Enough held-out scores for a threshold: more of them would change it by less than its sampling error, and cost time.
MAX_HELD_OUT_SHADOWS = 32
MAX_HELD_OUT_SCORES = 2_000_000

HeldOut = Sequence[int | np.ndarray]  # shadows, as `Statistics.without` takes them: for all samples, or one per sample
Names = Sequence[str] | None  # of attacks; None: all that the number of shadows allows
Progress = Callable[[int, int], None] | None  # called with (done, total)


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
    """How the members were drawn over all models, and which shadows must be held out because of it.

    member: bool (M, N), rows 0..n_targets-1 the targets. Shadows are counted from 0. seed: of the balancing shadows."""

    def __init__(self, member: np.ndarray, n_targets: int, *, seed: int) -> None:
        member = np.asarray(member, dtype=bool)
        self.targets, self.shadows, self.seed = member[:n_targets], member[n_targets:], seed
        partner = partners(member) - n_targets  # below 0: none, or a target
        self._target_partner, self._shadow_partner = partner[:n_targets], partner[n_targets:]
        n_models, n_shadows = member.sum(axis=0), self.shadows.sum(axis=0)  # that each sample is in
        self._equal_over_shadows = bool(np.all(n_shadows == n_shadows[0]))
        self._equal_over_models = bool(np.all(n_models == n_models[0])) and not self._equal_over_shadows

    def pairs(self) -> list[tuple[int, ...]]:
        """Shadows that are held out together: complementary pairs, and (j,) for a shadow without a partner."""
        pairs = [(row, int(other)) for row, other in enumerate(self._shadow_partner)]
        return [(row, other) if other >= 0 else (row,) for row, other in pairs if other < 0 or row < other]

    def held_out_for_targets(self) -> list[int | np.ndarray]:
        """Held out before any target is scored: a target's partner, or its random balancing shadows."""
        held_out: list[int | np.ndarray] = [int(row) for row in self._target_partner if row >= 0]
        if self._equal_over_models:
            for target in np.flatnonzero(self._target_partner < 0):
                held_out.append(self._balancing_shadows(self.targets[target], held_out, (0, int(target))))
        return held_out

    def held_out_with(self, pair: tuple[int, ...], held_out: HeldOut) -> list[int | np.ndarray]:
        """Held out, besides `held_out`, while the shadows of a pair are scored as the target.

        A sample for which the shadow is already held out has equal sides and needs no balancing shadow."""
        rows: list[int | np.ndarray] = list(pair)
        if len(pair) == 1 and (self._equal_over_shadows or self._equal_over_models):
            balancing = self._balancing_shadows(self.shadows[pair[0]], [*held_out, *rows], (1, pair[0]))
            for row in held_out:
                balancing[np.broadcast_to(row == pair[0], balancing.shape)] = -1
            rows.append(balancing)
        return rows

    def _balancing_shadows(self, member: np.ndarray, held_out: HeldOut, key: tuple[int, int]) -> np.ndarray:
        """One random shadow of the other side for each sample, int64 (N,), -1 where none is left.

        member: bool (N,), of the model that is scored. key: of the random draw."""
        generator = np.random.default_rng((self.seed, *key, len(held_out)))
        balancing = np.empty(len(member), dtype=np.int64)
        for start in range(0, len(member), BLOCK):
            stop = min(start + BLOCK, len(member))
            available = self.shadows[:, start:stop] != member[start:stop]
            for row in held_out:
                if isinstance(row, np.ndarray):
                    rows = row[start:stop]
                    available[rows[rows >= 0], np.flatnonzero(rows >= 0)] = False
                else:
                    available[row] = False
            draw = generator.random(available.shape, dtype=np.float32)
            draw[~available] = -1.0
            highest = draw.argmax(axis=0)
            balancing[start:stop] = np.where(available[highest, np.arange(stop - start)], highest, -1)
        return balancing


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model.

    target: row of phi. score: float64 (N,), higher = member, NaN = this sample cannot be scored.
    threshold: guess member where score >= threshold; the most accurate one on the held-out shadows' scores.
    held_out_auc: mean AUC of those scores; the target's membership is not used. Both NaN where none of them has an AUC.
    n_shadows: how many the statistics include. held_out_counts: those scores counted for the audit, None without."""

    attack: str
    target: int
    score: np.ndarray
    threshold: float
    held_out_auc: float
    n_shadows: int
    held_out_counts: HeldOutCounts | None = None


class Attacker:
    """The attacks that one set of shadows allows, on any of the models.

    phi: float (M, N, A) and member: bool (M, N), validated. attacks: names, None for all. shadows: those to use,
    counted from 0, None for all."""

    def __init__(
        self,
        phi: np.ndarray,
        member: np.ndarray,
        n_targets: int,
        attacks: Names,
        options: AttackOptions,
        shadows: Sequence[int] | None = None,
    ) -> None:
        self.phi, self.member, self.n_targets, self.options = phi, member, n_targets, options
        self.design = MembershipDesign(member, n_targets, seed=options.seed)
        self.held_out = self.design.held_out_for_targets()
        included = np.zeros(member[n_targets:].shape, dtype=bool)
        included[slice(None) if shadows is None else list(shadows)] = True
        all_shadows = Statistics.from_shadows(phi[n_targets:], member[n_targets:], included=included)
        self.statistics = all_shadows.without(self.held_out)
        self.names = select_attacks(attacks, int(included.any(axis=1).sum()))
        self.fit_names = [name for name in self.names if ATTACKS[name].fit]
        if "learned" in self.names:
            self.fit_names += [name for name in learned.FEATURE_ATTACKS if name not in self.fit_names]

    def pairs(self, statistics: Statistics) -> list[tuple[int, ...]]:
        """The pairs of shadows that these statistics include."""
        return [pair for pair in self.design.pairs() if all(statistics.included[row].any() for row in pair)]

    def attack(self, rows: Sequence[int], *, held_out: HeldOut = (), progress: Progress = None) -> list[AttackResult]:
        """Attack the models at these rows of phi, row by row in the order of the attacks.

        held_out: shadows to hold out besides those of the targets; the thresholds come from the others."""
        statistics = self.statistics.without(held_out) if held_out else self.statistics
        held_out_scores, examples = self._score_held_out(statistics, [*self.held_out, *held_out], progress)
        scores, features = self._scores(statistics, rows)
        if features is not None:
            held_out_scores["learned"] += learned.held_out_scores(examples, self.options.seed)
            model = learned.train(*examples.of(range(len(examples.groups))), seed=self.options.seed)
            scores["learned"] = np.stack([model(values) for values in features])
        summaries = {name: _summarize(held_out_scores[name]) for name in self.names}
        n_shadows = int(statistics.included.any(axis=1).sum())
        return [
            AttackResult(name, row, scores[name][place], n_shadows=n_shadows, **summaries[name])
            for place, row in enumerate(rows)
            for name in self.names
        ]

    def _score_held_out(
        self, statistics: Statistics, held_out: HeldOut, progress: Progress
    ) -> tuple[dict[str, list[tuple[np.ndarray, np.ndarray]]], learned.Examples]:
        """(score, truth) of each held-out shadow by attack, and the examples that `learned` is trained on.

        The statistics behind an example hold out the pair of its shadow, but not the pair of the shadow that `learned`
        then scores: that shadow is one of many in these statistics, but its membership is never a label."""
        pairs = _spread(self.pairs(statistics), self.member.shape[1])
        held_out_scores: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in self.names}
        examples = learned.Examples(sum(map(len, pairs)), self.options.seed)
        for index, pair in enumerate(pairs):
            nested = statistics.without(self.design.held_out_with(pair, held_out))
            scores, features = self._scores(nested, [self.n_targets + shadow for shadow in pair])
            examples.new_group()
            for place, shadow in enumerate(pair):
                # A sample for which the shadow is itself held out, to balance a target, is not used.
                usable = statistics.included[shadow]
                truth = self.member[self.n_targets + shadow][usable]
                for name in self.fit_names:
                    if name in held_out_scores:
                        held_out_scores[name].append((scores[name][place][usable], truth))
                if features is not None:
                    examples.add(features[place][usable], truth)
            if progress:
                progress(index + 1, len(pairs))
        return held_out_scores, examples

    def _scores(self, statistics: Statistics, rows: Sequence[int]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Scores (R, N) of these rows of phi by attack, and features (R, N, F) where `learned` runs, else None."""
        phi = np.asarray(self.phi[list(rows)], dtype=np.float64)
        log_p = log_confidence(phi)
        scores = {}
        for name in self.fit_names:
            score = ATTACKS[name].load(self.options.convention)(statistics, self.options)
            scores[name] = score(phi, log_p).mean(axis=-1)
        return scores, learned.features(statistics, phi, scores) if "learned" in self.names else None


def _summarize(held_out_scores: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """The fields of an AttackResult that come from the (score, truth) of each held-out shadow."""
    scores, truths = [score for score, _ in held_out_scores], [truth for _, truth in held_out_scores]
    aucs = [value for value in map(auc, scores, truths) if not np.isnan(value)]
    return {
        "threshold": best_threshold(np.concatenate(scores), np.concatenate(truths)) if aucs else np.nan,
        "held_out_auc": float(np.mean(aucs)) if aucs else np.nan,
        "held_out_counts": count_held_out(scores, truths) if scores else None,
    }


def _spread(pairs: list[tuple[int, ...]], n_samples: int) -> list[tuple[int, ...]]:
    """At most MAX_HELD_OUT_SHADOWS shadows' worth of pairs, evenly spread; fewer where there are many samples."""
    max_shadows = int(np.clip(MAX_HELD_OUT_SCORES // n_samples, MIN_SHADOWS, MAX_HELD_OUT_SHADOWS))
    n_pairs = min(len(pairs), max_shadows // max(map(len, pairs), default=1))
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, n_pairs).round().astype(int)]
