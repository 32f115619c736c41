"""The attacks: one table, and the ways to play it: on targets, on each shadow in turn, against the shadow
count.

Letters: M models of which the first T are targets and S shadows, N target samples, A queries. Higher score
= more likely a member, everywhere; the scores of several queries are averaged. Whenever a shadow stands in
as the target, whatever would give its membership away is left out with it (`lira.pairing`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import formulas
from .bayes import fit_lira_bayes
from .errors import InputError
from .formulas import Options
from .metrics import auc, best_threshold
from .moments import Statistics, log_confidence, scaled_logit
from .pairing import Design

__all__ = [
    "ATTACKS",
    "DEFAULT_ATTACKS",
    "Attack",
    "Options",
    "Scored",
    "Statistics",
    "attack_targets",
    "leave_one_out",
    "log_confidence",
    "scaled_logit",
    "strongest",
    "validate_scores",
]

FEWEST_SHADOWS = 4
# Enough left-out scores for a threshold: more shadows than these (and more scores than these) move it by
# less than its own noise, and the cost of every attack would grow with them.
MOST_PLAYERS = 32
MOST_LEFT_OUT_SCORES = 2_000_000


@dataclass(frozen=True)
class Attack:
    """A row of the table. fit(statistics, options) gives score(phi, log_p), see `lira.formulas`."""

    name: str
    fit: Callable | None
    about: str
    fewest_shadows: int = FEWEST_SHADOWS


_ROWS = (
    Attack("lira", formulas.fit_lira, "Gaussians of members and non-members, per sample"),
    Attack("lira-pooled", formulas.fit_lira_pooled, "the same with one variance a side"),
    Attack("lira-bayes", fit_lira_bayes, "Gaussians with means and variances shrunk by a learned prior"),
    Attack("lira-offline", formulas.fit_lira_offline, "one-sided test against non-members"),
    Attack("lira-offline-pooled", formulas.fit_lira_offline_pooled, "the same with one variance"),
    Attack("rmia", formulas.fit_rmia, "share of samples beaten by a factor gamma"),
    Attack("rmia-offline", formulas.fit_rmia_offline, "the same from non-members alone"),
    Attack("ratio", formulas.fit_ratio, "log confidence less its mean over the shadows"),
    Attack("ratio-offline", formulas.fit_ratio_offline, "the same from non-members alone"),
    Attack("loss", formulas.fit_loss, "one threshold on the confidence"),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ROWS}
DEFAULT_ATTACKS = tuple(ATTACKS)


@dataclass(frozen=True)
class Scored:
    """One attack on one model.

    target: row into phi. score: float64 (N,), higher = member, NaN = this sample cannot be scored.
    threshold: guess member where score >= threshold; the most accurate cut on the shadows' own left-out
    scores, NaN where there are none. strength: mean AUC of those left-out scores, the target's truth
    unused."""

    attack: str
    target: int
    score: np.ndarray
    threshold: float
    strength: float


def validate_scores(phi, member, n_targets):
    """Check what came from a file or from the models; raise InputError with row and column.

    phi: real (M, N) or (M, N, A), finite; member: bool (or 0/1) (M, N). Returns phi (M, N, A), member bool
    (M, N)."""
    phi, member = np.asarray(phi), np.asarray(member)
    if phi.ndim not in (2, 3) or phi.dtype.kind not in "fiu" or 0 in phi.shape:
        raise InputError(
            f"phi must be real numbers of shape (models, samples) or (models, samples, queries), "
            f"not {phi.dtype} {phi.shape}: save the scaled logits so"
        )
    if member.shape != phi.shape[:2]:
        raise InputError(
            f"member must have the shape {phi.shape[:2]} of phi, one row a model, not {member.shape}: "
            f"save one boolean for each model and sample"
        )
    if member.dtype.kind not in "biuf":
        raise InputError(
            f"member must be boolean, not {member.dtype}: save True where the model saw the sample"
        )
    _check_values(phi, member)
    member = member.astype(bool)
    shadows = len(phi) - n_targets
    if n_targets < 1 or shadows < FEWEST_SHADOWS:
        raise InputError(
            f"1 target and {FEWEST_SHADOWS} shadows are needed at least, but of {len(phi)} rows {n_targets} "
            f"are targets and {max(shadows, 0)} shadows: add shadows or take fewer targets"
        )
    inside = member[n_targets:].sum(axis=0)
    if not np.any((inside > 0) & (inside < shadows)):
        raise InputError(
            f"no sample has both members and non-members among the {shadows} shadows "
            f"(sample 0 has {inside[0]} members): check member, or which rows are targets"
        )
    return (phi[..., None] if phi.ndim == 2 else phi), member


def _check_values(phi, member):
    """Every phi finite and every member 0 or 1, row by row so that memory stays bounded."""
    for row, (scores, inside) in enumerate(zip(phi, member, strict=True)):
        bad = np.argwhere(~np.isfinite(scores))
        if len(bad):
            value = scores[tuple(bad[0])]
            raise InputError(
                f"phi must be finite, but row {row}, column {bad[0][0]} is {value}: "
                f"leave that model or sample out, or compute it again"
            )
        if member.dtype.kind != "b" and np.any(odd := (inside != 0) & (inside != 1)):
            column = int(np.flatnonzero(odd)[0])
            raise InputError(
                f"member must be 0 or 1, but row {row}, column {column} is {inside[column]}: save booleans"
            )


def attack_targets(
    phi, member, *, n_targets, attacks=None, convention="lira", seed=0, progress=None, **parameters
):
    """Attack every target with all shadows.

    phi: float (M, N, A), float32 or float64; member: bool (M, N); rows 0..n_targets-1 are targets, the rest
    shadows. attacks: names of ATTACKS, by default all that the number of shadows allows. progress: called
    with (done, total). parameters: gamma, offline_a. Returns list[Scored], target by target in the order of
    the attacks.

    The threshold is fitted on the left-out scores of at most 32 shadows (fewer, but at least 4, when there
    are more than 62,500 samples), spread evenly. Raises InputError, see `validate_scores`."""
    bench = _Bench(phi, member, n_targets, attacks, Options(convention, seed=seed, **parameters))
    return bench.play(bench.statistics, range(n_targets), progress=progress)


def leave_one_out(
    phi, member, *, n_targets, attacks=None, convention="lira", seed=0, progress=None, **parameters
):
    """Attack every shadow in turn with the others, what would give it away left out.

    Arguments and result as for `attack_targets`; `Scored.target` is the shadow's row into phi (from
    n_targets on). Nested: while shadow j plays the target, thresholds and training come from the other
    shadows, j's pair absent from their statistics too. That is S times the players of `attack_targets`, of
    whom at most 32 are used: exact up to 34 shadows, and beyond that a cost that grows with S."""
    bench = _Bench(phi, member, n_targets, attacks, Options(convention, seed=seed, **parameters))
    groups = bench.groups(bench.statistics)
    result = []
    for done, group in enumerate(groups):
        aside = bench.design.aside(group, bench.aside)
        statistics = bench.statistics.without(aside)
        rows = [n_targets + row for row in group]
        result += bench.play(statistics, rows, aside=[*bench.aside, *aside])
        if progress:
            progress(done + 1, len(groups))
    order = {name: position for position, name in enumerate(bench.names)}
    return sorted(result, key=lambda scored: (scored.target, order[scored.attack]))


def strongest(scored):
    """Name of the attack whose left-out shadow scores are strongest (mean AUC over targets), never by the
    truth.

    scored: list[Scored]. Ties go to the attack that comes first."""
    strengths: dict[str, list[float]] = {}
    for one in scored:
        strengths.setdefault(one.attack, []).append(one.strength)
    means = {name: np.mean(values) for name, values in strengths.items()}
    usable = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    return max(usable or means, key=(usable or means).get)


class _Bench:
    """What one call attacks with: the shadows' statistics, how their members were drawn, the attacks asked
    for."""

    def __init__(self, phi, member, n_targets, attacks, options):
        self.phi, member = validate_scores(phi, member, n_targets)
        self.member, self.n_targets, self.options = member, n_targets, options
        self.design = Design(member, n_targets, seed=options.seed)
        self.aside = self.design.aside_for_targets()
        self.statistics = Statistics.from_shadows(self.phi[n_targets:], member[n_targets:]).without(
            self.aside
        )
        self.names = _chosen(attacks, len(phi) - n_targets)

    def groups(self, statistics):
        """Groups of shadows that still count in these statistics."""
        return [group for group in self.design.groups() if all(statistics.kept[row].any() for row in group)]

    def play(self, statistics, rows, *, aside=None, progress=None):
        """Attack the models `rows` of phi with these statistics; thresholds from the shadows that they
        hold."""
        aside = self.aside if aside is None else aside
        groups = _spread(self.groups(statistics), self.member.shape[1])
        left_out = {name: _LeftOut() for name in self.names}
        for done, group in enumerate(groups):
            nested = statistics.without(self.design.aside(group, aside))
            for name, played in self._scores(nested, [self.n_targets + player for player in group]):
                for player, score in zip(group, played, strict=True):
                    # Where an unpaired target set the player aside, its score is not used either.
                    usable = statistics.kept[player]
                    left_out[name].add(score[usable], self.member[self.n_targets + player][usable])
            if progress:
                progress(done + 1, len(groups) + 1)
        cuts = {name: gathered.cut() for name, gathered in left_out.items()}
        result = [
            Scored(name, row, score, *cuts[name])
            for name, played in self._scores(statistics, rows)
            for row, score in zip(rows, played, strict=True)
        ]
        if progress:
            progress(len(groups) + 1, len(groups) + 1)
        return sorted(result, key=lambda scored: scored.target)

    def _scores(self, statistics, rows):
        """(name, scores (R, N)) of the models `rows` of phi for every attack."""
        phi = np.asarray(self.phi[list(rows)], dtype=np.float64)
        log_p = log_confidence(phi)
        for name in self.names:
            score = ATTACKS[name].fit(statistics, self.options)
            yield name, score(phi, log_p).mean(axis=-1)


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


def _spread(groups, n_samples):
    """At most MOST_PLAYERS shadows' worth of groups, evenly spread, fewer where the samples are many."""
    players = int(np.clip(MOST_LEFT_OUT_SCORES // n_samples, FEWEST_SHADOWS, MOST_PLAYERS))
    most = max(1, players // max(len(group) for group in groups)) if groups else 0
    if len(groups) <= most:
        return groups
    return [groups[index] for index in np.linspace(0, len(groups) - 1, most).round().astype(int)]


def _chosen(attacks, n_shadows):
    """The names asked for; by default all that the number of shadows allows."""
    if attacks is None:
        return [name for name in DEFAULT_ATTACKS if ATTACKS[name].fewest_shadows <= n_shadows]
    for name in attacks:
        if name not in ATTACKS:
            raise InputError(f"unknown attack {name!r}: choose from {', '.join(ATTACKS)}")
    return [name for name in attacks if ATTACKS[name].fewest_shadows <= n_shadows]
