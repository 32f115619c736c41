"""Coverage of the confidence intervals: simulated attacks with normal scores a known distance apart, as they are and
rounded so that many tie; and, with --audit, of the audit's bounds on simulated mechanisms of known epsilon.

    python benchmarks/attacks_coverage.py            # 1,000 attacks per row, a minute; --attacks 10000: ten
    python benchmarks/attacks_coverage.py --audit    # 1,000 audits per row, five minutes"""

import argparse
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.intervals import misses
from tests.helpers.mechanisms import Mechanism, audit_bounds

RATES = (0.01, 0.001)
SETTINGS = [  # (samples, distance, rounded to multiples of)
    (600, 0.1, None),
    (2000, 0.3, None),
    (2000, 1.0, None),
    (10_000, 0.3, None),
    (2000, 1.0, 0.1),
    (2000, 0.3, 1.0),
]

MECHANISMS = [
    Mechanism(0.0),
    Mechanism(1.0),
    Mechanism(4.0),
    Mechanism(2.0, silent=0.5),
    Mechanism(4.0, delta=2e-4),
    Mechanism(2.0, delta=2e-3),
    Mechanism(2.0, delta=2e-3, together=20),
    Mechanism(2.0, delta=1e-2, together=20),
]
N_AUDITED = 200


def audit_coverage(audits: int, seed: int) -> None:
    """A table of how many bounds exceed the true epsilon, and their median. The guesses are chosen 100 times for each
    cell, each time on 8 new shadows."""
    cells = [(inclusion, n_targets) for inclusion in ("coin", "half") for n_targets in (1, 4)]
    names = [f"{inclusion}, {n} {'target' if n == 1 else 'targets'}" for inclusion, n in cells]
    print(f"{audits} audits of {N_AUDITED} samples per target: bounds that exceed epsilon / median of the bounds")
    print("|", " | ".join(["epsilon, delta, together, silent", *names]), "|")
    for mechanism in MECHANISMS:
        row = [", ".join(f"{value:g}" for value in astuple(mechanism))]
        for inclusion, n_targets in cells:
            how = dict(n_targets=n_targets, inclusion=inclusion, audits=audits, choices=100, seed=seed)
            bounds = audit_bounds(mechanism, N_AUDITED, **how)
            row.append(f"{(bounds > mechanism.epsilon).sum()} / {np.median(bounds):.2f}")
        print("|", " | ".join(row), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audit", action="store_true")
    args = parser.parse_args()
    if args.audit:
        audit_coverage(args.attacks, args.seed)
        return
    error = np.sqrt(0.95 * 0.05 / args.attacks)
    print(f"{args.attacks} attacks per row; standard error of a coverage of 0.95: {error:.4f}")
    for n_samples, distance, grain in SETTINGS:
        missed = misses(n_samples, distance, grain, RATES, attacks=args.attacks, seed=args.seed)
        coverage = "  ".join(f"{name} {1 - count / args.attacks:.4f}" for name, count in missed.items())
        rounding = f", rounded to {grain}" if grain else ""
        print(f"{n_samples:6d} samples, distance {distance}{rounding}: {coverage}", flush=True)


if __name__ == "__main__":
    main()
