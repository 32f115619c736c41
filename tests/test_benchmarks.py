"""The GPU's command from end to end, on CPU and small."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = {"DATASET": "digits", "NETWORK": "tinynet:make", "EPOCHS": "2", "SHADOWS": "4"}
SMALL |= {"ROUNDS": "1", "BATCHES": "1", "COMPILED": "0"}


def run(folder):
    env = os.environ | SMALL | {"DEVICE": "cpu", "FOLDER": str(folder), "PYTHON": sys.executable}
    env |= {"PYTHONPATH": f"{ROOT}/tests", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", ROOT / "benchmarks/gpu.sh"], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_gpus_command_ends_in_its_table_and_goes_on_where_it_stopped(tmp_path):
    first = run(tmp_path)
    assert "0 of 5 models are complete, training 5" in first
    table = first[first.index("the plain loop would take") :]
    assert "test accuracy" in table
    assert all(column in table for column in ("lira-bayes", "accuracy", "auc", "tpr_at_fpr_0.001"))
    (lost,) = tmp_path.glob("model/*/shadow_02.pt")
    lost.unlink()
    rates = (tmp_path / "rates.csv").stat().st_mtime_ns
    again = run(tmp_path)
    assert "4 of 5 models are complete, training 1" in again
    assert (tmp_path / "rates.csv").stat().st_mtime_ns == rates  # measured once
    assert again[again.index("tpr_at_fpr_0.001") :] == first[first.index("tpr_at_fpr_0.001") :]  # the same bits
