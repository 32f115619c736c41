"""Images a second of one worker with two threads, and of two workers with one thread each.

python benchmarks/workers.py [flags of train_model.py]"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLAGS = shlex.split("--dataset digits --network ConvNet --disable-dp --epochs 10 --n-shadows 6 --n-runs 2 --quiet")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
WAYS = {
    "1 worker x 2 threads": ([sys.executable], "2"),
    "2 workers x 1 thread": ([*TORCHRUN, "2"], "1"),
}


def rate(command: list[str], threads: str, flags: list[str]) -> float:
    """Images a second of a whole fleet, start-up left out, as the script itself prints it."""
    with tempfile.TemporaryDirectory() as folder:
        folders = ["--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]
        said = subprocess.run(
            [*command, ROOT / "train_model.py", *flags, *folders, "--threads", threads],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    return float(re.search(r"([\d,]+) images/s", said)[1].replace(",", ""))


def main() -> None:
    flags = sys.argv[1:] or FLAGS
    print(shlex.join(["train_model.py", *flags]))
    rates = {way: [] for way in WAYS}
    for _ in range(3):  # in turns, so that both see the same neighbours
        for way, (command, threads) in WAYS.items():
            rates[way].append(rate(command, threads, flags))
    for way, seen in rates.items():
        print(f"{way}: {max(seen):,.0f} images/s, the best of {', '.join(f'{one:,.0f}' for one in seen)}")


if __name__ == "__main__":
    main()
