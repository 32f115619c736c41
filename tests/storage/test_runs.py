"""The disk contract: names, whole files, checksums, the identity of a run."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lira.errors import InputError
from lira.storage.names import run_name, safe_name
from lira.storage.runs import MODEL_COLUMNS, open_run
from tests.helpers.datasets import rejected

IDENTITY = {
    "dataset": "digits", "network": "ConvNet", "optimizer": "MSGD", "lr": 0.05, "batch_size": 256, "epochs": 40,
    "precision": "bf16", "augment": True, "n_train": 478, "exp_idx": 0, "lr_step": 80, "target_inclusion": "half",
    "data_fingerprint": "f" * 64, "n_train_is_default": True,
}  # fmt: skip
RECORD = {"test_accuracy": 0.5, "train_accuracy": 0.75, "epsilon": None, "seconds": 1.5, "device": "cpu x"}
WEIGHTS = {
    "a": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4), "turned": torch.arange(6.0).reshape(2, 3).T,
    "last": torch.ones(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
}  # fmt: skip
SCORES = {"phi": np.arange(24, dtype=np.float32).reshape(2, 12, 1), "member": np.eye(2, 12, dtype=bool),
          "label": np.arange(12), "role": np.array([0, 1], dtype=np.int8), "weights": np.array(["x", "y"])}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return open_run(str(tmp_path / "model"), str(tmp_path / "result"), IDENTITY, provenance={"command": "train"})


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.endswith(".part")]


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_exp0"),
        ({"augment": False}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_noaug_exp0"),
        ({"n_train": 9, "n_train_is_default": False}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_n9_exp0"),
        ({"sigma": 1.0, "max_grad_norm": 0.1}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_sigma1_C0.1_exp0"),
        (
            {"sigma": None, "target_epsilon": 8.0, "max_grad_norm": 0.1},
            "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_eps8_C0.1_exp0",
        ),
        ({"lr": 1e-5, "exp_idx": 12}, "digits_ConvNet_MSGD_lr1e-05_b256_e40_bf16_exp12"),
        ({"network": "my.nets:make"}, "digits_my.nets-make_MSGD_lr0.05_b256_e40_bf16_exp0"),
    ],
)
def test_a_run_is_named_by_the_settings_that_change_its_models(changed, name):
    assert run_name(IDENTITY | changed) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cifar10", "cifar10"), ("own.npz", "own"), ("a/b/own.npz", "own"), ("../../etc", "etc"), ("..", "unnamed"),
        ("/", "unnamed"), ("a\\b", "b"), ("a b\n;c", "a-b-c"), (".hidden", "hidden"), ("-rf", "rf"),
        ("a_b", "a-b"), ("画像", "画像"), ("", "unnamed"), ("x/..", "unnamed"), ("nul\0l", "nul-l"),
    ],
)  # fmt: skip
def test_names_from_data_are_single_harmless_parts(text, name):
    assert safe_name(text) == name


@pytest.mark.parametrize("dataset", ["../../x", "/etc/passwd", "..", "a\\..\\..\\b", "x/../../y.npz"])
def test_a_run_stays_inside_its_folders(dataset, tmp_path):
    run = open_run(str(tmp_path / "m"), str(tmp_path / "r"), IDENTITY | {"dataset": dataset}, provenance={})
    assert run.models.resolve().parent == (tmp_path / "m").resolve()
    assert run.results.resolve().parent == (tmp_path / "r").resolve()


# --- identity ------------------------------------------------------------------------------------------------------


def test_config_is_written_once_and_kept(run, tmp_path):
    path = run.models / "config.json"
    first = path.read_bytes()
    assert json.loads(first) == {"identity": IDENTITY, "provenance": {"command": "train"}}
    again = open_run(str(tmp_path / "model"), str(tmp_path / "result"), IDENTITY, provenance={"command": "other"})
    assert (again.models, again.results) == (run.models, run.results)
    assert path.read_bytes() == first


def test_without_provenance_nothing_is_created(tmp_path):
    run = open_run(str(tmp_path / "model"), str(tmp_path / "result"), IDENTITY)
    assert not run.has_weights("target", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provenance", [None, {}])
@pytest.mark.parametrize(
    ("field", "value"),
    [("lr_step", 5), ("target_inclusion", "coin"), ("data_fingerprint", "e" * 64), ("lr", 0.05000001),
     ("n_train", 477), ("something_new", 1)],
)  # fmt: skip
def test_another_identity_under_the_same_name_is_refused(run, tmp_path, field, value, provenance):
    before = (run.models / "config.json").read_bytes()
    folders = str(tmp_path / "model"), str(tmp_path / "result")
    line = rejected(open_run, *folders, IDENTITY | {field: value}, provenance=provenance)
    assert f"{field} = {IDENTITY.get(field)!r}" in line
    assert f"ask for {value!r}" in line
    assert (run.models / "config.json").read_bytes() == before


@pytest.mark.parametrize("corruption", [b"", b"{}", b"[1]", b'{"identity": 1}', b"null", b"\xff", b'{"identity"'])
def test_a_corrupted_config_is_named(run, tmp_path, corruption):
    (run.models / "config.json").write_bytes(corruption)
    line = rejected(open_run, str(tmp_path / "model"), str(tmp_path / "result"), IDENTITY, provenance={})
    assert "config.json is corrupted" in line


# --- weights -------------------------------------------------------------------------------------------------------


def test_weights_come_back_as_they_were(run):
    assert not run.has_weights("shadow", 3)
    run.save_weights("shadow", 3, WEIGHTS, RECORD)
    assert run.weights_path("shadow", 3) == run.models / "shadow_03.pt"
    assert run.has_weights("shadow", 3)
    found = run.load_weights("shadow", 3)
    assert found.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)
    assert RECORD.items() <= run.record("shadow", 3).items()
    assert leftovers(run.models) == []


def test_the_digest_tells_weights_apart_and_nothing_else(run):
    def digest(weights, index=0):
        run.save_weights("shadow", index, weights, RECORD)
        return run.record("shadow", index)["sha256"]

    one = {"a": torch.arange(6.0)}
    assert digest(one) == digest({"a": torch.arange(6.0).clone()}, index=1)
    others = [
        {"b": torch.arange(6.0)}, {"a": torch.arange(6.0).reshape(2, 3)}, {"a": torch.arange(6.0).double()},
        {"a": torch.arange(6.0) + 1e-6}, {"a": torch.arange(6.0), "b": torch.zeros(0)},
    ]  # fmt: skip
    assert len({digest(one), *map(digest, others)}) == 6


def test_a_flipped_bit_anywhere_in_the_weights_is_noticed(run):
    run.save_weights("target", 0, {"a": torch.arange(40.0)}, RECORD)
    path = run.weights_path("target", 0)
    good = path.read_bytes()
    start = good.index(torch.arange(40.0).numpy().tobytes())
    for place in (start, start + 77, start + 159):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        assert "target_00.pt is corrupted" in rejected(run.load_weights, "target", 0)
    for bad in (b"", b"text", good[:200], good[: len(good) // 2], good[:-1]):
        path.write_bytes(bad)
        assert "target_00.pt is corrupted" in rejected(run.load_weights, "target", 0)
        assert "target_00.pt is corrupted" in rejected(run.record, "target", 0)


def test_a_file_that_would_run_code_is_not_loaded(run):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(run.models / "evil"),)

    torch.save({"weights": Evil(), "record": {}, "sha256": ""}, run.weights_path("target", 0))
    assert "corrupted" in rejected(run.load_weights, "target", 0)
    assert not (run.models / "evil").exists()


# --- tables and scores ---------------------------------------------------------------------------------------------


def test_models_table_lists_what_lies_on_disk_targets_first(run):
    for role, index in (("shadow", 10), ("shadow", 2), ("target", 0), ("shadow", 123)):
        run.save_weights(role, index, {"a": torch.ones(1)}, RECORD | {"seconds": float(index)})
    table = run.save_models_table()
    assert list(table.columns) == MODEL_COLUMNS
    assert list(zip(table.role, table["index"], strict=True)) == [
        ("target", 0), ("shadow", 2), ("shadow", 10), ("shadow", 123),
    ]  # fmt: skip
    assert table.seconds.tolist() == [0, 2, 10, 123]
    written = pd.read_csv(run.results / "models.csv")
    assert list(written.columns) == MODEL_COLUMNS
    assert written.epsilon.isna().all()
    for column in ("role", "index", "test_accuracy", "train_accuracy", "seconds", "device"):
        assert written[column].tolist() == table[column].tolist()


def test_other_files_beside_the_weights_do_not_disturb(run):
    run.save_weights("shadow", 0, {"a": torch.ones(1)}, RECORD)
    for name in ("shadow_01.resume.pt", "shadow_00 (copy).pt", "shadow_0x.pt", "shadow_00.pt.corrupted", "notes.txt"):
        (run.models / name).write_bytes(b"something else")
    assert run.save_models_table()["index"].tolist() == [0]


def test_logs_come_back_by_model(run):
    row = dict.fromkeys(("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"), 1.0)
    row |= {"model": "shadow_00", "epsilon": None}
    run.save_log("shadow_00", [row, row | {"epoch": 2.0}])
    run.save_log("target_00", [row])
    (run.results / "train" / "shadow_01.csv").write_text("")
    logs = run.load_logs()
    assert set(logs) == {"shadow_00", "target_00"}
    assert logs["shadow_00"].epoch.tolist() == [1, 2]


def test_scores_come_back_as_they_were(run):
    assert run.load_scores() is None
    run.save_scores(**SCORES)
    found = run.load_scores()
    assert found.keys() == SCORES.keys()
    for key, value in SCORES.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)
    with np.load(run.results / "scores.npz", allow_pickle=False) as file:
        assert all(file[key].dtype.kind != "O" for key in file.files)


def test_damage_anywhere_in_scores_is_noticed(run):
    """Every 7th byte flipped, one at a time: None, or what was saved where the byte means nothing; never a crash."""
    run.save_scores(**SCORES)
    path = run.results / "scores.npz"
    good = path.read_bytes()
    noticed = 0
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        found = run.load_scores()
        noticed += found is None
        if found is not None:
            assert all(np.array_equal(found[key], value) for key, value in SCORES.items())
    assert noticed > len(good) / 7 / 2
    for bad in (b"", b"text", good[:100], good[:-30]):
        path.write_bytes(bad)
        assert run.load_scores() is None


def test_scores_that_were_changed_by_hand_are_not_believed(run):
    """A whole file, by zip's own checksums, in which one number is another."""
    run.save_scores(**SCORES)
    path = run.results / "scores.npz"
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["phi"] = arrays["phi"] + np.float32(1e-3)
    np.savez(path, **arrays)
    assert run.load_scores() is None


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "save",
    [
        lambda run: run.save_weights("shadow", 0, {"a": torch.zeros(5)}, RECORD),
        lambda run: run.save_scores(phi=np.zeros(3)),
        lambda run: run.save_table("attack.csv", pd.DataFrame({"a": [0]})),
        lambda run: run.save_log("shadow_00", [{"epoch": 0}]),
    ],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_keeps_the_old_file_and_no_half_one(run, monkeypatch, save, code):
    run.save_weights("shadow", 0, {"a": torch.ones(5)}, RECORD)
    run.save_scores(phi=np.ones(3))
    run.save_table("attack.csv", pd.DataFrame({"a": [1]}))
    run.save_log("shadow_00", [{"epoch": 1}])
    files = [path for folder in (run.models, run.results) for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}

    def full(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "replace", lambda path, target: full(path))  # logs are not forced to disk
    line = rejected(save, run)
    assert "cannot write" in line
    assert os.strerror(code) in line
    assert {path: path.read_bytes() for path in files} == before
    assert leftovers(run.models) == leftovers(run.results) == []


def test_an_interrupt_while_writing_leaves_no_half_file(run, monkeypatch):
    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.save_weights("shadow", 0, {"a": torch.zeros(5)}, RECORD)
    assert not run.has_weights("shadow", 0)
    assert leftovers(run.models) == []


def test_files_may_be_read_by_whom_the_umask_lets(run):
    old = os.umask(0o022)
    try:
        run.save_weights("shadow", 0, {"a": torch.zeros(5)}, RECORD)
    finally:
        os.umask(old)
    assert run.weights_path("shadow", 0).stat().st_mode & 0o777 == 0o644


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        open_run(str(tmp_path / "model"), str(tmp_path / "result"), IDENTITY, provenance={})


def test_near_runs_are_those_of_the_same_data_and_network(run, tmp_path):
    for name in ("digits_ConvNet_SGD_lr1_x", "digits_ConvNet2_x", "mnist_ConvNet_x"):
        (tmp_path / "model" / name).mkdir()
    assert run.similar_runs() == ["digits_ConvNet_SGD_lr1_x"]


def test_results_of_other_settings_are_not_overwritten(tmp_path):
    """--model-dir alone was changed: the results would land on those of the first run."""
    open_run(tmp_path / "model", tmp_path / "result", IDENTITY, provenance={})
    with pytest.raises(InputError, match=r"result/.*/config.json was made with lr_step"):
        open_run(tmp_path / "other", tmp_path / "result", IDENTITY | {"lr_step": 3}, provenance={})
