"""Which attack is stronger, and by how much: the attacks of a run beside each other, paired over what was attacked.

    python attack_lira.py … --n-runs 4 --leave-one-out --curve
    python benchmarks/attacks_regimes.py result/<run> result/<another run>
    python benchmarks/attacks_regimes.py result/<run> --sizes 8 16       # minutes: more than the files hold

Reads attack.csv (targets, all shadows), curve.csv (targets, fewer) and leave_one_out.csv (shadows that played the
target). A pair of shadows is one unit there, the mean of both: what one saw the other did not, so the two are not
independent. --sizes K also plays every pair against the first K of the other shadows, from scores.npz. Targets and
pairs share shadows and samples; the intervals are over the units alone."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from paired import FIGURES, tell_against_all

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.held_out import partners
from lira.attacks.metrics import auc, tpr_at_fpr
from lira.attacks.run import attack_targets

COLUMNS = ["auc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001"]
COMPARED = ("lira-bayes", "learned")
FEWEST = 8  # shadows: below it there is no `learned`


def by_attack(table, unit):
    """dict of float64 (units, 3), in the order of the table; unit: (rows,), what each row is part of."""
    means = table.assign(unit=unit).groupby(["attack", "unit"], sort=False)[COLUMNS].mean()
    return {name: means.loc[name].to_numpy() for name in dict.fromkeys(table.attack)}


def from_files(folder):
    """(what was attacked, dict of (units, 3)) for each table of a run."""
    attack = pd.read_csv(folder / "attack.csv")
    most = attack.shadows.max()
    yield f"targets, {most} shadows", by_attack(attack, attack.target)
    if (folder / "curve.csv").exists():
        curve = pd.read_csv(folder / "curve.csv")
        for size, part in curve[(curve.shadows >= FEWEST) & (curve.shadows < most)].groupby("shadows"):
            yield f"targets, {size} shadows", by_attack(part, part.target)
    if (folder / "leave_one_out.csv").exists():
        held_out = pd.read_csv(folder / "leave_one_out.csv")
        pair = held_out.target.str.extract(r"(\d+)$")[0].astype(int) // 2  # shadow 2k and 2k + 1
        yield f"pairs of shadows, {most - 2} others", by_attack(held_out, pair)


def at_fewer(folder, size):
    """dict of (pairs, 3): every pair of shadows played against the first `size` of the others."""
    with np.load(folder / "scores.npz", allow_pickle=False) as file:
        shadows = file["role"] == 1
        phi, member = file["phi"][shadows], file["member"][shadows]
    partner = partners(member)
    rows: dict[str, list] = {}
    for one in np.flatnonzero(partner > np.arange(len(partner))):
        pair = [one, partner[one]]
        chosen = [*pair, *np.setdiff1d(np.arange(len(phi)), pair)[:size]]
        figures: dict[str, list] = {}
        for played in attack_targets(phi[chosen], member[chosen], n_targets=2):
            truth = member[pair[played.target]]
            tpr = [tpr_at_fpr(played.score, truth, rate)["tpr"] for rate in (0.01, 0.001)]
            figures.setdefault(played.attack, []).append([auc(played.score, truth), *tpr])
        for name, both in figures.items():
            rows.setdefault(name, []).append(np.mean(both, axis=0))
    return {name: np.array(values) for name, values in rows.items()}


def tell(what, rows):
    units = len(next(iter(rows.values())))
    print(f"\n{what}: mean over {units}")
    print(f"  {'':20s}" + "".join(f"{figure:>14s}" for figure in FIGURES))
    for name, values in rows.items():
        print(f"  {name:20s}" + "".join(f"{mean:14.4f}" for mean in values.mean(axis=0)))
    for name in COMPARED:
        if name in rows:
            tell_against_all(name, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="*", type=int, default=[], help="numbers of shadows to play pairs against")
    flags = parser.parse_args()
    for folder in flags.folders:
        print(f"\n=== {folder.name}")
        for what, rows in from_files(folder):
            tell(what, rows)
        for size in flags.sizes:
            tell(f"pairs of shadows, {size} others", at_fewer(folder, size))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
