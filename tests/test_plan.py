"""--plan of the real script: what is complete, what is missing, what it will cost; nothing is trained or written."""

import subprocess

import train_model
from lira.training import cost
from tests.helpers.scripts import ENVIRONMENT, ROOT, TINY_RUN, TWO_WORKERS, call, run_folders


def test_plan_trains_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "MEASURE_SECONDS", 0.1)
    called = call(train_model.main, [*TINY_RUN, "--plan", *run_folders(tmp_path)])
    assert called.status == 0
    assert "complete: none" in called.out
    assert "missing: target_00, shadow_00 to shadow_03" in called.out
    assert "1 worker" in called.out
    assert "free" in called.out
    assert not list(tmp_path.iterdir())


def test_plan_of_two_workers(tmp_path):
    """Both measure; the leader prints what one and what two will need."""
    command = [*TWO_WORKERS, ROOT / "train_model.py", *TINY_RUN, "--plan"]
    finished = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    rows = [line.split("  ")[0] for line in finished.stdout.splitlines()]
    assert {"1 worker", "2 workers", "available"} <= set(rows), finished.stdout
    assert not list(tmp_path.iterdir())
