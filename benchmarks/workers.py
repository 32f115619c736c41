"""Images/s of one worker with two threads, and of two workers with one thread each.

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
SETTINGS = {
    "1 worker x 2 threads": ([sys.executable], "2"),
    "2 workers x 1 thread": ([*TORCHRUN, "2"], "1"),
}


def rate(command: list[str], threads: str, flags: list[str]) -> float:
    """Images/s of all models of a run without start-up, as the script prints it."""
    with tempfile.TemporaryDirectory() as folder:
        folders = ["--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]
        script = [*command, str(ROOT / "train_model.py"), *flags, *folders, "--threads", threads]
        output = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    images_per_second = re.search(r"([\d,]+) images/s", output)
    assert images_per_second, output
    return float(images_per_second[1].replace(",", ""))


def main() -> None:
    flags = sys.argv[1:] or FLAGS
    print(shlex.join(["train_model.py", *flags]))
    rates: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    for _ in range(3):  # alternating, so that both see the same load of the machine
        for setting, (command, threads) in SETTINGS.items():
            rates[setting].append(rate(command, threads, flags))
    for setting, measured in rates.items():
        print(f"{setting}: {max(measured):,.0f} images/s, the best of {', '.join(f'{x:,.0f}' for x in measured)}")


if __name__ == "__main__":
    main()
