"""How fast the attacks are: processor seconds, peak memory, and `lira` against a loop over SciPy's
densities, in one run.

OMP_NUM_THREADS=1 python benchmarks/attacks_speed.py            # about a minute; --small skips 256 x
50,000"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import multivariate_normal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.attacks.gaussian import fit_lira
from lira.attacks.inputs import AttackOptions
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets
from lira.attacks.statistics import Statistics


def scores(n_shadows, n_samples):
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


def clock(action):
    """(processor seconds, result): what the action costs, whatever else the machine does."""
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def table(n_shadows, n_samples, *, with_learned):
    phi, member = scores(n_shadows, n_samples)
    formulas = [name for name in ATTACKS if name != "learned"]
    seconds, _ = clock(lambda: attack_targets(phi, member, n_targets=1, attacks=formulas))
    print(f"{n_shadows} shadows x {n_samples} samples, scores and thresholds, one target")
    print(f"  all but learned   {seconds:7.2f} s   peak memory of the process {peak():.2f} GB")
    for name in formulas:
        seconds, _ = clock(lambda name=name: attack_targets(phi, member, n_targets=1, attacks=[name]))
        print(f"    {name:20s}{seconds:7.2f} s")
    if with_learned:
        seconds, _ = clock(lambda: attack_targets(phi, member, n_targets=1, attacks=["learned"]))
        print(f"  learned           {seconds:7.2f} s")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def against_scipy(n_shadows, n_samples):
    """Fit and score every shadow with all of them (a score a model and sample, two densities a score)."""
    phi, member = scores(n_shadows, n_samples)
    wide = phi.astype(np.float64)

    def ours(models=wide):
        return fit_lira(Statistics.from_shadows(phi[1:], member[1:]), AttackOptions())(models, None)[..., 0]

    def loop(models, samples):
        result = np.empty((models, samples))
        for n in range(samples):
            inside, outside = wide[1:][member[1:, n], n, 0], wide[1:][~member[1:, n], n, 0]
            fits = [(x.mean(), x.var(ddof=1) + 1e-5) for x in (inside, outside)]
            for m in range(models):
                one, two = (multivariate_normal.pdf(wide[m, n, 0], mean, var) for mean, var in fits)
                result[m, n] = np.log(one) - np.log(two)
        return result

    ours()
    fast = min(clock(ours)[0] for _ in range(5))
    one = min(clock(lambda: ours(wide[:1]))[0] for _ in range(5))
    some = 300  # samples that the loop does; its time is proportional to them
    slow, expected = clock(lambda: loop(n_shadows + 1, some))
    slow_one, _ = clock(lambda: loop(1, some))
    np.testing.assert_allclose(ours()[:, :some], expected, rtol=1e-6, atol=1e-6)
    print(f"lira, fit and scores, {n_shadows} x {n_samples}, against multivariate_normal.pdf twice a score")
    for what, quick, slow_seconds in [("one model", one, slow_one), ("every model", fast, slow)]:
        slow_seconds *= n_samples / some
        ratio = slow_seconds / quick
        print(f"  {what:12s}{quick * 1e3:9.1f} ms   loop {slow_seconds:8.1f} s   ratio {ratio:8.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="skip 256 shadows x 50,000 samples")
    small = parser.parse_args().small
    against_scipy(20, 10_000)
    table(20, 10_000, with_learned=True)
    if not small:
        table(256, 50_000, with_learned=False)


if __name__ == "__main__":
    main()
