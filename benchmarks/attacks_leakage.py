"""Null case: where phi is independent of membership, the AUC of every attack under --leave-one-out must be 0.5.

    python benchmarks/attacks_leakage.py                  # all attacks, 4 to 64 shadows, four designs: ten minutes
    python benchmarks/attacks_leakage.py --sizes 4 8 --seed 7

A cell is an attack, a number of shadows and a design by which members are drawn. Some of many cells lie outside their
own 99.9 % interval by chance: they are listed, beside the number expected by chance. The exit status is 1 when a cell
lies outside the simultaneous 99.9 % interval of all cells (Bonferroni: the attacks of a design share their scores)."""

import argparse
import sys
from pathlib import Path

from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.leakage import null_aucs
from tests.helpers.shadows import DESIGNS

SAMPLES = {4: 4000, 8: 2000, 20: 600, 64: 300}  # fewer where every shadow costs more
ALL_DESIGNS = [*DESIGNS, "equal over all"]
SINGLE_CELL = norm.isf(0.0005)  # half-widths of the 99.9 % intervals, in standard errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--designs", nargs="+", choices=ALL_DESIGNS, default=ALL_DESIGNS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    distance: dict[tuple[int, str, str], float] = {}  # of each cell's AUC from 0.5, in standard errors
    for size in args.sizes:
        for design in args.designs:
            by_attack = null_aucs(design, size, SAMPLES[size], seed=args.seed)
            distance |= {(size, design, name): abs(z) for name, (_, z) in by_attack.items()}
            line = "  ".join(f"{name} {auc:.4f} ({z:+.1f})" for name, (auc, z) in by_attack.items())
            print(f"{size} shadows, {design}, {SAMPLES[size]} samples: {line}", flush=True)
    simultaneous = norm.isf(0.0005 / len(distance))
    outside = [cell for cell, z in distance.items() if z > SINGLE_CELL]
    print(f"{len(distance)} cells, AUC (standard errors from 0.5); outside their 99.9 % interval ({SINGLE_CELL:.2f}): ")
    print(f"  {len(outside)}, expected by chance {0.001 * len(distance):.2f}: {outside or ''}")
    print(f"largest distance {max(distance.values()):.2f}; simultaneous 99.9 % interval {simultaneous:.2f}")
    sys.exit(max(distance.values()) > simultaneous)


if __name__ == "__main__":
    main()
