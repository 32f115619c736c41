"""The GPU's command from end to end, on CPU and small."""

import os
import shlex
import subprocess
import sys

import pandas as pd

import train_model
from tests.helpers.scripts import ROOT, call

SMALL = {"DATASET": "digits", "NETWORK": "tests.helpers.networks:tiny", "EPOCHS": "2", "SHADOWS": "4", "DEVICE": "cpu"}
SMALL |= {"ROUNDS": "1", "BATCHES": "1", "COMPILED": "0", "FLAGS": "--attacks lira,lira-bayes"}


def test_the_gpus_command_goes_on_where_it_stopped_and_ends_in_its_table(tmp_path):
    folders = ["--model-dir", str(tmp_path / "model"), "--result-dir", str(tmp_path / "result")]
    flags = "--dataset digits --network tests.helpers.networks:tiny --disable-dp --epochs 2 --n-shadows 4 --device cpu --shard 1/2"
    assert call(train_model.main, [*shlex.split(flags), *folders, "--quiet"]).status == 0  # then the time is up

    env = os.environ | SMALL | {"FOLDER": str(tmp_path), "PYTHON": sys.executable}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", ROOT / "benchmarks/gpu.sh"], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "3 of 5 models are complete, training 2" in done.stdout
    (rates,) = pd.read_csv(tmp_path / "rates.csv").to_dict("records")
    assert rates["ratio"] == rates["ours"] / max(rates["plain"], rates["with 2 workers"])
    assert 0 < rates["share of the limit"] < 1
    assert 0 < rates["outside"] < 1
    table = done.stdout[done.stdout.index("fleet of 5: ") :]
    (attacks,) = (pd.read_csv(path) for path in tmp_path.glob("result/*/attack.csv"))
    for row in attacks.itertuples():
        assert f"{row.attack} target_00 {row.accuracy:.4f} [" in " ".join(table.split())
