"""Folders, logs and tables of a run."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lira.storage.runs import MODEL_COLUMNS, results_of_scores, results_only
from lira.storage.scores import save_scores
from tests.helpers.errors import input_error_line
from tests.helpers.runs import RECORD
from tests.helpers.scripts import contents


def test_models_table_has_one_row_per_model_on_disk(run):
    for role, index in (("shadow", 2), ("target", 0)):
        run.save_weights(role, index, {"a": torch.ones(1)}, RECORD | {"seconds": float(index)})
    table = run.save_models_table()
    assert list(table.columns) == MODEL_COLUMNS
    assert list(zip(table.role, table["index"], table.seconds, strict=True)) == [("target", 0, 0), ("shadow", 2, 2)]
    written = pd.read_csv(run.results / "models.csv")
    assert list(written.columns) == MODEL_COLUMNS
    assert written.epsilon.isna().all()
    for column in ("role", "index", "test_accuracy", "train_accuracy", "seconds", "device"):
        assert written[column].tolist() == table[column].tolist()


def test_guarantees_are_those_of_the_first_targets(run):
    for index, epsilon in enumerate((3.25, 4.5, 5.75)):
        run.save_weights("target", index, {"a": torch.ones(1)}, RECORD | {"epsilon": epsilon, "delta": 1e-5})
    guarantees = run.guarantees(2)
    assert guarantees.dtype == np.float64
    assert guarantees.tolist() == [[3.25, 1e-5], [4.5, 1e-5]]


@pytest.mark.parametrize(
    ("source", "name"), [("a/own.npz", "own"), ("own.tar.npz", "own.tar"), ("..npz", "unnamed"), (".npz", "unnamed")]
)
def test_results_lie_in_a_folder_of_the_name_of_the_run_or_of_the_scores(tmp_path, source, name):
    assert results_of_scores(tmp_path, source).results == tmp_path / name
    run = results_only(tmp_path, "best")
    assert (run.results, run.name) == (tmp_path / "best", "best")


def test_names_stand_in_a_table_as_they_are(run):
    names = ["a\rb", "\r", "c\nd", "\x1b[31m", '"', ",", "=1+1", "e\x00f"]
    run.save_table("classes.csv", pd.DataFrame({"class": names, "value": 1.5}))
    table = pd.read_csv(run.results / "classes.csv")
    assert table["class"].tolist() == names
    assert (table["value"] == 1.5).all()


def test_logs_are_loaded_by_model(run):
    row = dict.fromkeys(("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"), 1.0)
    row |= {"model": "shadow_00", "epsilon": None}
    run.save_log("shadow_00", [row, row | {"epoch": 2.0}])
    run.save_log("target_00", [row])
    (run.results / "train" / "shadow_01.csv").write_text("")
    logs = run.load_logs()
    assert set(logs) == {"shadow_00", "target_00"}
    assert logs["shadow_00"].epoch.tolist() == [1, 2]


@pytest.mark.parametrize(
    "save",
    [
        lambda run: run.save_weights("shadow", 0, {"a": torch.zeros(5)}, RECORD),
        lambda run: save_scores(run, phi=np.zeros(3)),
        lambda run: run.save_table("attack.csv", pd.DataFrame({"a": [0]})),
        lambda run: run.save_log("shadow_00", [{"epoch": 0}]),
    ],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_failed_write_of_any_kind_keeps_the_old_files(run, tmp_path, monkeypatch, save, code):
    run.save_weights("shadow", 0, {"a": torch.ones(5)}, RECORD)
    save_scores(run, phi=np.ones(3))
    run.save_table("attack.csv", pd.DataFrame({"a": [1]}))
    run.save_log("shadow_00", [{"epoch": 1}])

    before = contents(tmp_path)

    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(Path, "replace", fail)  # logs are not forced to disk
    line = input_error_line(save, run)
    assert "cannot write" in line
    assert os.strerror(code) in line
    assert contents(tmp_path) == before, "and no temporary file is left"
