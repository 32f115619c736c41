"""benchmarks/gpu.sh from end to end, on CPU and small."""

import subprocess
import sys

import pandas as pd

import train_model
from tests.helpers.scripts import ENVIRONMENT, ROOT, TINY_RUN, call, run_folders

SMALL = {"DATASET": "digits", "NETWORK": "tests.helpers.networks:tiny", "EPOCHS": "2", "SHADOWS": "4", "DEVICE": "cpu"}
SMALL |= {"ROUNDS": "1", "BATCHES": "1", "COMPILED": "0", "FLAGS": "--attacks lira,lira-bayes"}


def test_gpu_script_resumes_and_prints_its_table(tmp_path):
    half = [*TINY_RUN, "--epochs", "2", "--precision", "auto", "--shard", "1/2", *run_folders(tmp_path)]
    assert call(train_model.main, half).status == 0  # interrupted here

    environment = ENVIRONMENT | SMALL | {"FOLDER": str(tmp_path), "PYTHON": sys.executable}
    completed = subprocess.run(
        ["bash", ROOT / "benchmarks/gpu.sh"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert completed.returncode == 0, completed.stderr
    assert "3 of 5 models are complete, training 2" in completed.stdout
    (rates,) = pd.read_csv(tmp_path / "rates.csv").to_dict("records")
    assert rates["ratio"] == rates["ours"] / max(rates["plain"], rates["with 2 workers"])
    assert 0 < rates["share of the limit"] < 1
    assert 0 < rates["outside"] < 1
    table = completed.stdout[completed.stdout.rindex("5 models: ") :]
    (attacks,) = (pd.read_csv(path) for path in tmp_path.glob("result/*/attack.csv"))
    for row in attacks.itertuples():
        assert f"{row.attack} target_00 {row.accuracy:.4f} [" in " ".join(table.split())
