"""Attacks on normal scores whose means, gaps and variances differ by sample and are known, beside the exact ratio.

python benchmarks/attacks_synthetic.py --shadows 20 --seeds 10
python benchmarks/attacks_synthetic.py --shadows 200 --seeds 10 --attacks lira lira-pooled lira-bayes learned"""

import argparse
import sys
from pathlib import Path

import numpy as np
from paired import FIGURES, print_differences

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.gaussian import log_likelihood_ratio
from lira.attacks.metrics import auc, tpr_at_fpr
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets

N_SAMPLES = 20_000


def draw_scores(seed: int, n_shadows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(phi (M, N, 1), member (M, N), exact log likelihood ratio of the target (N,)); lower levels have larger gaps."""
    generator = np.random.default_rng(seed)
    member = np.empty((n_shadows + 1, N_SAMPLES), dtype=bool)
    for row in range(n_shadows + 1):
        half = generator.permutation(N_SAMPLES) < N_SAMPLES // 2
        member[row] = ~member[row - 1] if row and row % 2 == 0 else half
    level = generator.normal(2.0, 2.5, N_SAMPLES)
    gap = np.abs(generator.normal(0.6, 0.5, N_SAMPLES)) * np.exp(-0.15 * level)
    std_out = np.exp(generator.normal(-0.05 * level, 0.35))
    std_in = std_out * np.exp(generator.normal(-0.1, 0.2, N_SAMPLES))
    noise = generator.normal(size=member.shape)
    phi = np.where(member, level + gap / 2 + std_in * noise, level - gap / 2 + std_out * noise)
    exact = log_likelihood_ratio(phi[0], level + gap / 2, std_in**2, level - gap / 2, std_out**2)
    return phi[..., None], member, exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shadows", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    args = parser.parse_args()
    rows: dict[str, list] = {}
    for seed in range(args.seeds):
        phi, member, exact = draw_scores(seed, args.shadows)
        results = attack_targets(phi, member, n_targets=1, attacks=args.attacks)
        for name, score in [(result.attack, result.score) for result in results] + [("exact ratio", exact)]:
            figures = [tpr_at_fpr(score, member[0], rate)["tpr"] for rate in (0.01, 0.001)]
            rows.setdefault(name, []).append([auc(score, member[0]), *figures])
    print(f"{args.shadows} shadows, {N_SAMPLES} samples, mean over {args.seeds} seeds (standard error)")
    print(f"{'attack':20s}" + "".join(f"{figure:>18s}" for figure in FIGURES))
    for name, values in rows.items():
        mean, error = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / np.sqrt(args.seeds)
        print(f"{name:20s}" + "".join(f"{m:10.4f} ({e:.4f})" for m, e in zip(mean, error, strict=True)))
    for name in ("lira-bayes", "learned"):
        if name in rows:
            print_differences(name, rows)


if __name__ == "__main__":
    main()
