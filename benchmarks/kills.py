"""The real scripts, killed at random times and on a full disk: do they end where an untouched run does?

    python benchmarks/kills.py [seed]

tests/test_resume.py does the same at moments chosen for where they hurt; here the moment is any."""

import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
FLAGS = shlex.split(
    "--dataset digits --network ConvNet --disable-dp --epochs 4 --n-shadows 4 --n-train 60 --checkpoint-every 1 "
    "--device cpu --threads 1 --quiet"
)
ENV = os.environ | {"OMP_NUM_THREADS": "1"}
ALONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
KILLS = 10


def flags(folder: Path) -> list[str]:
    return [*FLAGS, "--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]


def start(command, folder: Path) -> subprocess.Popen:
    script = [*command, ROOT / "train_model.py", *flags(folder)]
    return subprocess.Popen(script, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(command, folder: Path) -> int:
    process = start(command, folder)
    process.communicate()
    return process.returncode


def outcome(folder: Path) -> tuple:
    """Weights of every model, and attack.csv."""
    script = [*ALONE, ROOT / "attack_lira.py", *flags(folder)]
    subprocess.run(script, env=ENV, check=True, capture_output=True)
    weights = {p.name: torch.load(p, weights_only=True)["weights"] for p in sorted(folder.glob("model/*/*.pt"))}
    return weights, next(folder.glob("result/*/attack.csv")).read_bytes()


def equal(a, b) -> bool:
    same = all(torch.equal(a[0][name][key], b[0][name][key]) for name in a[0] for key in a[0][name])
    return same and a[0].keys() == b[0].keys() and a[1] == b[1]


def killed(folder: Path, rng: random.Random, whole_seconds: float) -> str:
    """Start, kill at a random time, start again, until it has died often enough or nothing is left to do."""
    deaths, complete = 0, False
    while deaths < KILLS and not complete:
        process = start(ALONE, folder)
        time.sleep(rng.uniform(0.4, 1.1) * whole_seconds / 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        complete = process.returncode == 0
        deaths += not complete
    finish(ALONE, folder)
    return f"{deaths} x SIGKILL"


def killed_workers(folder: Path, rng: random.Random, whole_seconds: float) -> str:
    """One of two workers of torchrun is killed, up to three times: torchrun starts both again each time."""
    process = start([*TORCHRUN, "--max-restarts", "3"], folder)
    deaths = 0
    while process.poll() is None and deaths < 3:
        time.sleep(rng.uniform(0.7, 1.3) * whole_seconds / 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        if workers:
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            deaths += 1
    process.communicate()
    return f"{deaths} x SIGKILL of one of 2 workers, exit status {process.returncode}"


def full_disk(folder: Path, rng: random.Random, whole_seconds: float) -> str:
    """A disk of 14 MB where 23 MB are needed at times, then a larger one. Needs the right to mount."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "no right to mount: left out"
    process = start(ALONE, folder)
    said = process.communicate()[1].strip()
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    kept = len(list(folder.glob("model/*/*[0-9].pt")))
    finish(ALONE, folder)
    return f"exit status {process.returncode}, {len(said.splitlines())} line, {kept} models kept: {said[:60]}…"


def main() -> None:
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with tempfile.TemporaryDirectory() as parent:
        begin = time.monotonic()
        whole = Path(parent) / "whole"
        assert finish(ALONE, whole) == 0
        seconds = time.monotonic() - begin
        print(f"untouched: {seconds:.1f} s", flush=True)
        expected, status = outcome(whole), 0
        for trouble in (killed, killed_workers, full_disk):
            folder = Path(parent) / trouble.__name__
            folder.mkdir()
            what = trouble(folder, rng, seconds)
            same = equal(outcome(folder), expected)
            left = [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".resume.pt"))]
            print(f"{what}: weights and attack.csv {'equal' if same else 'DIFFER'}, left over: {left}", flush=True)
            status |= not same or bool(left)
            subprocess.run(["umount", str(folder)], capture_output=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
