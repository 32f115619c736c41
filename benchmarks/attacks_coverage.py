"""How often the intervals hold the truth: 1,000 simulated attacks, normal scores a known distance apart.

python benchmarks/attacks_coverage.py       # half a minute"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.metrics import auc_interval, tpr_at_fpr

ATTACKS, RATES = 1000, (0.01, 0.001)


def coverage(n_samples, distance, seed):
    """dict of the share of attacks whose interval holds the truth."""
    generator = np.random.default_rng(seed)
    member = np.arange(n_samples) < n_samples // 2
    held: dict[str, list[bool]] = {}
    for _ in range(ATTACKS):
        score = generator.normal(size=n_samples) + distance * member
        _, low, high = auc_interval(score, member)
        held.setdefault("auc", []).append(low <= norm.cdf(distance / np.sqrt(2)) <= high)
        for rate in RATES:
            step = tpr_at_fpr(score, member, rate)
            tpr, fpr = norm.sf(step["cut"] - distance), norm.sf(step["cut"])
            held.setdefault(f"tpr {rate:g}", []).append(step["tpr_low"] <= tpr <= step["tpr_high"])
            held.setdefault(f"fpr {rate:g}", []).append(step["fpr_low"] <= fpr <= step["fpr_high"])
    return {name: float(np.mean(values)) for name, values in held.items()}


def main():
    error = np.sqrt(0.95 * 0.05 / ATTACKS)
    print(f"{ATTACKS} attacks each; sampling error of a share of 0.95: {error:.4f}")
    for n_samples, distance in [(600, 0.1), (2000, 0.3), (2000, 1.0), (10_000, 0.3)]:
        shares = "  ".join(f"{name} {share:.3f}" for name, share in coverage(n_samples, distance, 0).items())
        print(f"{n_samples:6d} samples, distance {distance}: {shares}", flush=True)


if __name__ == "__main__":
    main()
