"""Speed of the attacks: processor seconds, peak memory, and `lira` against a loop over SciPy's densities.

OMP_NUM_THREADS=1 python benchmarks/attacks_speed.py            # a minute; --small skips 256 x 50,000"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import multivariate_normal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.gaussian import fit_lira
from lira.attacks.inputs import AttackOptions
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets
from lira.attacks.statistics import Statistics


def draw_scores(n_shadows: int, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """(phi (M, N, 1) float32, member (M, N)) of one target and complementary pairs of shadows."""
    generator = np.random.default_rng(0)
    member = np.empty((n_shadows + 1, n_samples), dtype=bool)
    for row in range(n_shadows + 1):
        paired = row > 0 and row % 2 == 0
        member[row] = ~member[row - 1] if paired else generator.random(n_samples) < 0.5
    level = generator.normal(2, 3, n_samples)
    phi = np.empty((*member.shape, 1), dtype=np.float32)
    for row, inside in enumerate(member):
        phi[row, :, 0] = level + inside + generator.normal(size=n_samples)
    return phi, member


def measure(action: Callable[[], Any]) -> tuple[float, Any]:
    """(processor seconds of this process, result)."""
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def print_table(n_shadows: int, n_samples: int, *, with_learned: bool) -> None:
    phi, member = draw_scores(n_shadows, n_samples)

    def seconds(*attacks: str) -> float:
        return measure(lambda: attack_targets(phi, member, n_targets=1, attacks=attacks))[0]

    formulas = [name for name in ATTACKS if name != "learned"]
    together = seconds(*formulas)
    print(f"{n_shadows} shadows x {n_samples} samples, scores and thresholds, one target")
    print(f"  all but learned   {together:7.2f} s   peak memory of the process {peak_memory():.2f} GB")
    for name in formulas:
        print(f"    {name:20s}{seconds(name):7.2f} s")
    if with_learned:
        print(f"  learned           {seconds('learned'):7.2f} s")


def peak_memory() -> float:
    """Of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare_with_scipy(n_shadows: int, n_samples: int) -> None:
    """Fit, then score one or all models with all shadows: one score per model and sample, two densities per score."""
    phi, member = draw_scores(n_shadows, n_samples)
    phi64 = phi.astype(np.float64)

    def ours(models: np.ndarray = phi64) -> np.ndarray:
        return fit_lira(Statistics.from_shadows(phi[1:], member[1:]), AttackOptions())(models, None)[..., 0]

    def loop(models: int, samples: int) -> np.ndarray:
        result = np.empty((models, samples))
        for n in range(samples):
            inside, outside = phi64[1:][member[1:, n], n, 0], phi64[1:][~member[1:, n], n, 0]
            fits = [(x.mean(), x.var(ddof=1) + 1e-5) for x in (inside, outside)]
            for m in range(models):
                p_in, p_out = (multivariate_normal.pdf(phi64[m, n, 0], mean, var) for mean, var in fits)
                result[m, n] = np.log(p_in) - np.log(p_out)
        return result

    ours()
    all_models = min(measure(ours)[0] for _ in range(5))
    one_model = min(measure(lambda: ours(phi64[:1]))[0] for _ in range(5))
    n_looped = 300  # samples; the loop's time is proportional to them
    loop_all, expected = measure(lambda: loop(n_shadows + 1, n_looped))
    loop_one, _ = measure(lambda: loop(1, n_looped))
    np.testing.assert_allclose(ours()[:, :n_looped], expected, rtol=1e-6, atol=1e-6)
    print(f"lira, fit and scores, {n_shadows} x {n_samples}, against two calls of multivariate_normal.pdf per score")
    for models, our_seconds, loop_seconds in [("one model", one_model, loop_one), ("all models", all_models, loop_all)]:
        scaled = loop_seconds * n_samples / n_looped
        print(f"  {models:12s}{our_seconds * 1e3:9.1f} ms   loop {scaled:8.1f} s   ratio {scaled / our_seconds:8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="skip 256 shadows x 50,000 samples")
    small = parser.parse_args().small
    compare_with_scipy(20, 10_000)
    print_table(20, 10_000, with_learned=True)
    if not small:
        print_table(256, 50_000, with_learned=False)


if __name__ == "__main__":
    main()
