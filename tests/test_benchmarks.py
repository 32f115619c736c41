"""benchmarks/gpu.sh from end to end, on CPU and small."""

import subprocess
import sys

import pandas as pd

import train_model
from tests.helpers.scripts import ENVIRONMENT, ROOT, TINY_RUN, call, run_folders

SMALL = {"DATASET": "digits", "NETWORK": "tests.helpers.networks:tiny", "EPOCHS": "2", "SHADOWS": "4", "DEVICE": "cpu"}
SMALL |= {"ROUNDS": "1", "BATCHES": "1", "COMPILED": "0", "FLAGS": "--attacks lira,lira-bayes"}
SMALL |= {"ROW_DATASET": "digits", "ROW_SHADOWS": "4"}
ROW = "cifar10-whole_tests.helpers.networks-tiny_MSGD_lr0.1_b128_e2_*_wd0.0005_cosine_n0_exp0"


def test_gpu_script_resumes_and_prints_a_table_of_the_reference_and_of_the_published_row(tmp_path):
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
    assert "600 training + 1,197 test images of 1x28x28, 10 classes; each model trains on 0 + 598" in completed.stdout
    table = completed.stdout[completed.stdout.rindex("tiny: ") :]
    reference, row = (pd.read_csv(next(tmp_path.glob(f"result/{name}/attack.csv"))) for name in ("digits_*", ROW))
    assert (set(reference.convention), set(row.convention), set(row.queries)) == ({"lira"}, {"official"}, {2})
    assert table.count("5 models: ") == 2
    for attack in [*reference.itertuples(), *row.itertuples()]:
        assert f"{attack.attack} target_00 {attack.accuracy:.4f} [" in " ".join(table.split())
