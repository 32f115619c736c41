"""Where phi knows nothing of membership, every attack must say nothing: the AUC of --leave-one-out beside 0.5.

    python benchmarks/attacks_leakage.py                  # all attacks, 4 to 64 shadows, four designs: ten minutes
    python benchmarks/attacks_leakage.py --sizes 4 8 --seed 7

A cell is an attack, a number of shadows and a way to draw members. Of many cells some lie outside their own 99.9 %
interval by chance: those are named and counted beside the number that chance would give. The exit status is 1 when a
cell lies outside the interval that holds all cells together with 99.9 % (Bonferroni: the attacks of a design share
their scores)."""

import argparse
import sys
from pathlib import Path

from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.leakage import without_information
from tests.helpers.shadows import DESIGNS

SAMPLES = {4: 4000, 8: 2000, 20: 600, 64: 300}  # fewer where every shadow costs more
EVERY = [*DESIGNS, "equal over all"]
ALONE = norm.isf(0.0005)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--designs", nargs="+", choices=EVERY, default=EVERY)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    cells = {}
    for size in flags.sizes:
        for design in flags.designs:
            found = without_information(design, size, SAMPLES[size], seed=flags.seed)
            cells |= {(size, design, name): figures for name, figures in found.items()}
            told = "  ".join(f"{name} {area:.4f} ({z:+.1f})" for name, (area, z) in found.items())
            print(f"{size} shadows, {design}, {SAMPLES[size]} samples: {told}", flush=True)
    together = norm.isf(0.0005 / len(cells))
    distance = {cell: abs(z) for cell, (_, z) in cells.items()}
    outside = [cell for cell, away in distance.items() if away > ALONE]
    print(f"{len(cells)} cells, AUC (standard errors from 0.5); outside their 99.9 % interval ({ALONE:.2f}): ")
    print(f"  {len(outside)}, by chance {0.001 * len(cells):.2f}: {outside or ''}")
    print(f"furthest {max(distance.values()):.2f}; all together within {together:.2f} with 99.9 %")
    sys.exit(max(distance.values()) > together)


if __name__ == "__main__":
    main()
