"""Null case: where phi is independent of membership, whatever an attack reports about its success must be 0.5.

    python benchmarks/attacks_leakage.py                  # every attack and design, ten minutes
    python benchmarks/attacks_leakage.py --sizes 64 --seeds 5
    python benchmarks/attacks_leakage.py --designs pairs --sizes 8 20 --samples 600 2000 10000 --seeds 200 \\
        --without-leave-one-out --log leakage.csv

Four figures: the AUC of the held-out shadows (held_out_auc of attack.csv), the accuracy on the targets at the threshold
that those set, and the AUC and the accuracy of --leave-one-out (not of `learned`, whose held-out AUC is just that). A
cell is a figure of an attack, a number of shadows and of samples, and a design by which members are drawn: its mean
over seeds, and its distance from 0.5 by the spread over seeds. The exit status is 1 when a cell lies outside the
simultaneous 99.9 % interval of all cells (Bonferroni: the attacks of a design share their scores).

--log FILE keeps the figures of each seed: what it holds is not computed again, so that a run can be continued, or be
made in parts (the parts of one file one after the other; --sizes and the like choose what is computed and printed)."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.registry import ATTACKS
from tests.helpers.leakage import distance_from_half, null_figures
from tests.helpers.shadows import DESIGNS, OVER_ALL

ALL_DESIGNS = [*DESIGNS, *OVER_ALL]
DEFAULT_SAMPLES = {4: 1000, 8: 200, 12: 200, 20: 200}  # by number of shadows
LEARNED_SIZE = 8  # `learned` only there by default
COLUMNS = ("design", "shadows", "samples", "attack", "figure", "seed")

Cell = tuple[str, int, int, str, str]  # COLUMNS without the seed


def read_log(path: Path | None) -> dict[Cell, dict[int, float]]:
    """Figure of each seed, by cell."""
    figures: dict[Cell, dict[int, float]] = {}
    if path and path.exists():
        with path.open(newline="") as file:
            for design, shadows, samples, attack, figure, seed, value in csv.reader(file):
                cell = (design, int(shadows), int(samples), attack, figure)
                figures.setdefault(cell, {})[int(seed)] = float(value)
    return figures


def missing_attacks(figures: dict[Cell, dict[int, float]], cell: tuple[str, int, int], seed: int, args) -> list[str]:
    """Attacks of which the last figure of this seed is not in the log."""

    def is_missing(name: str) -> bool:
        last = "accuracy" if args.without_leave_one_out or name == "learned" else "leave-one-out accuracy"
        return seed not in figures.get((*cell, name, last), {})

    default = [name for name in ATTACKS if name != "learned" or cell[1] == LEARNED_SIZE]
    return [name for name in args.attacks or default if is_missing(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(DEFAULT_SAMPLES), help="numbers of shadows")
    parser.add_argument("--samples", nargs="+", type=int, help=f"by default 100, or by shadows {DEFAULT_SAMPLES}")
    parser.add_argument("--designs", nargs="+", choices=ALL_DESIGNS, default=ALL_DESIGNS)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, help=f"learned by default with {LEARNED_SIZE} shadows")
    parser.add_argument("--seeds", type=int, default=12, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--without-leave-one-out", action="store_true")
    parser.add_argument("--log", type=Path, help="CSV file of the figures of each seed")
    args = parser.parse_args()
    figures = read_log(args.log)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    distances: dict[Cell, float] = {}
    for size in args.sizes:
        for samples in args.samples or [DEFAULT_SAMPLES.get(size, 100)]:
            for design in args.designs:
                for seed in seeds:
                    add_seed(figures, (design, size, samples), seed, args)
                distances |= print_cells(figures, (design, size, samples), seeds)
    largest, simultaneous = max(distances.values()), norm.isf(0.0005 / len(distances))
    single = norm.isf(0.0005)
    outside = [cell for cell, distance in distances.items() if distance > single]
    print(f"{len(distances)} cells; outside their own 99.9 % interval ({single:.2f} standard errors): {len(outside)}, ")
    print(f"  expected by chance {0.001 * len(distances):.2f}: {outside or ''}")
    print(f"largest distance {largest:.2f}; simultaneous 99.9 % interval {simultaneous:.2f}")
    sys.exit(int(largest > simultaneous))


def add_seed(figures: dict[Cell, dict[int, float]], cell: tuple[str, int, int], seed: int, args) -> None:
    """Compute what the log lacks of one seed, and add it to figures and log."""
    if not (names := missing_attacks(figures, cell, seed, args)):
        return
    rows = null_figures(*cell, seed=seed, attacks=names, with_leave_one_out=not args.without_leave_one_out)
    for (name, figure), value in rows.items():
        figures.setdefault((*cell, name, figure), {})[seed] = value
    if args.log:
        with args.log.open("a", newline="") as file:
            csv.writer(file).writerows([*cell, *key, seed, value] for key, value in rows.items())


def print_cells(figures: dict[Cell, dict[int, float]], cell: tuple[str, int, int], seeds: range) -> dict[Cell, float]:
    """One line per figure. Returns the absolute distance of each cell from 0.5 in standard errors."""
    design, size, samples = cell
    distances = {}
    for figure in dict.fromkeys(key[4] for key in figures if key[:3] == cell):
        line = []
        for key, by_seed in figures.items():
            values = np.array([by_seed[seed] for seed in seeds if seed in by_seed])
            values = values[~np.isnan(values)]
            if (*key[:3], key[4]) == (*cell, figure) and len(values) > 1:
                mean, distance = distance_from_half(values)
                distances[key] = abs(distance)
                line.append(f"{key[3]} {mean:.4f} ({distance:+.1f})")
        print(f"{size} shadows, {design}, {samples} samples, {figure}: {'  '.join(line)}", flush=True)
    return distances


if __name__ == "__main__":
    main()
