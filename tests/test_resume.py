"""A run that is killed or stopped resumes to bit-identical models, with the real scripts."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from itertools import count

import pandas as pd
import pytest
import torch
import tqdm.std

import attack_lira
import train_model
from lira import atomic
from tests.helpers import killing
from tests.helpers.killing import weights
from tests.helpers.scripts import ENVIRONMENT, ROOT, TINY_RUN, TWO_WORKERS, run_folders

FLAGS = [*TINY_RUN, "--epochs", "3", "--checkpoint-every", "1", "--eval-every", "2"]


def flags(folder, *more):
    return [*FLAGS, *run_folders(folder), *more]


def log(folder, name):
    """A training log without the seconds."""
    (path,) = (folder / "result").glob(f"*/train/{name}.csv")
    return pd.read_csv(path).drop(columns="seconds")


def attack_csv(folder):
    assert attack_lira.main(flags(folder, "--attacks", "lira,loss")) == 0
    (path,) = (folder / "result").glob("*/attack.csv")
    return path.read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, number of write steps) of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, n_steps = killing.run(flags(folder))
    assert status == 0
    assert len(weights(folder)) == 5
    return folder, n_steps


def test_killed_at_ten_random_moments(uninterrupted, tmp_path):
    expected, n_steps = uninterrupted
    rng = random.Random(6)
    kills = sorted(rng.sample(range(1, n_steps // 2), 10))
    rng.shuffle(kills)
    killed = [killing.run(flags(tmp_path), kill_at=step)[0] is None for step in kills]
    assert sum(killed) >= 5, f"of the kills {kills} happened {killed}"
    assert killing.run(flags(tmp_path))[0] == 0
    assert weights(tmp_path) == weights(expected)
    assert attack_csv(tmp_path) == attack_csv(expected)
    assert log(tmp_path, "shadow_03").equals(log(expected, "shadow_03"))
    left_over = [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".resume.pt", ".corrupted"))]
    assert not left_over


def test_killed_in_each_step_of_a_checkpoint(uninterrupted, tmp_path):
    """Killed at each step of the first files in turn: every file is complete or absent."""
    expected, _ = uninterrupted
    for step in (2, 3, 4, 6, 7, 8, 9):  # config.json, the first log and the first resume file
        killing.run(flags(tmp_path), kill_at=step)
        for path in (tmp_path / "model").glob("*/*.pt"):
            torch.load(path, weights_only=True)
    assert killing.run(flags(tmp_path))[0] == 0
    assert weights(tmp_path) == weights(expected)


def test_two_launches_at_the_same_time(uninterrupted, tmp_path):
    expected, _ = uninterrupted
    processes = [killing.start(flags(tmp_path)) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.result.get()[0] for process in processes] == [0, 0]
    assert weights(tmp_path) == weights(expected)
    assert attack_csv(tmp_path) == attack_csv(expected)


def test_a_file_system_without_locks_and_a_clock_that_goes_backwards(uninterrupted, tmp_path, monkeypatch, capsys):
    """Neither changes a model or a table. Bars may show negative times."""
    expected, _ = uninterrupted
    now = count(time.time(), -60.0)

    def no_lock(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(atomic, "flock", no_lock)
    for module in (time, tqdm.std):
        monkeypatch.setattr(module, "time", lambda: next(now))
    assert train_model.main([flag for flag in flags(tmp_path) if flag != "--quiet"]) == 0
    assert weights(tmp_path) == weights(expected)
    assert attack_csv(tmp_path) == attack_csv(expected)
    assert "cannot be locked" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.part"))


def test_two_workers_one_killed(uninterrupted, tmp_path):
    """The real torchrun: the second worker is killed while it writes, and torchrun restarts both."""
    expected, _ = uninterrupted
    command = [*TWO_WORKERS, "--max-restarts", "3", "tests/helpers/killing.py", "11", *flags(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "exitcode: -9" in finished.stderr, finished.stderr[-3000:]
    assert weights(tmp_path) == weights(expected)
    assert attack_csv(tmp_path) == attack_csv(expected)
    assert finished.stdout.count("next: python attack_lira.py") == 1, "only the leader prints"


def test_shards_together_are_the_run(uninterrupted, tmp_path):
    expected, _ = uninterrupted
    for part in (1, 2, 3):
        assert killing.run(flags(tmp_path, "--shard", f"{part}/3"))[0] == 0
    assert weights(tmp_path) == weights(expected)


def test_ctrl_c(tmp_path):
    """The real script stops at once and prints its progress and how to resume."""
    process = subprocess.Popen(
        [sys.executable, "train_model.py", *flags(tmp_path), "--epochs", "20000"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background jobs
    )
    for _ in range(6000):
        if list(tmp_path.glob("model/*/*.resume.pt")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "stopped: 0 of 5 models are complete, target_00 is saved up to epoch" in err
    assert "run the same command again" in err
    assert not list(tmp_path.rglob("*.part"))
