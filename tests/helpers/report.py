"""Attacked runs on disk, for the tests of the report: random scores, no models."""

import numpy as np
import pandas as pd

from lira.attacks.run import run_attacks
from lira.report import html, results
from lira.storage.config import FORMAT
from lira.storage.runs import Run
from tests.helpers.attack_inputs import inputs

FDR = 0.1


def attacked_run(folder, attack_inputs=None, *, names=("lira", "loss"), curve=True, images=True) -> Run:
    """A run with the tables of an attack on attack_inputs, written as attack_lira.py writes them."""
    attack_inputs = attack_inputs or inputs(n_targets=2, n_shadows=6, images=images)
    run = Run(folder, folder)
    tables = run_attacks(
        attack_inputs,
        names=names,
        convention="lira",
        fdr=FDR,
        with_leave_one_out=False,
        with_curve=curve,
        quiet=True,
    )
    run.save_json("attack.json", {"fdr": FDR})
    for name, table in tables.items():
        run.save_table(name, table)
    if attack_inputs.images is not None:
        run.save_arrays("images.npz", results.exposed_images(tables, attack_inputs.images))
    return run


def two_runs(folder) -> list[Run]:
    """`dp` with a config.json and models.csv of DP training, `plain` with those of training without."""
    runs = [
        attacked_run(folder / name, inputs(gap=gap, seed=seed)) for name, gap, seed in (("dp", 0.5, 1), ("plain", 3, 2))
    ]
    common = {"dataset": "digits", "network": "ConvNet", "epochs": 3, "data_fingerprint": "f" * 64}
    runs[0].save_json("config.json", {"format": FORMAT, "identity": common | {"sigma": 1.0, "max_grad_norm": 0.1}})
    runs[1].save_json("config.json", {"format": FORMAT, "identity": common})
    models = {"role": "target", "test_accuracy": [0.6, 0.7], "train_accuracy": 0.9, "seconds": 1.0}
    models = pd.DataFrame({"index": [0, 1]} | models)
    runs[0].save_table("models.csv", models.assign(epsilon=[3.2, 3.4]))
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
