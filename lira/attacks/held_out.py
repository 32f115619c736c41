"""Score models against the shadows. Thresholds come from held-out shadows: each in turn is scored as the target.

Letters: M models, S shadows, N target samples, A queries, R models scored together, F features of `learned`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lira.attacks import exposed, learned
from lira.attacks.design import HeldOut, MembershipDesign
from lira.attacks.inputs import AttackOptions
from lira.attacks.metrics import BetweenModels, auc, best_threshold, between_models
from lira.attacks.registry import ATTACKS, MIN_SHADOWS, select_attacks
from lira.attacks.statistics import Statistics, log_confidence
from lira.privacy.audit import HeldOutCounts, count_held_out

# Enough held-out scores for a threshold: more of them would change it by less than its sampling error, and cost time.
MAX_HELD_OUT_SHADOWS = 32
MAX_HELD_OUT_SCORES = 2_000_000
# Pairs that `learned` scores for its threshold, and others that it is trained on for each: the cost is their product.
MAX_LEARNED_PAIRS = 10
MAX_LEARNED_PAIRS_LEFT_OUT = 4  # scored where shadows are left out one by one, each with a threshold of its own

Pairs = list[tuple[int, ...]]  # shadows that are held out together
Names = Sequence[str] | None  # of attacks; None: all that the number of shadows allows
Progress = Callable[[int, int], None] | None  # called with (done, total)


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model.

    target: row of phi. score: float64 (N,), higher = member, NaN = this sample cannot be scored.
    threshold: guess member where score >= threshold; the most accurate one on the held-out shadows' scores.
    held_out_auc: mean AUC of those scores; the target's membership is not used. Both NaN where none of them has an AUC.
    n_shadows: how many the statistics include. held_out_counts: those scores counted for the audit, None without.
    between: the variation of the metrics between models, from those scores. exposure: what the score says of each
    sample, of the attack with the highest held-out AUC alone; None of the others, and with too few shadows."""

    attack: str
    target: int
    score: np.ndarray
    threshold: float
    held_out_auc: float
    n_shadows: int
    held_out_counts: HeldOutCounts | None = None
    between: BetweenModels | None = None
    exposure: exposed.Exposure | None = None


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
        self.design = MembershipDesign(member, n_targets, seed=options.seed, shadows=shadows)
        self.held_out = self.design.held_out_for_targets()
        included = np.zeros(member[n_targets:].shape, dtype=bool)
        included[slice(None) if shadows is None else list(shadows)] = True
        all_shadows = Statistics.from_shadows(phi[n_targets:], member[n_targets:], included=included)
        self.statistics = all_shadows.without(self.held_out)
        self.names = select_attacks(attacks, int(included.any(axis=1).sum()))
        self.fit_names = [name for name in self.names if ATTACKS[name].fit]
        if "learned" in self.names:
            self.fit_names += [name for name in learned.FEATURE_ATTACKS if name not in self.fit_names]

    def pairs(self, statistics: Statistics) -> Pairs:
        """The pairs of shadows that these statistics include."""
        return [pair for pair in self.design.pairs() if all(statistics.included[row].any() for row in pair)]

    def attack(self, rows: Sequence[int], *, held_out: HeldOut = (), progress: Progress = None) -> list[AttackResult]:
        """Attack the models at these rows of phi, row by row in the order of the attacks.

        held_out: shadows to hold out besides those of the targets; the thresholds come from the others."""
        statistics = self.statistics.without(held_out) if held_out else self.statistics
        pairs, of_targets = _spread(self.pairs(statistics), self.member.shape[1]), not held_out
        by_learned = _take_evenly(pairs, MAX_LEARNED_PAIRS_LEFT_OUT if held_out else MAX_LEARNED_PAIRS)
        held_out = [*self.held_out, *held_out]
        held_out_scores, examples = self._score_held_out(statistics, held_out, pairs, by_learned, progress)
        scores, features = self._scores(statistics, rows)
        if features is not None:
            classifier = learned.train(*examples.arrays(), seed=self.options.seed)
            scores["learned"] = np.stack([classifier(values) for values in features])
        n_shadows = int(statistics.included.any(axis=1).sum())
        sizes = {name: list(map(len, by_learned if name == "learned" else pairs)) for name in self.names}
        summaries = {name: _summarize(held_out_scores[name], sizes[name], n_shadows) for name in self.names}
        exposures: dict[str, list[exposed.Exposure | None]] = {name: [None] * len(rows) for name in self.names}
        if self.names and n_shadows >= exposed.MIN_SHADOWS:
            strongest = max(self.names, key=lambda name: np.nan_to_num(summaries[name]["held_out_auc"]))
            exposures[strongest] = exposed.exposures(
                scores[strongest],
                held_out_scores[strongest],
                pair_sizes=sizes[strongest],
                with_reliability=of_targets,
            )
        return [
            AttackResult(name, row, scores[name][place], exposure=exposures[name][place], **summaries[name])
            for place, row in enumerate(rows)
            for name in self.names
        ]

    def _score_held_out(
        self, statistics: Statistics, held_out: HeldOut, pairs: Pairs, by_learned: Pairs, progress: Progress
    ) -> tuple[dict[str, list[tuple[np.ndarray, np.ndarray]]], learned.Examples]:
        """(score, truth) of each shadow of these pairs by attack, for `learned` of some of them, and the examples that
        `learned` is trained on."""
        held_out_scores: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in self.names}
        examples = learned.Examples(sum(map(len, pairs)), self.options.seed)
        for index, pair in enumerate(pairs):
            with_pair = self.design.held_out_with(pair, held_out)
            nested = statistics.without(with_pair)
            scores, features = self._scores(nested, [self.n_targets + shadow for shadow in pair])
            if features is not None and pair in by_learned:
                classifier = self._train_without(nested, [*held_out, *with_pair])
                scores["learned"] = np.stack([classifier(values) for values in features])
            for place, shadow in enumerate(pair):
                # A sample for which the shadow is itself held out, to balance a target, is not used.
                usable = statistics.included[shadow]
                truth = self.member[self.n_targets + shadow][usable]
                for name in set(scores) & set(self.names):
                    held_out_scores[name].append((scores[name][place][usable], truth))
                if features is not None:
                    examples.add(features[place][usable], truth)
            if progress:
                progress(index + 1, len(pairs))
        return held_out_scores, examples

    def _train_without(self, statistics: Statistics, held_out: HeldOut) -> learned.Classifier:
        """The classifier that scores a held-out pair, trained as that of the targets is, on the other pairs.

        The pair's scores and membership are neither in the examples nor in the statistics behind their features:
        otherwise the products of its residuals with theirs, at one sample, would be in what is trained and in what is
        scored. statistics, held_out: without the pair. Evenly spaced samples, where all are too many."""
        pairs = _take_evenly(self.pairs(statistics), MAX_LEARNED_PAIRS)
        n_shadows, n_samples = sum(map(len, pairs)), self.member.shape[1]
        n_used = min(n_samples, learned.MAX_NESTED_EXAMPLES // max(n_shadows, 1))
        samples = np.linspace(0, n_samples - 1, n_used).astype(int)
        statistics = statistics.take(samples)
        examples = learned.Examples(n_shadows, self.options.seed)
        for pair in pairs:
            with_pair = self.design.held_out_with(pair, held_out)
            nested = statistics.without([row[samples] if isinstance(row, np.ndarray) else row for row in with_pair])
            _, features = self._scores(nested, [self.n_targets + shadow for shadow in pair], samples)
            assert features is not None
            for place, shadow in enumerate(pair):
                usable = statistics.included[shadow]
                examples.add(features[place][usable], self.member[self.n_targets + shadow, samples][usable])
        return learned.train(*examples.arrays(), seed=self.options.seed)

    def _scores(
        self, statistics: Statistics, rows: Sequence[int], samples: np.ndarray | slice = slice(None)
    ) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Scores (R, N) of these rows of phi by attack, and features (R, N, F) where `learned` runs, else None.

        samples: those of the statistics."""
        phi = np.asarray(self.phi[list(rows)][:, samples], dtype=np.float64)
        log_p = log_confidence(phi)
        scores = {}
        for name in self.fit_names:
            score = ATTACKS[name].load(self.options.convention)(statistics, self.options)
            scores[name] = score(phi, log_p).mean(axis=-1)
        return scores, learned.features(statistics, phi, scores) if "learned" in self.names else None


def _summarize(
    held_out_scores: list[tuple[np.ndarray, np.ndarray]], pair_sizes: list[int], n_shadows: int
) -> dict[str, Any]:
    """The fields of an AttackResult that come from the (score, truth) of each held-out shadow, pair after pair."""
    scores, truths = [score for score, _ in held_out_scores], [truth for _, truth in held_out_scores]
    aucs = [value for value in map(auc, scores, truths) if not np.isnan(value)]
    threshold = best_threshold(np.concatenate(scores), np.concatenate(truths)) if aucs else np.nan
    return {
        "n_shadows": n_shadows,
        "threshold": threshold,
        "held_out_auc": float(np.mean(aucs)) if aucs else np.nan,
        "held_out_counts": count_held_out(scores, truths) if scores else None,
        "between": between_models(scores, truths, threshold=threshold, pair_sizes=pair_sizes, n_shadows=n_shadows),
    }


def _spread(pairs: Pairs, n_samples: int) -> Pairs:
    """At most MAX_HELD_OUT_SHADOWS shadows' worth of pairs, evenly spread; fewer where there are many samples."""
    max_shadows = int(np.clip(MAX_HELD_OUT_SCORES // n_samples, MIN_SHADOWS, MAX_HELD_OUT_SHADOWS))
    return _take_evenly(pairs, max_shadows // max(map(len, pairs), default=1))


def _take_evenly(pairs: Pairs, n_pairs: int) -> Pairs:
    """At most n_pairs of them, evenly spread."""
    n_pairs = min(len(pairs), n_pairs)
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, n_pairs).round().astype(int)]
