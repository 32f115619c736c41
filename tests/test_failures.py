"""A model fails, or a file cannot be written: the other models continue, complete files stay as they are."""

import contextlib
import json
import os
import resource
import tempfile
from pathlib import Path

import pytest

import attack_lira
import train_model
from lira.training import failures, query
from tests.helpers.scripts import TINY_RUN, call, contents, rejected, run_folders, script, stamps


def flags(folder, network, *more):
    return [*TINY_RUN, "--network", f"tests.helpers.networks:{network}", *run_folders(folder), *more]


@pytest.mark.parametrize(
    ("network", "reason"),
    [("diverging", "the loss is nan"), ("hungry", "out of memory"), ("raising", "KeyError: 'no such thing' (networks")],
)
def test_one_failing_model(network, reason, tmp_path):
    """With --exp-idx 2 some models of these networks fail and others do not."""
    command = flags(tmp_path, network, "--exp-idx", "2")
    called = call(train_model.main, command)
    assert called.status == 1
    complete = {path.stem for path in tmp_path.glob("model/*/*.pt")}
    failed = {path.name.split(".")[0] for path in tmp_path.glob("model/*/*.failed.json")}
    assert len(complete) + len(failed) == 5
    assert complete
    assert failed
    for name in failed:
        assert f"failed: {name}: {reason}" in called.err
    assert f"{len(failed)} of 5 models failed: " in called.err.splitlines()[-1]
    assert "Traceback" not in called.err
    assert "next: python attack_lira.py" not in called.out
    attacked = call(attack_lira.main, command)
    assert attacked.status == 2
    assert reason in attacked.err, "the attack names the reason why a model is missing"


def test_an_error_that_leaves_the_device_unusable_marks_only_its_model(tmp_path, monkeypatch):
    monkeypatch.setattr(failures, "_responds", lambda device: False)
    called = call(train_model.main, flags(tmp_path, "raising", "--exp-idx", "2"))
    assert called.status == 1
    (failed,) = tmp_path.glob("model/*/*.failed.json")
    record = json.loads(failed.read_text())
    assert "cpu does not respond any more" in record["reason"]
    assert record["traceback"][-1] == "KeyError: 'no such thing'"
    others = [line for line in called.err.splitlines() if line.endswith("was not trained")]
    assert len(others) == 4 - len(list(tmp_path.glob("model/*/*.pt")))


def test_a_network_that_fails_when_it_is_queried_is_named(run_copy, monkeypatch):
    def fail(*inputs, **settings):
        raise KeyError("no such thing")

    (run_copy.results / "scores.npz").unlink()
    monkeypatch.setattr(query, "query_model", fail)
    called = call(attack_lira.main, [*run_copy.argv, "--quiet"])
    assert called.status == 1
    assert called.err.startswith("error: target_00: KeyError: 'no such thing' (test_failures.py, line ")


def test_full_disk(tmp_path):
    """A limit on the size of a file stands in for a full disk: one line, and no partially written file."""

    def train(*more):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        called = script("train_model.py", flags(tmp_path, "tiny", *more), tmp_path, preexec_fn=limit)
        assert called.returncode == 2, called.stderr
        (line,) = called.stderr.splitlines()
        assert line.startswith(f"error: cannot write {tmp_path}/model/")
        return line

    assert "target_00.pt" in train()
    assert [path.name for path in (tmp_path / "model").rglob("*") if path.is_file()] == ["config.json"]
    assert not list(tmp_path.rglob("*.part"))
    assert call(train_model.main, flags(tmp_path, "tiny")).status == 0
    before = contents(tmp_path, "*.pt")
    assert len(before) == 5
    assert "target_01.pt" in train("--n-runs", "2")
    assert contents(tmp_path, "*.pt") == before


@pytest.mark.parametrize("flag", ["--model-dir", "--result-dir"])
def test_folder_that_cannot_be_written(flag, tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    line = rejected(train_model.main, flags(tmp_path, "tiny", flag, str(tmp_path / "file")))
    assert line.startswith(f"error: cannot write {tmp_path}/file")


@contextlib.contextmanager
def unprivileged():
    """Root may read and write everything, so that its tests become another user."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_files_of_another_user(finished):
    """A run that may be read and not written; then files of it that may not be read either."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        run = finished.copy(Path(name))
        argv, before = [*run.argv, "--quiet"], stamps(run.folder)
        folders = [path for path in run.folder.rglob("*") if path.is_dir()]
        for folder in folders:
            folder.chmod(0o555)
        with unprivileged():
            for main, file in ((attack_lira.main, ".attack.lock"), (train_model.main, "models.csv")):
                assert f"cannot write {run.results / file}: Permission denied" in rejected(main, argv)
        for file in (run.models / "shadow_01.pt", run.models / "config.json"):
            file.chmod(0)
            with unprivileged():
                assert f"cannot read {file}: Permission denied; make it readable" in rejected(train_model.main, argv)
        for folder in folders:
            folder.chmod(0o755)
        assert stamps(run.folder) == before
