"""--plan of the real script: what is complete, what is missing, what it will cost; nothing is trained or written."""

import os
import shlex
import subprocess
import sys

import train_model
from tests.helpers.scripts import ROOT, call, run_folders

FLAGS = shlex.split(
    "--dataset digits --network tests.helpers.networks:tiny --disable-dp --n-shadows 4 --plan --device cpu --quiet"
)


def test_plan_trains_and_writes_nothing(tmp_path):
    called = call(train_model.main, [*FLAGS, *run_folders(tmp_path)])
    assert called.status == 0
    assert "complete: none" in called.out
    assert "missing: target_00, shadow_00 to shadow_03" in called.out
    assert "1 worker" in called.out
    assert "free" in called.out
    assert not list(tmp_path.iterdir())


def test_plan_of_two_workers(tmp_path):
    """Both measure; the leader prints what one and what two will need."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, ROOT / "train_model.py", *FLAGS]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    rows = [line.split("  ")[0] for line in finished.stdout.splitlines()]
    assert {"1 worker", "2 workers", "available"} <= set(rows), finished.stdout
    assert not list(tmp_path.iterdir())
