"""Who is exposed: the false discovery rate that is realised, how many are identified, and how right p_member is.

Simulated targets, with phi independent of membership and with models that memorise, each time all drawn anew; and the
targets and held-out shadows of real runs. FDR: mean over the targets of the share of non-members among the samples
identified, 0 where nobody is. ECE: of all samples of all targets together, in 15 bins of p_member; beside it what
probabilities that are exactly right would show of as many samples.

    python benchmarks/attacks_exposed.py --null 300 --leaking 50             # simulated targets, per row
    python benchmarks/attacks_exposed.py --runs result/<run> result/<run>    # scores.npz, or files for --scores

Storey: with the share of non-members estimated from the p-values above 1/2, which lira.attacks.exposed does not do."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.exposed import Exposure, calibration_error, q_values, reliability_bins
from lira.attacks.held_out import AttackResult
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets, leave_one_out
from tests.helpers.intervals import Experiment
from tests.helpers.shadows import DESIGNS, scores

RATES, P_VALUES = (0.05, 0.1), (0.01, 0.001)
CHEAP = [name for name in ATTACKS if name != "learned"]  # which is trained anew for every held-out pair
HEAD = ["", *(f"{name} {rate:.0%}" for rate in RATES for name in ("anybody", "identified", "FDR", "FDR, Storey"))]
HEAD += [f"non-members with p <= {p_value:g}" for p_value in P_VALUES]
HEAD += ["ECE", "of exact p_member"]


class Rows:
    """What the targets of one row of the table show. add() each of them, then print."""

    def __init__(self) -> None:
        self.figures: list[list[float]] = []
        self.p_member: list[np.ndarray] = []
        self.member: list[np.ndarray] = []

    def add(self, exposure: Exposure, member: np.ndarray) -> None:
        p_value, row = exposure.p_value, []
        share = min(1.0, 2 * (1 + np.sum(p_value > 0.5)) / np.sum(~np.isnan(p_value)))
        for rate in RATES:
            identified = q_values(p_value) <= rate
            row += [identified.any(), identified.sum(), _false_share(identified, member)]
            row.append(_false_share(share * q_values(p_value) <= rate, member))
        self.figures.append([*row, *(np.mean(p_value[~member] <= limit) for limit in P_VALUES)])
        self.p_member.append(exposure.p_member)
        self.member.append(member)

    def line(self, name: str) -> str:
        figures = np.array(self.figures, dtype=float)
        mean, error = figures.mean(axis=0), figures.std(axis=0) / np.sqrt(max(len(figures) - 1, 1))
        cells = [
            f"{value:.1f}" if "identified" in HEAD[1 + place] else f"{value:.5f} ± {half:.5f}"
            for place, (value, half) in enumerate(zip(mean, error, strict=True))
        ]
        p_member, member = np.concatenate(self.p_member), np.concatenate(self.member)
        generator = np.random.default_rng(0)
        exact = [_ece(p_member, generator.random(len(p_member)) < p_member) for _ in range(20)]
        cells += [f"{_ece(p_member, member):.4f}", f"{np.mean(exact):.4f}"]
        return " | ".join([f"{name}, {len(figures)} targets", *cells])


def _false_share(identified: np.ndarray, member: np.ndarray) -> float:
    return (identified & ~member).sum() / max(identified.sum(), 1)


def _ece(p_member: np.ndarray, member: np.ndarray) -> float:
    return calibration_error(reliability_bins(p_member, member))


def exposures(results: list[AttackResult]) -> Iterator[tuple[Exposure, int]]:
    """(exposure, row of phi) of the strongest attack on each target."""
    return ((result.exposure, result.target) for result in results if result.exposure)


def alike(seed: int, **how) -> tuple[np.ndarray, np.ndarray]:
    """scores() where phi is drawn from one distribution for all samples and models."""
    phi, member = scores(seed, **how)
    return np.random.default_rng((seed, 1)).normal(size=phi.shape), member


def other_pool(seed: int, experiment: Experiment, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the experiment, those of all shadows shifted alike for each sample, as by training images that they
    share and the target does not. deviation: of the shifts; that of a sample's phi over models is 0.86."""
    phi, member = experiment.scores((seed, 3))
    shift = np.random.default_rng((seed, 4)).normal(scale=deviation, size=phi.shape[1])
    phi[1:] += shift.astype(phi.dtype)
    return phi, member


def print_simulated(name: str, repetitions: int, draw: Callable[[int], tuple], attacks: list[str]) -> None:
    """draw(seed) -> (phi, member) whose first row is the target."""
    rows = Rows()
    for seed in range(repetitions):
        phi, member = draw(seed)
        for exposure, target in exposures(attack_targets(phi, member, n_targets=1, attacks=attacks)):
            rows.add(exposure, member[target])
    print(rows.line(name), flush=True)


def print_run(path: Path) -> None:
    with np.load(path if path.suffix == ".npz" else path / "scores.npz", allow_pickle=False) as file:
        phi, member = file["phi"], file["member"]
        n_targets = int(np.sum(file["role"] == 0)) if "role" in file.files else 1
    how = dict(n_targets=n_targets, attacks=CHEAP)
    for kind, results in (
        ("held-out shadows", leave_one_out(phi, member, **how)),
        ("targets", attack_targets(phi, member, **how)),
        ("targets, any attack", attack_targets(phi, member, n_targets=n_targets)),
    ):
        rows, names = Rows(), {result.attack for result in results if result.exposure}
        for exposure, target in exposures(results):
            rows.add(exposure, member[target])
        print(rows.line(f"{path.name.removesuffix('.npz')}: {kind}, {'/'.join(sorted(names))}"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", type=int, default=0, help="targets whose phi is independent of membership, per row")
    parser.add_argument("--leaking", type=int, default=0, help="targets of models that memorise, per row")
    parser.add_argument("--shadows", type=int, nargs="+", default=[6, 8, 20])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=["pairs"], help="of the null targets")
    parser.add_argument("--variation", type=float, nargs="+", default=[1.0, 5.0], help="between models: Experiment")
    parser.add_argument("--pool", type=float, nargs="+", default=[0.0], help="what the shadows share: other_pool()")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=CHEAP, help="the strongest of them counts")
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    args = parser.parse_args()
    print(" | ".join(HEAD))
    for n_shadows in args.shadows:
        for design in args.designs if args.null else ():
            how = dict(n_shadows=n_shadows, n_samples=args.samples, gap=0.0, design=design)
            name = f"null, {n_shadows} shadows, {design}"
            print_simulated(name, args.null, partial(scores, **how), args.attacks)
            print_simulated(f"{name}, samples alike", args.null, partial(alike, **how), args.attacks)
        for variation, pool in itertools.product(args.variation, args.pool) if args.leaking else ():
            experiment = Experiment(args.samples, n_shadows, n_targets=1, variation=variation)
            name = f"leaking, {n_shadows} shadows, variation {variation:g}" + (f", pool {pool:g}" if pool else "")
            draw = partial(other_pool, experiment=experiment, deviation=pool)
            print_simulated(name, args.leaking, draw, args.attacks)
    for path in args.runs:
        print_run(path)


if __name__ == "__main__":
    main()
