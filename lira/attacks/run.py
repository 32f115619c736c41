"""Run the attacks: on the targets, on each shadow in turn, and with growing numbers of shadows.

Letters: M models of which the first T are targets and the other S shadows, N target samples, A queries. Higher score =
more likely a member, everywhere; the scores of several queries are averaged. Whenever a shadow is scored as the target,
whatever would reveal its membership is held out with it, see `lira.attacks.held_out`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from numpy import ndarray
from tqdm import tqdm

from lira.attacks import tables
from lira.attacks.audits import audit_table
from lira.attacks.design import MembershipDesign
from lira.attacks.held_out import Attacker, AttackResult, Names, Progress
from lira.attacks.inputs import AttackInputs, AttackOptions, validate_scores
from lira.attacks.registry import MIN_SHADOWS
from lira.errors import InputError, log, warn


def attack_targets(
    phi: ndarray, member: ndarray, *, n_targets: int, attacks: Names = None, progress: Progress = None, **options: Any
) -> list[AttackResult]:
    """Attack every target with all shadows. Returns the results target by target, in the order of the attacks.

    phi: float (M, N) or (M, N, A); member: bool (M, N); rows 0..n_targets-1 are targets, the others shadows. attacks:
    names of ATTACKS, by default all that the number of shadows allows. progress: called with (done, total). options:
    fields of AttackOptions. The threshold is the most accurate one on the scores of at most 32 held-out shadows
    (fewer, but at least 4, with more than 62,500 samples), evenly spread. Raises InputError, see `validate_scores`."""
    phi, member = validate_scores(phi, member, n_targets)
    attacker = Attacker(phi, member, n_targets, attacks, AttackOptions(**options))
    return attacker.attack(range(n_targets), progress=progress)


def leave_one_out(
    phi: ndarray, member: ndarray, *, n_targets: int, attacks: Names = None, progress: Progress = None, **options: Any
) -> list[AttackResult]:
    """Attack every shadow in turn with the others; its partner or balancing shadows are held out with it.

    Arguments and result as for `attack_targets`; `AttackResult.target` is the shadow's row of phi, from n_targets on.
    Nested: for shadow j, thresholds and training come from the other shadows, and j's pair is absent from their
    statistics too. That scores S times as many held-out shadows as `attack_targets`, at most 32 for each j."""
    phi, member = validate_scores(phi, member, n_targets)
    attacker = Attacker(phi, member, n_targets, attacks, AttackOptions(**options))
    pairs = attacker.pairs(attacker.statistics)
    results = []
    for index, pair in enumerate(pairs):
        held_out = attacker.design.held_out_with(pair, attacker.held_out)
        results += attacker.attack([n_targets + shadow for shadow in pair], held_out=held_out)
        if progress:
            progress(index + 1, len(pairs))
    return sorted(results, key=lambda result: result.target)  # stable: the attacks keep their order


def curve(
    phi: ndarray, member: ndarray, *, n_targets: int, attacks: Names = None, progress: Progress = None, **options: Any
) -> list[tuple[int, AttackResult]]:
    """Attack every target with the first 4, 8, 16, ... and with all shadows. Returns (number of shadows, result) each.

    Arguments as for `attack_targets`. The shadows keep their order and complementary pairs stay together. Attacks that
    need more shadows than a size has are left out there."""
    phi, member = validate_scores(phi, member, n_targets)
    attack_options = AttackOptions(**options)
    design = MembershipDesign(member, n_targets, seed=attack_options.seed)
    shadows = [shadow for pair in design.pairs() for shadow in pair]
    powers = [MIN_SHADOWS * 2**step for step in range(len(shadows).bit_length())]
    sizes = [*(size for size in powers if size < len(shadows)), len(shadows)]
    results = []
    for index, size in enumerate(sizes):
        attacker = Attacker(phi, member, n_targets, attacks, attack_options, shadows[:size])
        results += [(size, result) for result in attacker.attack(range(n_targets))]
        if progress:
            progress(index + 1, len(sizes))
    return results


def run_attacks(
    inputs: AttackInputs,
    *,
    names: Names,
    convention: str,
    fdr: float,
    with_leave_one_out: bool,
    with_curve: bool,
    quiet: bool,
) -> dict[str, pd.DataFrame]:
    """All tables of a run, file name -> table. names: the attacks to run, None for all; fdr: of exposed.csv.

    Raises InputError where the shadows are too few for any of them, and warns of the attacks that are left out."""
    phi, member, model_names = inputs.phi, inputs.member, inputs.model_names
    how: dict[str, Any] = dict(n_targets=inputs.n_targets, attacks=names, convention=convention)
    columns: dict[str, Any] = dict(convention=convention, queries=phi.shape[2])
    with _progress_bar("attacks", quiet) as progress:
        results = attack_targets(phi, member, **how, progress=progress)
    if not results:
        raise InputError(f"--attacks {','.join(names or ())} needs more shadows than {inputs.n_shadows}")
    for name in names or ():
        if name not in {result.attack for result in results}:
            warn(f"{name} is left out: it needs more shadows than {inputs.n_shadows}")
    by_file = {
        "attack.csv": tables.attack_table(results, member, model_names, **columns),
        "samples.csv": tables.samples_table(results, inputs),
        "classes.csv": tables.classes_table(results, inputs),
    }
    if exposure := next((result.exposure for result in results if result.exposure), None):
        strongest = tables.strongest_attack(by_file["attack.csv"])
        by_file["exposed.csv"] = tables.exposed_table(by_file["samples.csv"], strongest, fdr)
        by_file["reliability.csv"] = exposure.reliability
    if (audit := audit_table(results, inputs)) is not None:
        by_file["audit.csv"] = audit
    if with_leave_one_out:
        with _progress_bar("leave one out", quiet) as progress:
            results = leave_one_out(phi, member, **how, progress=progress)
        by_file["leave_one_out.csv"] = tables.attack_table(results, member, model_names, **columns)
    if with_curve:
        with _progress_bar("curve", quiet) as progress:
            points = curve(phi, member, **how, progress=progress)
        by_file["curve.csv"] = tables.curve_table(points, member, model_names, **columns)
    return by_file


@contextmanager
def _progress_bar(name: str, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, elsewhere one line at the start."""
    with tqdm(desc=name, disable=quiet or None, leave=False) as bar:
        if bar.disable and not quiet:
            log(f"{name}: running")

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
