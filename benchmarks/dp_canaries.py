"""What gradient canaries cost, and what they catch.

    python benchmarks/dp_canaries.py cost [--seeds 10] [FLAGS of train_model.py]
    python benchmarks/dp_canaries.py bounds [--seeds 10]
    python benchmarks/dp_canaries.py breakages [--seeds 10] [--correct 40] [FLAGS of train_model.py]

Targets without shadows; default FLAGS: digits, ConvNet, epsilon 8, 15 epochs, one thread.

cost: of each noise seed a target with canaries and one without, epoch by epoch in turn: test accuracy, CPU seconds of
training, and the canaries' f-DP bound. bounds: this bound, and the p-value of the accounted curve, of the mechanism
alone at three epsilons and with noise of half the size. breakages: every breakage of tests/helpers/breakages.py: in how
many runs the mechanism check deviates, by the check that has to name it and by any; in how many the f-DP test refutes
the accounted curve at 95 %, and the median f-DP bound."""

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import Trainer, prepare
from lira.privacy.accounting import min_noise_multiplier
from lira.privacy.audit import Mechanism
from lira.privacy.canaries import audit_step
from lira.privacy.f_dp import audit_canaries
from lira.privacy.mechanism import check_mechanisms
from lira.training.kernels import keep_freed_memory
from tests.helpers.breakages import BREAKAGES, broken
from util import parse_args

FLAGS = ["--dataset", "digits", "--network", "ConvNet", "--target-epsilon", "8", "--epochs", "15", "--quiet"]


def make_target(flags: Sequence[str], seed: int) -> Trainer:
    return Trainer(prepare(parse_args([*FLAGS, *flags, "--noise-seed", str(seed)], description="")), "target", 0)


def f_dp(target: Trainer) -> tuple[float, float]:
    """(bound, p-value of the accounted curve)."""
    return audit_canaries(target.private.canaries.scores(), target.private.mechanism(), delta=1e-5)


def train_in_turn(pair: Sequence[Trainer]) -> list[float]:
    """Train both, epoch by epoch in turn. Returns the CPU seconds of each."""
    seconds, running = [0.0, 0.0], [target.epochs() for target in pair]
    for epoch in range(pair[0].n_epochs):
        for which in (0, 1) if epoch % 2 else (1, 0):
            start = time.process_time()
            next(running[which])
            seconds[which] += time.process_time() - start
    return seconds


def cost(flags: Sequence[str], n_seeds: int) -> None:
    accuracies, seconds = [], []
    for seed in range(n_seeds):
        pair = [make_target([*flags, *extra], seed) for extra in ([], ["--canaries", "0"])]
        seconds.append(train_in_turn(pair))
        accuracies.append([target.history[-1]["test_accuracy"] for target in pair])
        bound, _ = f_dp(pair[0])
        shown = f"accuracy {accuracies[-1][0]:.1%} with, {accuracies[-1][1]:.1%} without; f-DP bound {bound:.2f}"
        print(f"seed {seed}: {shown} of {pair[0].history[-1]['epsilon']:.2f}", flush=True)
    accuracy, difference = np.array(accuracies), np.subtract(*np.transpose(accuracies))
    means, deviations = accuracy.mean(axis=0), accuracy.std(axis=0, ddof=1)
    print(f"accuracy with {means[0]:.1%} +- {deviations[0]:.1%}, without {means[1]:.1%} +- {deviations[1]:.1%}")
    print(f"difference {difference.mean():+.2%}, standard error {difference.std(ddof=1) / np.sqrt(n_seeds):.2%}")
    ratio = np.divide(*np.transpose(seconds))
    print(f"CPU time with / without: median {np.median(ratio):.3f}, {ratio.min():.3f} to {ratio.max():.3f}")


def bounds(n_seeds: int) -> None:
    """60 steps at rate 1/4, 5,000 canaries, no network and no images."""
    for target_epsilon, factor in ((8, 1.0), (2, 1.0), (1, 1.0), (8, 0.5)):
        claimed = Mechanism(min_noise_multiplier(target_epsilon, "prv", 0.25, 60, 1e-5), 0.25, 60)
        shown = []
        for seed in range(n_seeds):
            step = partial(noisy_sum, factor * claimed.sigma, torch.Generator().manual_seed(seed))
            audit = audit_step(
                step, {"weights": torch.zeros(6000)}, claimed, max_grad_norm=1, n_canaries=5000, seed=seed
            )
            shown.append(audit.f_dp(1e-5))
        epsilons, p_values = np.transpose(shown)
        median = f"median bound {np.median(epsilons):.2f}, {epsilons.min():.2f} to {epsilons.max():.2f}"
        noise = f"noise {factor * claimed.sigma:.3f} of {claimed.sigma:.3f}"
        print(f"epsilon {target_epsilon}, {noise}: {median}; p-value {p_values.min():.2g} to {p_values.max():.2g}")


def noisy_sum(sigma: float, generator: torch.Generator, per_sample: list[torch.Tensor]) -> list[torch.Tensor]:
    total = per_sample[0].sum(0) / 10  # each of norm 10
    return [total + sigma * torch.randn(total.shape, generator=generator)]


def breakages(flags: Sequence[str], n_seeds: int, n_correct: int) -> None:
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # where all samples are empty
    for breakage, check in [(None, "-"), *BREAKAGES.items()]:
        n_runs, n_deviating, deviating, bounds = n_seeds if breakage else n_correct, 0, Counter[str](), []
        for seed in range(n_runs):
            with broken(breakage):
                target = make_target(flags, seed)
                list(target.epochs())
            (outcomes,) = check_mechanisms([target.private.canaries.estimates()], [target.private.mechanism()])
            checks = {outcome.check for outcome in outcomes if outcome.deviates}
            n_deviating += bool(checks)
            deviating.update(checks)
            bounds.append(f_dp(target))
        name = breakage.__name__.replace("_", " ") if breakage else "correct"
        counts = f"{n_runs:3} runs, {n_deviating:3} deviate, {deviating[check]:3} by {check:15}"
        epsilons, p_values = np.transpose(bounds)
        curve = f"{np.sum(p_values < 0.05):3} by the f-DP test, median bound {np.median(epsilons):.2f}"
        print(f"{name:32}{counts}, {curve} {dict(deviating)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "bounds", "breakages"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--correct", type=int, default=40, help="runs that are not broken")
    args, flags = parser.parse_known_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    if args.what == "cost":
        cost(flags, args.seeds)
    elif args.what == "bounds":
        bounds(args.seeds)
    else:
        breakages(flags, args.seeds, args.correct)


if __name__ == "__main__":
    main()
