"""A fleet that is killed goes on where it was, to the same bits."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import attack_lira
from lira.storage.checksums import digest
from tests.helpers import killing

ROOT = Path(__file__).parents[2]
FLAGS = shlex.split(
    "--dataset digits --network tests.helpers.networks:tiny --disable-dp --epochs 3 --n-shadows 4 --precision fp32 --device cpu "
    "--checkpoint-every 1 --eval-every 2 --quiet"
)


def flags(folder, *more):
    return [*FLAGS, "--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result", *more]


def weights(folder):
    """File name -> digest of the weights of every model under folder."""
    found = sorted((folder / "model").glob("*/*.pt"))
    return {path.name: digest(torch.load(path, weights_only=True)["weights"]) for path in found}


def log(folder, name):
    """A training log without the clock."""
    (path,) = (folder / "result").glob(f"*/train/{name}.csv")
    return pd.read_csv(path).drop(columns="seconds")


def attack_csv(folder):
    assert attack_lira.main(flags(folder, "--attacks", "lira,loss")) == 0
    (path,) = (folder / "result").glob("*/attack.csv")
    return path.read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run that nothing happened to. moments: how many steps of writing it took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, moments = killing.run(flags(folder))
    assert status == 0
    assert len(weights(folder)) == 5
    return folder, moments


def test_killed_at_ten_random_moments(uninterrupted, tmp_path):
    whole, moments = uninterrupted
    rng = random.Random(6)
    deaths = sorted(rng.sample(range(1, moments // 2), 10))
    rng.shuffle(deaths)
    died = [killing.run(flags(tmp_path), fatal=fatal)[0] is None for fatal in deaths]
    assert sum(died) >= 5, f"of the moments {deaths} came {died}"
    assert killing.run(flags(tmp_path))[0] == 0
    assert weights(tmp_path) == weights(whole)
    assert attack_csv(tmp_path) == attack_csv(whole)
    assert log(tmp_path, "shadow_03").equals(log(whole, "shadow_03"))
    left = [path.name for path in tmp_path.rglob("*") if path.name.endswith((".part", ".resume.pt", ".corrupted"))]
    assert not left


def test_every_moment_of_one_checkpoint(uninterrupted, tmp_path):
    """Killed in each step of the first model's files in turn: what lies there is whole, or is not there."""
    whole, _ = uninterrupted
    for fatal in (2, 3, 4, 6, 7, 8, 9):  # config.json and the first log and resume file
        killing.run(flags(tmp_path), fatal=fatal)
        for path in (tmp_path / "model").glob("*/*.pt"):
            torch.load(path, weights_only=True)
    assert killing.run(flags(tmp_path))[0] == 0
    assert weights(tmp_path) == weights(whole)


def test_two_fleets_at_the_same_time(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    fleets = [killing.start(flags(tmp_path)) for _ in range(2)]
    for process in fleets:
        process.join_workers()
    assert [process.result.get()[0] for process in fleets] == [0, 0]
    assert weights(tmp_path) == weights(whole)
    assert attack_csv(tmp_path) == attack_csv(whole)


def test_two_workers_one_killed(uninterrupted, tmp_path):
    """The real torchrun; the second worker dies while it writes, torchrun starts both anew."""
    whole, _ = uninterrupted
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--max-restarts", "3", "tests/helpers/killing.py", "11", *flags(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=_one_thread_each(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exitcode: -9" in done.stderr, done.stderr[-3000:]
    assert weights(tmp_path) == weights(whole)
    assert attack_csv(tmp_path) == attack_csv(whole)
    assert done.stdout.count("now: python attack_lira.py") == 1, "only the leader speaks"


def test_shards_together_are_the_run(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    for part in (1, 2, 3):
        assert killing.run(flags(tmp_path, "--shard", f"{part}/3"))[0] == 0
    assert weights(tmp_path) == weights(whole)


def test_ctrl_c(tmp_path):
    """The real script: it stops at once, says how far it got and how to go on."""
    command = [sys.executable, "train_model.py", *flags(tmp_path), "--epochs", "20000"]
    script = subprocess.Popen(
        command, cwd=ROOT, env=_one_thread_each(), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    for _ in range(6000):
        if list(tmp_path.glob("model/*/*.resume.pt")):
            break
        time.sleep(0.05)
    script.send_signal(signal.SIGINT)
    _, said = script.communicate(timeout=300)
    assert script.returncode == 130
    assert "Traceback" not in said
    assert "stopped: 0 of 5 models are complete, target_00 is kept up to epoch" in said
    assert "run the same command again to go on" in said
    assert not list(tmp_path.rglob("*.part"))


def _one_thread_each():
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
