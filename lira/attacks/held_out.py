"""Score models against the shadows. Thresholds come from held-out shadows: each in turn is scored as the target.

What would reveal a held-out shadow's membership is held out with it: its complementary partner or, where every sample
is in nearly equally many models, random balancing shadows. Otherwise the number of members among the remaining shadows
would reveal whether the sample was in the held-out shadow's training set.

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
SIGNIFICANT = 4.0  # standard errors below the variance or correlation of independent draws
# Enough held-out scores for a threshold: more of them would change it by less than its sampling error, and cost time.
MAX_HELD_OUT_SHADOWS = 32
MAX_HELD_OUT_SCORES = 2_000_000
# Pairs that `learned` scores for its threshold, and others that it is trained on for each: the cost is their product.
MAX_LEARNED_PAIRS = 10

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
            classifier = learned.train(*examples.arrays(), seed=self.options.seed)
            scores["learned"] = np.stack([classifier(values) for values in features])
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
        """(score, truth) of each held-out shadow by attack, and the examples that `learned` is trained on."""
        pairs = _spread(self.pairs(statistics), self.member.shape[1])
        scored_by_learned = _take_evenly(pairs, MAX_LEARNED_PAIRS)
        held_out_scores: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in self.names}
        examples = learned.Examples(sum(map(len, pairs)), self.options.seed)
        for index, pair in enumerate(pairs):
            with_pair = self.design.held_out_with(pair, held_out)
            nested = statistics.without(with_pair)
            scores, features = self._scores(nested, [self.n_targets + shadow for shadow in pair])
            if features is not None and pair in scored_by_learned:
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
    return _take_evenly(pairs, max_shadows // max(map(len, pairs), default=1))


def _take_evenly(pairs: list[tuple[int, ...]], n_pairs: int) -> list[tuple[int, ...]]:
    """At most n_pairs of them, evenly spread."""
    n_pairs = min(len(pairs), n_pairs)
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, n_pairs).round().astype(int)]
