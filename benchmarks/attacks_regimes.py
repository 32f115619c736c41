"""Which attack is stronger, and by how much: the attacks of a run side by side, paired over the models attacked.

    python attack_lira.py … --n-runs 4 --leave-one-out --curve
    python benchmarks/attacks_regimes.py result/<run> result/<another run>
    python benchmarks/attacks_regimes.py result/<run> --sizes 8 16       # minutes: more than the files hold

Reads attack.csv (targets, all shadows), curve.csv (targets, fewer) and leave_one_out.csv (shadows as targets). A pair
of shadows is one unit there, the mean of both: their training sets are complementary, so the two are not independent.
--sizes K also attacks every pair with the first K of the other shadows, from scores.npz. Targets and pairs share
shadows and samples; the intervals are over the units alone."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from paired import FIGURES, print_differences

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.design import partners
from lira.attacks.metrics import auc, tpr_at_fpr
from lira.attacks.run import attack_targets

COLUMNS = ["auc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001"]
COMPARED = ("lira-bayes", "learned")
MIN_SHADOWS = 8  # below it there is no `learned`


def by_attack(table: pd.DataFrame, unit: pd.Series) -> dict[str, np.ndarray]:
    """float64 (units, 3) by attack, in the order of the table. unit: (rows,), the unit each row belongs to."""
    means = table.assign(unit=unit).groupby(["attack", "unit"], sort=False)[COLUMNS].mean()
    return {name: means.loc[name].to_numpy() for name in dict.fromkeys(table.attack)}


def from_files(folder: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(what was attacked, (units, 3) by attack) for each table of a run."""
    attack = pd.read_csv(folder / "attack.csv")
    n_shadows = attack.shadows.max()
    yield f"targets, {n_shadows} shadows", by_attack(attack, attack.target)
    if (folder / "curve.csv").exists():
        curve = pd.read_csv(folder / "curve.csv")
        for size, part in curve[(curve.shadows >= MIN_SHADOWS) & (curve.shadows < n_shadows)].groupby("shadows"):
            yield f"targets, {size} shadows", by_attack(part, part.target)
    if (folder / "leave_one_out.csv").exists():
        held_out = pd.read_csv(folder / "leave_one_out.csv")
        pair = held_out.target.str.extract(r"(\d+)$")[0].astype(int) // 2  # shadow 2k and 2k + 1
        yield f"pairs of shadows, {n_shadows - 2} others", by_attack(held_out, pair)


def with_fewer_shadows(folder: Path, size: int) -> dict[str, np.ndarray]:
    """(pairs, 3) by attack: every pair of shadows attacked with the first `size` of the others."""
    with np.load(folder / "scores.npz", allow_pickle=False) as file:
        shadows = file["role"] == 1
        phi, member = file["phi"][shadows], file["member"][shadows]
    partner = partners(member)
    rows: dict[str, list] = {}
    for first in np.flatnonzero(partner > np.arange(len(partner))):
        pair = [first, partner[first]]
        chosen = [*pair, *np.setdiff1d(np.arange(len(phi)), pair)[:size]]
        figures: dict[str, list] = {}
        for result in attack_targets(phi[chosen], member[chosen], n_targets=2):
            truth = member[pair[result.target]]
            tpr = [tpr_at_fpr(result.score, truth, rate)["tpr"] for rate in (0.01, 0.001)]
            figures.setdefault(result.attack, []).append([auc(result.score, truth), *tpr])
        for name, both in figures.items():
            rows.setdefault(name, []).append(np.mean(both, axis=0))
    return {name: np.array(values) for name, values in rows.items()}


def print_table(title: str, rows: dict[str, np.ndarray]) -> None:
    units = len(next(iter(rows.values())))
    print(f"\n{title}: mean over {units}")
    print(f"  {'':20s}" + "".join(f"{figure:>14s}" for figure in FIGURES))
    for name, values in rows.items():
        print(f"  {name:20s}" + "".join(f"{mean:14.4f}" for mean in values.mean(axis=0)))
    for name in COMPARED:
        if name in rows:
            print_differences(name, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="*", type=int, default=[], help="numbers of shadows to attack pairs with")
    args = parser.parse_args()
    for folder in args.folders:
        print(f"\n=== {folder.name}")
        for title, rows in from_files(folder):
            print_table(title, rows)
        for size in args.sizes:
            print_table(f"pairs of shadows, {size} others", with_fewer_shadows(folder, size))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
