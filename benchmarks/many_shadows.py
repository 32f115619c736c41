"""256 shadows on digits, one epoch each: is the cost per model constant, and how much memory does the attack need?

python benchmarks/many_shadows.py [flags of train_model.py]"""

import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
FLAGS = shlex.split("--dataset digits --network ConvNet --disable-dp --epochs 1 --n-shadows 256 --n-train 20")


def main() -> None:
    flags = [*FLAGS, *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        folders = ["--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]
        subprocess.run([sys.executable, ROOT / "train_model.py", *flags, *folders], check=True)
        report_training(Path(folder))
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run([sys.executable, ROOT / "attack_lira.py", *flags, *folders], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"attack_lira.py: at most {peak / 1024:,.0f} MB (training: {before / 1024:,.0f} MB)")


def report_training(folder: Path) -> None:
    """Time from one finished model to the next, minus the training time in its log."""
    paths = sorted(folder.glob("model/*/*.pt"), key=lambda path: path.stat().st_mtime_ns)
    finished = np.array([path.stat().st_mtime_ns for path in paths]) / 1e9
    logs = (pd.read_csv(next(folder.glob(f"result/*/train/{path.stem}.csv"))) for path in paths)
    training = np.array([log.seconds.iloc[-1] for log in logs])
    overhead = (np.diff(finished) - training[1:]) * 1000
    quarters = [f"{np.median(part):.1f}" for part in np.array_split(overhead, 4)]
    print(
        f"{len(paths)} models; overhead per model beside training, in ms, by quarters of the run: {', '.join(quarters)}"
    )
    print(f"training itself: {np.median(training) * 1000:.0f} ms per model")


if __name__ == "__main__":
    main()
