"""The real scripts, killed or stopped at random times, on a full disk, without the other machine: is the result that
of an uninterrupted run?

    python benchmarks/kills.py [seed]

tests/test_resume.py does the same at selected moments; here the moment is random."""

import os
import random
import shlex
import signal
import socket
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
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
PYTHON = [sys.executable]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TORCHRUN = [*LAUNCHER, "--standalone"]
KILLS = 10


def flags(folder: Path) -> list[str]:
    return [*FLAGS, "--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]


def start(command: list[str], folder: Path) -> subprocess.Popen:
    script = [*command, str(ROOT / "train_model.py"), *flags(folder)]
    return subprocess.Popen(script, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(command: list[str], folder: Path) -> int:
    process = start(command, folder)
    process.communicate()
    return process.returncode


def outcome(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], bytes]:
    """Weights of every model, and attack.csv."""
    script = [*PYTHON, str(ROOT / "attack_lira.py"), *flags(folder)]
    subprocess.run(script, env=ENVIRONMENT, check=True, capture_output=True)
    weights = {p.name: torch.load(p, weights_only=True)["weights"] for p in sorted(folder.glob("model/*/*.pt"))}
    return weights, next(folder.glob("result/*/attack.csv")).read_bytes()


def equal(a: tuple, b: tuple) -> bool:
    (weights, table), (other_weights, other_table) = a, b
    if weights.keys() != other_weights.keys() or table != other_table:
        return False
    return all(torch.equal(weights[name][key], other_weights[name][key]) for name in weights for key in weights[name])


def killed(folder: Path, rng: random.Random, run_seconds: float) -> str:
    """Start, kill at a random time, start again, until it has been killed KILLS times or the run is complete."""
    kills, complete = 0, False
    while kills < KILLS and not complete:
        process = start(PYTHON, folder)
        time.sleep(rng.uniform(0.4, 1.1) * run_seconds / 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        complete = process.returncode == 0
        kills += not complete
    finish(PYTHON, folder)
    return f"{kills} x SIGKILL"


def killed_workers(folder: Path, rng: random.Random, run_seconds: float) -> str:
    """One of two workers of torchrun is killed, up to three times: torchrun starts both again each time."""
    process = start([*TORCHRUN, "--max-restarts", "3"], folder)
    kills = 0
    while process.poll() is None and kills < 3:
        time.sleep(rng.uniform(0.7, 1.3) * run_seconds / 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        if workers:
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            kills += 1
    process.communicate()
    return f"{kills} x SIGKILL of one of 2 workers, exit status {process.returncode}"


def stopped_worker(folder: Path, rng: random.Random, run_seconds: float) -> str:
    """One of two workers is stopped by SIGSTOP; the other goes on. Killed in the end, it is started again."""
    process = start([*TORCHRUN, "--max-restarts", "1"], folder)
    while not (complete := list(folder.glob("model/*/*[0-9].pt"))):
        time.sleep(0.1)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    stopped = int(rng.choice(workers))
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(2 * run_seconds)
    n_more = len(list(folder.glob("model/*/*[0-9].pt"))) - len(complete)
    os.kill(stopped, signal.SIGKILL)
    process.communicate()
    return f"SIGSTOP of one of 2 workers: the other completes {n_more} models; killed: exit status {process.returncode}"


def port_in_use(folder: Path, rng: random.Random, run_seconds: float) -> str:
    """torchrun's port belongs to another process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        status = finish([*LAUNCHER, "--nnodes", "1", "--master-addr", "127.0.0.1", "--master-port", port], folder)
    return f"port in use: exit status {status}, {_and_then(folder)}"


def missing_node(folder: Path, rng: random.Random, run_seconds: float) -> str:
    """The second of two machines never comes: torchrun waits for as long as its join_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-conf", "join_timeout=10"]
    status = finish([*LAUNCHER, "--nnodes", "2", *rendezvous], folder)
    return f"a machine that never comes: exit status {status}, {_and_then(folder)}"


def _and_then(folder: Path) -> str:
    """How much the failed launch wrote; afterwards the run is completed without torchrun."""
    n_files = sum(path.is_file() for path in folder.rglob("*"))
    return f"{n_files} files written, afterwards exit status {finish(PYTHON, folder)}"


def full_disk(folder: Path, rng: random.Random, run_seconds: float) -> str:
    """A disk of 14 MB where up to 23 MB are needed, then a larger one. Requires permission to mount."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "skipped: no permission to mount"
    process = start(PYTHON, folder)
    message = process.communicate()[1].strip()
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    n_complete = len(list(folder.glob("model/*/*[0-9].pt")))
    finish(PYTHON, folder)
    lines = len(message.splitlines())
    return f"exit status {process.returncode}, {lines} line, {n_complete} models complete: {message[:60]}…"


def main() -> None:
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with tempfile.TemporaryDirectory() as parent:
        begin = time.monotonic()
        uninterrupted = Path(parent) / "uninterrupted"
        assert finish(PYTHON, uninterrupted) == 0
        seconds = time.monotonic() - begin
        print(f"uninterrupted: {seconds:.1f} s", flush=True)
        expected, status = outcome(uninterrupted), 0
        for interrupted in (killed, killed_workers, stopped_worker, port_in_use, missing_node, full_disk):
            folder = Path(parent) / interrupted.__name__
            folder.mkdir()
            summary = interrupted(folder, rng, seconds)
            same = equal(outcome(folder), expected)
            temporary = [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".resume.pt"))]
            result = "equal" if same else "DIFFER"
            print(f"{summary}: weights and attack.csv {result}, temporary files left: {temporary}", flush=True)
            status |= not same or bool(temporary)
            subprocess.run(["umount", str(folder)], capture_output=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
