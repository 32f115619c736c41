"""How often the intervals hold the truth: simulated attacks, normal scores a known distance apart, plain and rounded
so that many tie.

python benchmarks/attacks_coverage.py                    # 1,000 attacks each, a minute; --attacks 10000: ten"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.intervals import misses

RATES = (0.01, 0.001)
WORLDS = [  # (samples, distance, rounded to multiples of)
    (600, 0.1, None),
    (2000, 0.3, None),
    (2000, 1.0, None),
    (10_000, 0.3, None),
    (2000, 1.0, 0.1),
    (2000, 0.3, 1.0),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    error = np.sqrt(0.95 * 0.05 / flags.attacks)
    print(f"{flags.attacks} attacks each; sampling error of a share of 0.95: {error:.4f}")
    for world in WORLDS:
        missed = misses(*world, RATES, attacks=flags.attacks, seed=flags.seed)
        told = "  ".join(f"{name} {1 - count / flags.attacks:.4f}" for name, count in missed.items())
        rounded = f", rounded to {world[2]}" if world[2] else ""
        print(f"{world[0]:6d} samples, distance {world[1]}{rounded}: {told}", flush=True)


if __name__ == "__main__":
    main()
