"""Attacked runs on disk, for the tests of the report: random scores, no models."""

import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pandas as pd

from lira.attacks.run import run_attacks
from lira.report import html
from lira.report.results import exposed_images
from lira.storage.attack_set import one_attack
from lira.storage.checksums import digest
from lira.storage.config import FORMAT
from lira.storage.owner import Source
from lira.storage.runs import Run
from tests.helpers.attack_inputs import inputs

FDR = 0.1


def attacked_run(
    folder, attack_inputs=None, *, names=("lira", "loss"), curve=True, leave_one_out=False, images=True, identity=None
) -> Run:
    """A run with the tables of an attack on attack_inputs, written as attack_lira.py writes them. identity: of the run
    that was attacked, in config.json; None for scores from elsewhere."""
    attack_inputs = attack_inputs or inputs(n_targets=2, n_shadows=6, images=images)
    tables = run_attacks(
        attack_inputs,
        names=names,
        convention="lira",
        fdr=FDR,
        with_leave_one_out=leave_one_out,
        with_curve=curve,
        quiet=True,
    )
    arrays = {} if attack_inputs.images is None else {"images.npz": exposed_images(tables, attack_inputs.images)}
    run = Run(folder, folder, digest(identity) if identity else "")
    with one_attack(folder, run.source if identity else Source("tests", "")) as attack_set:
        attack_set.save(tables, arrays, {"fdr": FDR})
    if identity:
        run.save_json("config.json", {"format": FORMAT, "identity": identity})
    return run


def sign(run, **record) -> Run:
    """attack.json names the tables that are there now, whatever a test made of them; record: what else it holds."""
    path = run.results / "attack.json"
    content = json.loads(path.read_text()) | record
    files = [run.results / name for name in content["files"]]
    content["files"] = {file.name: sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}
    run.save_json("attack.json", content)
    return run


def two_runs(folder) -> list[Run]:
    """`dp` with a config.json and models.csv of DP training, `plain` with those of training without."""
    plain = {"dataset": "digits", "network": "ConvNet", "epochs": 3, "data_fingerprint": "f" * 64}
    guarantees = np.array([[3.2, 1e-5], [3.4, 1e-5]])
    private_inputs = replace(inputs(gap=0.5, seed=1), guarantees=guarantees)
    runs = [
        attacked_run(folder / "dp", private_inputs, identity=plain | {"sigma": 1.0, "max_grad_norm": 0.1}),
        attacked_run(folder / "plain", inputs(gap=3, seed=2), identity=plain),
    ]
    models = {"role": "target", "test_accuracy": [0.6, 0.7], "train_accuracy": 0.9, "seconds": 1.0}
    models = pd.DataFrame({"index": [0, 1]} | models)
    runs[0].save_table("models.csv", models.assign(epsilon=guarantees[:, 0]))
    runs[1].save_table("models.csv", models.assign(epsilon=np.nan))
    return runs


def totals(run, attack):
    """(n_correct, n_guesses) of all targets, and the mean over targets of every column, from attack.csv."""
    rows = pd.read_csv(run.results / "attack.csv")
    rows = rows[rows.attack == attack]
    n_guesses = rows.n_members + rows.n_nonmembers
    return round((rows.accuracy * n_guesses).sum()), int(n_guesses.sum()), rows.mean(numeric_only=True)


def skip_figures(monkeypatch) -> None:
    """Pages without figures, which take long to draw."""
    monkeypatch.setattr(html.plots, "plots", lambda results: {})
    monkeypatch.setattr(html.comparison, "plots", lambda runs: {})
