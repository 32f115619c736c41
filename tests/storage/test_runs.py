"""Folders, config.json, logs and tables of a run."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lira.storage.runs import FORMAT, MODEL_COLUMNS, find_results, open_run
from lira.storage.scores import save_scores
from tests.helpers.errors import input_error_line
from tests.helpers.runs import IDENTITY, RECORD
from tests.helpers.scripts import contents


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "model", tmp_path / "result"


# --- config.json ---------------------------------------------------------------------------------------------------


def test_config_is_written_once_and_never_changed(run, folders):
    path = run.models / "config.json"
    content = path.read_bytes()
    assert json.loads(content) == {"format": FORMAT, "identity": IDENTITY, "provenance": {"command": "train"}}
    again = open_run(*folders, IDENTITY, provenance={"command": "other"})
    assert (again.models, again.results) == (run.models, run.results)
    assert path.read_bytes() == content == (run.results / "config.json").read_bytes()


def test_without_provenance_nothing_is_created(tmp_path, folders):
    run = open_run(*folders, IDENTITY)
    assert not run.has_weights("target", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provenance", [None, {}])
@pytest.mark.parametrize(
    ("field", "value"),
    [("lr_step", 5), ("target_inclusion", "coin"), ("data_fingerprint", "e" * 64), ("lr", 0.05000001),
     ("n_train", 477), ("something_new", 1)],
)  # fmt: skip
def test_other_settings_are_named(run, folders, field, value, provenance):
    before = (run.models / "config.json").read_bytes()
    line = input_error_line(open_run, *folders, IDENTITY | {field: value}, provenance=provenance)
    assert f"{field} = {IDENTITY.get(field)!r}" in line
    assert f"these flags and data give {value!r}" in line
    assert (run.models / "config.json").read_bytes() == before


def test_results_of_other_settings_are_not_overwritten(run, folders, tmp_path):
    """Only --model-dir differs: the results would replace those of the first run."""
    line = input_error_line(open_run, tmp_path / "other", folders[1], IDENTITY | {"lr_step": 3}, provenance={})
    assert "/result/" in line
    assert "config.json was made with lr_step" in line


@pytest.mark.parametrize("folder", ["models", "results"])
@pytest.mark.parametrize(("config", "number"), [({}, 1), ({"format": 1}, 1), ({"format": FORMAT + 1}, FORMAT + 1)])
def test_a_run_of_another_format_is_rejected(run, folders, folder, config, number):
    path = getattr(run, folder) / "config.json"
    path.write_text(json.dumps({**config, "identity": IDENTITY, "provenance": {}}))
    before = path.read_bytes()
    message = f"{path} has format {number}, this version reads format {FORMAT}: "
    assert input_error_line(open_run, *folders, IDENTITY).startswith(message)
    assert input_error_line(open_run, *folders, IDENTITY, provenance={}).startswith(message)
    if folder == "results":
        assert input_error_line(find_results, folders[1], [IDENTITY]).startswith(message)
    assert path.read_bytes() == before


# --- logs, tables and other runs -----------------------------------------------------------------------------------


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


def test_logs_are_loaded_by_model(run):
    row = dict.fromkeys(("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"), 1.0)
    row |= {"model": "shadow_00", "epsilon": None}
    run.save_log("shadow_00", [row, row | {"epoch": 2.0}])
    run.save_log("target_00", [row])
    (run.results / "train" / "shadow_01.csv").write_text("")
    logs = run.load_logs()
    assert set(logs) == {"shadow_00", "target_00"}
    assert logs["shadow_00"].epoch.tolist() == [1, 2]


def test_similar_runs_have_the_same_dataset_and_network(run, tmp_path):
    for name in ("digits_ConvNet_SGD_lr1_x", "digits_ConvNet2_x", "mnist_ConvNet_x"):
        (tmp_path / "model" / name).mkdir()
    assert run.similar_runs() == ["digits_ConvNet_SGD_lr1_x"]


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
