"""All attacks on all targets, as the tables of result/<run>/: what was asked for is run here, with a bar for each."""

from collections.abc import Sequence
from contextlib import contextmanager

import pandas as pd
from tqdm import tqdm

from lira import attacks, tables
from lira.errors import InputError, say
from lira.evidence import Evidence


def run_attacks(
    evidence: Evidence,
    *,
    names: Sequence[str] | None,
    convention: str,
    leave_one_out: bool,
    curve: bool,
    quiet: bool,
) -> dict[str, pd.DataFrame]:
    """names: the attacks to run, None for all. Returns file name -> table."""
    phi, member = evidence.phi, evidence.member
    wanted = dict(n_targets=evidence.n_targets, attacks=names, convention=convention)
    common = dict(convention=convention, queries=phi.shape[2])
    with _bar("attacking", quiet) as progress:
        scored = attacks.attack_targets(phi, member, **wanted, progress=progress)
    if not scored:
        raise InputError(f"--attacks {','.join(names)} needs more shadows than {evidence.n_shadows}")
    for name in [name for name in names or () if name not in {one.attack for one in scored}]:
        say(f"{name} is left out: it needs more shadows than {evidence.n_shadows}")
    made = {
        "attack.csv": tables.attack_table(scored, member, evidence.names, **common),
        "samples.csv": tables.samples_table(scored, evidence),
        "classes.csv": tables.classes_table(scored, evidence),
    }
    if (audit := tables.audit_table(scored, evidence)) is not None:
        made["audit.csv"] = audit
    if leave_one_out:
        with _bar("leaving one out", quiet) as progress:
            left_out = attacks.leave_one_out(phi, member, **wanted, progress=progress)
        made["leave_one_out.csv"] = tables.attack_table(left_out, member, evidence.names, **common)
    if curve:
        with _bar("curve", quiet) as progress:
            points = attacks.curve(phi, member, **wanted, progress=progress)
        made["curve.csv"] = tables.curve_table(points, member, evidence.names, **common)
    return made


@contextmanager
def _bar(name: str, quiet: bool):
    """progress(done, total) as one bar."""
    with tqdm(desc=name, disable=quiet, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
