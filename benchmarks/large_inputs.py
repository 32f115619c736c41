"""Large inputs: how much memory do the scripts take beside the arrays themselves, and how long?

    python benchmarks/large_inputs.py [case ...]

Scores are drawn at random (phi of members lie one standard deviation higher), so the attacks have something to find."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy import ndarray

ROOT = Path(__file__).parent.parent
TINY_RUN = "--dataset {file} --network ConvNet --disable-dp --epochs 1 --lr-step 1 --n-train 200 --n-shadows 4 --quiet"


def scores(*, n_targets: int, n_shadows: int, n_samples: int, n_classes: int, with_logits: bool = False) -> dict:
    """Arrays of a --scores file: phi float32 (M, N), or logits float32 (M, N, K); complementary pairs of shadows."""
    rng = np.random.default_rng(0)
    half = rng.permuted(np.tile(np.arange(n_samples) % 2 == 0, (n_targets + n_shadows // 2, 1)), axis=1)
    pairs = np.stack([half[n_targets:], ~half[n_targets:]], axis=1).reshape(n_shadows, n_samples)
    member = np.concatenate([half[:n_targets], pairs])
    label = rng.integers(n_classes, size=n_samples)
    if not with_logits:
        phi = rng.normal(size=n_samples) * 2 + rng.normal(size=member.shape) + member
        return {"phi": phi.astype(np.float32), "member": member, "label": label}
    logits = rng.normal(size=(*member.shape, n_classes)).astype(np.float32)
    np.put_along_axis(logits, np.broadcast_to(label, member.shape)[..., None], (4 + member)[..., None], axis=2)
    return {"logits": logits, "member": member, "label": label}


def small_images() -> dict:
    """The arrays of a data set: 500,000 training images of 8 x 8, and 2,000 target samples."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 500_000), ("test", 2_000)):
        arrays[f"x_{part}"] = rng.integers(256, size=(n, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % 10
    return arrays


SCORES = {
    "256 shadows x 50,000 samples": dict(n_targets=1, n_shadows=256, n_samples=50_000, n_classes=100),
    "100 targets": dict(n_targets=100, n_shadows=20, n_samples=10_000, n_classes=10),
    "1,000 classes": dict(n_targets=1, n_shadows=20, n_samples=50_000, n_classes=1_000),
    "logits of 1,000 classes": dict(n_targets=1, n_shadows=20, n_samples=5_000, n_classes=1_000, with_logits=True),
}
IMAGES = "500,000 images of 8 x 8"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of: {', '.join([*SCORES, IMAGES])}")
    cases = parser.parse_args().cases or [*SCORES, IMAGES]
    if unknown := set(cases) - {*SCORES, IMAGES}:
        parser.error(f"no case is called {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        peak, _ = peak_mb([sys.executable, "-c", "import attack_lira, common, pandas"])
        print(f"{'imports alone':42} {peak:6,.0f} MB", flush=True)
        for case in cases:
            measure(case, Path(folder))


def measure(case: str, folder: Path) -> None:
    folders = ["--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result", "--data-root", str(folder)]
    file = folder / f"{case.replace(' ', '-')}.npz"
    if case == IMAGES:
        n_bytes = write(file, small_images())
        flags = [*shlex.split(TINY_RUN.format(file=file)), *folders]
        commands = {"train_model.py": ["train_model.py", *flags], "attack_lira.py": ["attack_lira.py", *flags]}
    else:
        sizes = SCORES[case]
        n_bytes = write(file, scores(**sizes))
        flags = ["--scores", str(file), "--n-runs", str(sizes["n_targets"]), "--quiet", *folders]
        commands = {"attack_lira.py": ["attack_lira.py", *flags]}
    for script, command in commands.items():
        peak, seconds = peak_mb([sys.executable, *command])
        print(
            f"{case:26} {script:15} {peak:6,.0f} MB at most, arrays {n_bytes / 1e6:5,.0f} MB, {seconds:5.0f} s",
            flush=True,
        )
    file.unlink()


def write(file: Path, arrays: dict[str, ndarray]) -> int:
    np.savez(file, **arrays)
    return sum(array.nbytes for array in arrays.values())


def peak_mb(command: list[str]) -> tuple[float, float]:
    """Largest resident memory of a command, in MB, and its seconds."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{shlex.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e6, time.monotonic() - start


if __name__ == "__main__":
    main()
