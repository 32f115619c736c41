"""Coverage of the confidence intervals, nominally 95 %.

First those over the sampling of target samples alone: attacks with normal scores a known distance apart, as they are
and rounded so that many tie. Then those of attack.csv: whole experiments of closed-form models, of which samples,
targets and shadows are drawn anew each time, attacked like real ones; for one target, for the mean over four, and for
the binomial intervals that take models or thresholds as given.

    python benchmarks/attacks_coverage.py            # 200 repetitions per row, half an hour
    python benchmarks/attacks_coverage.py --variation 5 --samples 2000 --shadows 8 20
    python benchmarks/attacks_coverage.py --audit    # audits of 1,000 simulated mechanisms per row, twenty minutes
    python benchmarks/attacks_coverage.py --replicates result/<run of exp-idx 0> result/<run of exp-idx 1> ..."""

import argparse
import itertools
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.audits import CANARY_SHARE
from lira.attacks.tables import summary_table
from lira.privacy import f_dp
from lira.privacy.audit import CONFIDENCE, Mechanism, count_guesses, fisher
from tests.helpers.intervals import METRICS, RATES, Experiment, coverage, misses, tprs_of_a_large_experiment
from tests.helpers.mechanisms import Gaussian, RandomizedResponse, SubsampledGaussian, audit_bounds, f_dp_audits

ATTACKS = ("lira", "lira-bayes", "loss")
Z = norm.ppf(0.975)
SETTINGS = [  # (samples, distance, rounded to multiples of)
    (600, 0.1, None),
    (2000, 0.3, None),
    (2000, 1.0, None),
    (10_000, 0.3, None),
    (2000, 1.0, 0.1),
    (2000, 0.3, 1.0),
]

MECHANISMS = [
    RandomizedResponse(0.0),
    RandomizedResponse(1.0),
    RandomizedResponse(4.0),
    RandomizedResponse(2.0, silent=0.5),
    RandomizedResponse(4.0, delta=2e-4),
    RandomizedResponse(2.0, delta=2e-3),
    RandomizedResponse(2.0, delta=2e-3, together=20),
    RandomizedResponse(2.0, delta=1e-2, together=20),
]
N_AUDITED = 200

F_DP_MECHANISMS = {  # name -> mechanism of n samples, number of guesses or None for the best
    "Gaussian, mu 0": lambda n: (Gaussian(0.0), None),
    "Gaussian, mu 0.5": lambda n: (Gaussian(0.5), None),
    "Gaussian, mu 2": lambda n: (Gaussian(2.0), None),
    "subsampled Gaussian, sigma 0.6, q 1/4, 10 steps": lambda n: (SubsampledGaussian(Mechanism(0.6, 0.25, 10)), None),
    "subsampled Gaussian, sigma 1.42, q 1/4, 60 steps": lambda n: (SubsampledGaussian(Mechanism(1.42, 0.25, 60)), None),
    "randomized response, epsilon 1": lambda n: (RandomizedResponse(1.0), None),
    "randomized response, epsilon 4": lambda n: (RandomizedResponse(4.0), None),
    "reveals all with probability 0.05": lambda n: (RandomizedResponse(0.0, delta=0.05, together=n), 2 * n // 5),
}
CANARIES = {8: Mechanism(1.417, 0.25, 60), 2: Mechanism(4.1, 0.25, 60), 1: Mechanism(7.5, 0.25, 60)}  # by epsilon


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


def f_dp_coverage(audits: int, seed: int) -> None:
    """A table of how many bounds exceed the true mu, how many tests reject the true curve, of one target and of four
    together, and the median bound."""
    print(f"\n{audits} audits: bounds that exceed mu, p-values below 0.05 and 0.1, median of the bounds")
    print("| mechanism | samples | above mu | p < 0.05 | p < 0.1 | 4 targets: p < 0.05 | p < 0.1 | median mu |")
    for name, of_samples in F_DP_MECHANISMS.items():
        for n in (200, 2000):
            mechanism, k = of_samples(n)
            mu, p = f_dp_audits(mechanism, n, audits=4 * audits, seed=seed, k=k)
            pooled = fisher(np.log(p).reshape(audits, 4))
            above = (mu[:audits] > mechanism.mu).sum() if np.isfinite(mechanism.mu) else "no mu"
            cells = [
                name,
                n,
                above,
                *((which < limit).sum() for which in (p[:audits], pooled) for limit in (0.05, 0.1)),
            ]
            cells.append(f"{np.median(mu):.2f}")
            print("|", " | ".join(map(str, cells)), "|", flush=True)


def canary_power(audits: int, seed: int) -> None:
    """Canaries of one target whose noise is as claimed, and half of it: the bounds and how often the curve is refuted,
    at the share of the significance that audit.csv gives that test."""
    significance = CANARY_SHARE * (1 - CONFIDENCE)
    print(
        f"\n{audits} runs of 60 steps at rate 1/4: epsilon of the Gaussian curve, median [5 %, 95 %] and highest, and"
    )
    print(f"how many refute the claimed curve at {significance:g}, with the noise as claimed and with half of it")
    print("| claimed epsilon | canaries | k1, k2 | bound | highest | refuted | half the noise: refuted | bound |")
    for (epsilon, claimed), n in itertools.product(CANARIES.items(), (500, 2000, 5000)):
        curve, rng = f_dp.compose(claimed), np.random.default_rng((seed, epsilon, n))
        _, k1 = f_dp.choose_guesses({"": f_dp.expected_counts(curve, n)}, n_audited=n)
        k2 = f_dp.choose_test(claimed, n_audited=n)
        cells = []
        for sigma in (claimed.sigma, claimed.sigma / 2):
            canaries = SubsampledGaussian(replace(claimed, sigma=sigma), claimed)
            draws = (canaries.draw(rng, n) for _ in range(audits))
            counts = np.array([[count_guesses(*draw, n_high=k, n_low=0)[0] for k in (k1, k2)] for draw in draws])
            unique, place = np.unique(counts[:, 0], return_inverse=True)
            mu = [f_dp.largest_mu(n_correct, k1, n_audited=n) for n_correct in unique.tolist()]
            bounds = np.array([f_dp.gaussian_epsilon(value, f_dp.DELTA) for value in mu])[place]
            how = dict(n_audited=n, family=curve.lowest_fpr)
            refuted = f_dp.is_impossible(significance, counts[:, 1], k2, 0.0, **how).sum()
            low, middle, high = np.quantile(bounds, [0.05, 0.5, 0.95])
            cells.append((f"{middle:.2f} [{low:.2f}, {high:.2f}]", f"{bounds.max():.2f}", str(refuted)))
        (bound, highest, refuted), (half_bound, _, half_refuted) = cells
        row = [str(epsilon), str(n), f"{k1}, {k2}", bound, highest, refuted, half_refuted, half_bound]
        print("|", " | ".join(row), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", type=int, default=1000, help="of normal scores; 0: none")
    parser.add_argument("--repetitions", type=int, default=200, help="of each experiment; 0: none")
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 2000, 10_000])
    parser.add_argument("--shadows", type=int, nargs="+", default=[8, 20, 64])
    parser.add_argument("--variation", type=float, nargs="+", default=[1.0], help="between models, see Experiment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audit", action="store_true", help="audits of simulated mechanisms; nothing else")
    parser.add_argument("--replicates", type=Path, nargs="+", help="runs that differ in --exp-idx alone; nothing else")
    args = parser.parse_args()
    if args.audit:
        for part in (audit_coverage, f_dp_coverage, canary_power):
            part(args.attacks, args.seed)
        return
    if args.replicates:
        print_replicates([pd.read_csv(folder / "attack.csv") for folder in args.replicates])
        return
    if args.attacks:
        print_samples_alone(args.attacks, args.seed)
    for variation in args.variation if args.repetitions else ():
        print_experiments(variation, args)


def print_samples_alone(attacks: int, seed: int) -> None:
    print(f"{attacks} attacks per row; standard error of a coverage of 0.95: {np.sqrt(0.95 * 0.05 / attacks):.4f}")
    for n_samples, distance, grain in SETTINGS:
        missed = misses(n_samples, distance, grain, RATES, attacks=attacks, seed=seed)
        covered = "  ".join(f"{name} {1 - count / attacks:.4f}" for name, count in missed.items())
        rounding = f", rounded to {grain}" if grain else ""
        print(f"{n_samples:6d} samples, distance {distance}{rounding}: {covered}", flush=True)


def print_experiments(variation: float, args: argparse.Namespace) -> None:
    error = np.sqrt(0.95 * 0.05 / args.repetitions)
    print(f"\n{args.repetitions} repetitions, variation {variation:g}; standard error of a coverage: {error:.3f}")
    print("accuracy of all guesses and TPR given its threshold, as binomials; then 1 target / 4 targets, and the width")
    print("of the interval over that of one from the true deviation")
    head = ["accuracy", *(f"TPR {rate:g}" for rate in RATES), "accuracy", "AUC", *(f"TPR {rate:g}" for rate in RATES)]
    print(" | ".join(["shadows, samples, attack", *head]))
    for n_shadows in args.shadows:
        large = Experiment(max(args.samples), n_shadows, variation=variation)
        tpr = tprs_of_a_large_experiment(large, ATTACKS, repetitions=20, seed=(args.seed, 1))
        for n_samples in args.samples:
            experiment = Experiment(n_samples, n_shadows, variation=variation)
            covered, width = coverage(experiment, ATTACKS, tpr, repetitions=args.repetitions, seed=(args.seed, 2))
            for attack in ATTACKS:
                cells = [f"{covered[attack, f'{metric}, binomial']:.3f}" for metric in METRICS if metric != "auc"]
                for metric in METRICS:
                    pairs = [
                        [which[attack, f"{metric}, {n}"] for n in (1, experiment.n_targets)]
                        for which in (covered, width)
                    ]
                    cells.append(f"{pairs[0][0]:.3f} / {pairs[0][1]:.3f} ({pairs[1][0]:.2f} / {pairs[1][1]:.2f})")
                print(" | ".join([f"{n_shadows}, {n_samples}, {attack}", *cells]), flush=True)


def print_replicates(runs: list[pd.DataFrame]) -> None:
    """Every two runs, every attack: how often an interval of the difference contains 0, and its root mean square in
    units of its standard error. Half-widths are added as squares, those on the side of the other run."""
    print("metric | one target | all targets | as binomials | rms | as binomials")
    for metric in METRICS:
        cells = []
        for tables in (runs, [summary_table(run) for run in runs]):
            pairs = [
                pair
                for first, second in itertools.combinations(tables, 2)
                for attack in first.attack.unique()
                for pair in itertools.product(*(table[table.attack == attack].iloc for table in (first, second)))
            ]
            z = np.array([_difference(*pair, metric) for pair in pairs])
            cells.append(f"{np.mean(np.abs(z) <= 1):.3f} of {len(z)}")
        binomial = [_binomial_difference(*pair, metric) for pair in pairs]
        cells += [
            "" if metric == "auc" else f"{np.mean(np.abs(binomial) <= Z):.3f}",
            f"{Z * np.sqrt(np.mean(z**2)):.2f}",
        ]
        cells.append("" if metric == "auc" else f"{np.sqrt(np.mean(np.square(binomial))):.2f}")
        print(" | ".join([metric, *cells]))


def _difference(first: pd.Series, second: pd.Series, metric: str) -> float:
    """In half-widths of its interval."""
    low, high = sorted([first, second], key=lambda row: row[metric])
    return (high[metric] - low[metric]) / np.hypot(
        high[metric] - high[f"{metric}_low"], low[f"{metric}_high"] - low[metric]
    )


def _binomial_difference(first: pd.Series, second: pd.Series, metric: str) -> float:
    """In standard errors; half of the guesses are on members."""
    n = first.n_guesses if metric == "accuracy" else first.n_guesses / 2
    variance = sum(row[metric] * (1 - row[metric]) / n for row in (first, second))
    return (first[metric] - second[metric]) / np.sqrt(variance)


if __name__ == "__main__":
    main()
