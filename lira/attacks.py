"""The attacks: on targets, on each shadow in turn, against the number of shadows. The face of the rooms
below it.

Letters: M models of which the first T are targets and S shadows, N target samples, A queries. Higher score
= more likely a member, everywhere; the scores of several queries are averaged. Whenever a shadow stands in
as the target, whatever would give its membership away is left out with it (`lira.pairing`)."""

from __future__ import annotations

import numpy as np

from .errors import InputError
from .formulas import Options
from .moments import Statistics, log_confidence, scaled_logit
from .pairing import Design
from .play import Bench, Scored
from .table import ATTACKS, FEWEST_SHADOWS, Attack

__all__ = [
    "ATTACKS",
    "Attack",
    "Options",
    "Scored",
    "Statistics",
    "attack_targets",
    "curve",
    "leave_one_out",
    "log_confidence",
    "scaled_logit",
    "strongest",
    "validate_scores",
]


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
        raise InputError(f"member must be boolean, not {member.dtype}: save True where the model saw the sample")
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


def attack_targets(phi, member, *, n_targets, attacks=None, convention="lira", seed=0, progress=None, **parameters):
    """Attack every target with all shadows.

    phi: float (M, N, A), float32 or float64; member: bool (M, N); rows 0..n_targets-1 are targets, the rest
    shadows. attacks: names of ATTACKS, by default all that the number of shadows allows. progress: called
    with (done, total). parameters: gamma, offline_a. Returns list[Scored], target by target in the order of
    the attacks.

    The threshold is fitted on the left-out scores of at most 32 shadows (fewer, but at least 4, when there
    are more than 62,500 samples), spread evenly. Raises InputError, see `validate_scores`."""
    phi, member = validate_scores(phi, member, n_targets)
    bench = Bench(phi, member, n_targets, attacks, Options(convention, seed=seed, **parameters))
    return bench.play(bench.statistics, range(n_targets), progress=progress)


def leave_one_out(phi, member, *, n_targets, attacks=None, convention="lira", seed=0, progress=None, **parameters):
    """Attack every shadow in turn with the others, what would give it away left out.

    Arguments and result as for `attack_targets`; `Scored.target` is the shadow's row into phi (from
    n_targets on). Nested: while shadow j plays the target, thresholds and training come from the other
    shadows, j's pair absent from their statistics too. That is S times the players of `attack_targets`, of
    whom at most 32 are used: exact up to 34 shadows, and beyond that a cost that grows with S."""
    phi, member = validate_scores(phi, member, n_targets)
    bench = Bench(phi, member, n_targets, attacks, Options(convention, seed=seed, **parameters))
    groups = bench.groups(bench.statistics)
    result = []
    for done, group in enumerate(groups):
        aside = bench.design.aside(group, bench.aside)
        statistics = bench.statistics.without(aside)
        rows = [n_targets + row for row in group]
        result += bench.play(statistics, rows, aside=[*bench.aside, *aside])
        if progress:
            progress(done + 1, len(groups))
    return sorted(result, key=lambda scored: scored.target)  # stable: the attacks keep their order


def curve(
    phi,
    member,
    *,
    n_targets,
    attacks=None,
    sizes=None,
    convention="lira",
    seed=0,
    progress=None,
    **parameters,
):
    """Attack every target with ever more shadows: list of (number of shadows, Scored).

    sizes: numbers of shadows, by default 4, 8, 16, ... and all. The first shadows in their order, whole
    pairs of them; the other arguments as for `attack_targets`. Attacks that need more shadows than a size
    has are left out there."""
    phi, member = validate_scores(phi, member, n_targets)
    order = [row for group in Design(member, n_targets, seed=seed).groups() for row in group]
    sizes = _doubling(len(order)) if sizes is None else sizes
    result = []
    for done, size in enumerate(sizes):
        if not FEWEST_SHADOWS <= size <= len(order):
            raise InputError(f"a curve needs {FEWEST_SHADOWS} to {len(order)} shadows, not {size}: change the sizes")
        shadows = [n_targets + row for row in order[:size]]
        options = Options(convention, seed=seed, **parameters)
        bench = Bench(phi, member, n_targets, attacks, options, shadows)
        result += [(size, scored) for scored in bench.play(bench.statistics, range(n_targets))]
        if progress:
            progress(done + 1, len(sizes))
    return result


def _doubling(n_shadows):
    """4, 8, 16, ... and all."""
    powers = [4 * 2**step for step in range(n_shadows.bit_length()) if 4 * 2**step < n_shadows]
    return [*powers, n_shadows]


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
