"""The attacks: on targets, on each shadow in turn, against the number of shadows. The face of the rooms
below it.

Letters: M models of which the first T are targets and S shadows, N target samples, A queries. Higher score
= more likely a member, everywhere; the scores of several queries are averaged. Whenever a shadow stands in
as the target, whatever would give its membership away is left out with it (`lira.pairing`)."""

from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
from tqdm import tqdm

from lira.attacks import tables
from lira.attacks.held_out import Attacker, MembershipDesign
from lira.attacks.inputs import MIN_SHADOWS, AttackInputs, AttackOptions, validate_scores
from lira.errors import InputError, warn


def attack_targets(phi, member, *, n_targets, attacks=None, convention="lira", seed=0, progress=None, **parameters):
    """Attack every target with all shadows.

    phi: float (M, N, A), float32 or float64; member: bool (M, N); rows 0..n_targets-1 are targets, the rest
    shadows. attacks: names of ATTACKS, by default all that the number of shadows allows. progress: called
    with (done, total). parameters: gamma, offline_a. Returns list[AttackResult], target by target in the order of
    the attacks.

    The threshold is fitted on the held-out scores of at most 32 shadows (fewer, but at least 4, when there
    are more than 62,500 samples), spread evenly. Raises InputError, see `validate_scores`."""
    phi, member = validate_scores(phi, member, n_targets)
    bench = Attacker(phi, member, n_targets, attacks, AttackOptions(convention, seed=seed, **parameters))
    return bench.play(bench.statistics, range(n_targets), progress=progress)


def leave_one_out(phi, member, *, n_targets, attacks=None, convention="lira", seed=0, progress=None, **parameters):
    """Attack every shadow in turn with the others, what would give it away left out.

    Arguments and result as for `attack_targets`; `AttackResult.target` is the shadow's row into phi (from
    n_targets on). Nested: while shadow j plays the target, thresholds and training come from the other
    shadows, j's pair absent from their statistics too. That is S times the players of `attack_targets`, of
    whom at most 32 are used: exact up to 34 shadows, and beyond that a cost that grows with S."""
    phi, member = validate_scores(phi, member, n_targets)
    bench = Attacker(phi, member, n_targets, attacks, AttackOptions(convention, seed=seed, **parameters))
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
    """Attack every target with ever more shadows: list of (number of shadows, AttackResult).

    sizes: numbers of shadows, by default 4, 8, 16, ... and all. The first shadows in their order, whole
    pairs of them; the other arguments as for `attack_targets`. Attacks that need more shadows than a size
    has are left out there."""
    phi, member = validate_scores(phi, member, n_targets)
    order = [row for group in MembershipDesign(member, n_targets, seed=seed).groups() for row in group]
    sizes = _doubling(len(order)) if sizes is None else sizes
    result = []
    for done, size in enumerate(sizes):
        if not MIN_SHADOWS <= size <= len(order):
            raise InputError(f"a curve needs {MIN_SHADOWS} to {len(order)} shadows, not {size}: change the sizes")
        shadows = [n_targets + row for row in order[:size]]
        options = AttackOptions(convention, seed=seed, **parameters)
        bench = Attacker(phi, member, n_targets, attacks, options, shadows)
        result += [(size, scored) for scored in bench.play(bench.statistics, range(n_targets))]
        if progress:
            progress(done + 1, len(sizes))
    return result


def _doubling(n_shadows):
    """4, 8, 16, ... and all."""
    powers = [4 * 2**step for step in range(n_shadows.bit_length()) if 4 * 2**step < n_shadows]
    return [*powers, n_shadows]


def strongest(scored):
    """Name of the attack whose held-out shadow scores are strongest (mean AUC over targets), never by the
    truth.

    scored: list[AttackResult]. Ties go to the attack that comes first."""
    strengths: dict[str, list[float]] = {}
    for one in scored:
        strengths.setdefault(one.attack, []).append(one.held_out_auc)
    means = {name: np.mean(values) for name, values in strengths.items()}
    usable = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    return max(usable or means, key=(usable or means).get)


def run_attacks(
    inputs: AttackInputs,
    *,
    names: Sequence[str] | None,
    convention: str,
    with_leave_one_out: bool,
    with_curve: bool,
    quiet: bool,
) -> dict[str, pd.DataFrame]:
    """names: the attacks to run, None for all. Returns file name -> table."""
    phi, member = inputs.phi, inputs.member
    wanted = dict(n_targets=inputs.n_targets, attacks=names, convention=convention)
    common = dict(convention=convention, queries=phi.shape[2])
    with _bar("attacking", quiet) as progress:
        scored = attack_targets(phi, member, **wanted, progress=progress)
    if not scored:
        raise InputError(f"--attacks {','.join(names)} needs more shadows than {inputs.n_shadows}")
    for name in [name for name in names or () if name not in {one.attack for one in scored}]:
        warn(f"{name} is left out: it needs more shadows than {inputs.n_shadows}")
    made = {
        "attack.csv": tables.attack_table(scored, member, inputs.names, **common),
        "samples.csv": tables.samples_table(scored, inputs),
        "classes.csv": tables.classes_table(scored, inputs),
    }
    if (audit := tables.audit_table(scored, inputs)) is not None:
        made["audit.csv"] = audit
    if with_leave_one_out:
        with _bar("leaving one out", quiet) as progress:
            held_out = leave_one_out(phi, member, **wanted, progress=progress)
        made["leave_one_out.csv"] = tables.attack_table(held_out, member, inputs.names, **common)
    if with_curve:
        with _bar("curve", quiet) as progress:
            points = curve(phi, member, **wanted, progress=progress)
        made["curve.csv"] = tables.curve_table(points, member, inputs.names, **common)
    return made


@contextmanager
def _bar(name: str, quiet: bool):
    """progress(done, total) as one bar."""
    with tqdm(desc=name, disable=quiet, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
