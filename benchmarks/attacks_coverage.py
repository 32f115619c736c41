"""Coverage of the confidence intervals: simulated attacks with normal scores a known distance apart, as they are and
rounded so that many tie.

    python benchmarks/attacks_coverage.py            # 1,000 attacks per row, a minute; --attacks 10000: ten"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.intervals import misses

RATES = (0.01, 0.001)
SETTINGS = [  # (samples, distance, rounded to multiples of)
    (600, 0.1, None),
    (2000, 0.3, None),
    (2000, 1.0, None),
    (10_000, 0.3, None),
    (2000, 1.0, 0.1),
    (2000, 0.3, 1.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    error = np.sqrt(0.95 * 0.05 / args.attacks)
    print(f"{args.attacks} attacks per row; standard error of a coverage of 0.95: {error:.4f}")
    for n_samples, distance, grain in SETTINGS:
        missed = misses(n_samples, distance, grain, RATES, attacks=args.attacks, seed=args.seed)
        coverage = "  ".join(f"{name} {1 - count / args.attacks:.4f}" for name, count in missed.items())
        rounding = f", rounded to {grain}" if grain else ""
        print(f"{n_samples:6d} samples, distance {distance}{rounding}: {coverage}", flush=True)


if __name__ == "__main__":
    main()
