"""One model fails, or the disk is full: the other models continue, complete files stay as they are."""

import shlex

import pytest

import attack_lira
import train_model
from tests.helpers import killing
from tests.helpers.scripts import call, contents, run_folders

FLAGS = shlex.split("--dataset digits --disable-dp --epochs 1 --n-shadows 4 --precision fp32 --device cpu --quiet")


def flags(folder, network, *more):
    return [*FLAGS, "--network", f"tests.helpers.networks:{network}", *run_folders(folder), *more]


@pytest.mark.parametrize(("network", "reason"), [("diverging", "the loss is nan"), ("hungry", "out of memory")])
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
    assert f"{len(failed)} of 5 models failed: " in called.err
    assert "now: python attack_lira.py" not in called.out
    attacked = call(attack_lira.main, command)
    assert attacked.status == 2
    assert reason in attacked.err, "the attack names the reason why a model is missing"


def test_full_disk(tmp_path):
    """A limit on the size of a file stands in for a full disk: one line, and no partially written file."""
    assert killing.run(flags(tmp_path, "tiny"), max_file_bytes=20_000)[0] == 2
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.part"))
    assert killing.run(flags(tmp_path, "tiny"))[0] == 0
    before = contents(tmp_path, "*.pt")
    assert len(before) == 5
    assert killing.run(flags(tmp_path, "tiny", "--n-runs", "2"), max_file_bytes=20_000)[0] == 2
    assert contents(tmp_path, "*.pt") == before
