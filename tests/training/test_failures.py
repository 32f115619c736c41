"""Trouble in one model, a full disk, temporary files of the dead: the rest goes on or stays intact."""

import shlex

import pytest
import torch
from torch import nn

import attack_lira
import train_model
from lira.atomic import remove_stale, write_atomically
from lira.errors import ModelError
from lira.training.checkpoints import FIRST_COST, SHARE, SHORTEST, Checkpoints
from lira.training.loop import Trainer, _memory_named
from tests.helpers import killing

FLAGS = shlex.split("--dataset digits --disable-dp --epochs 1 --n-shadows 4 --precision fp32 --device cpu --quiet")


def flags(folder, network, *more):
    folders = ["--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]
    return [*FLAGS, "--network", f"tinynet:{network}", *folders, *more]


@pytest.mark.parametrize(("network", "reason"), [("diverging", "the loss is nan"), ("hungry", "out of memory")])
def test_trouble_in_one_model(network, reason, tmp_path, capsys):
    """The seeds of --exp-idx 2 give some models trouble and others none."""
    command = flags(tmp_path, network, "--exp-idx", "2")
    assert train_model.main(command) == 1
    said = capsys.readouterr()
    done = {path.stem for path in tmp_path.glob("model/*/*.pt")}
    failed = {path.name.split(".")[0] for path in tmp_path.glob("model/*/*.failed.json")}
    assert len(done) + len(failed) == 5
    assert done
    assert failed
    for name in failed:
        assert f"failed: {name}: {reason}" in said.err
    assert f"{len(failed)} of 5 models failed: " in said.err
    assert "now: python attack_lira.py" not in said.out
    assert attack_lira.main(command) == 2
    assert reason in capsys.readouterr().err, "the attack says why a model is missing"


def test_full_disk(tmp_path):
    """A limit on a file's size stands in for the disk's: one line, and nothing half-written."""
    assert killing.run(flags(tmp_path, "make"), limit=20_000)[0] == 2
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.part"))
    assert killing.run(flags(tmp_path, "make"))[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pt")}
    assert len(before) == 5
    assert killing.run(flags(tmp_path, "make", "--n-runs", "2"), limit=20_000)[0] == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pt")} == before


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_only_the_temporary_files_of_the_dead_are_removed(tmp_path):
    stale = tmp_path / ".shadow_00.pt.abc.part"
    stale.write_bytes(b"half")
    other = tmp_path / "notes.part"
    other.write_text("the user's own")

    def write(file):
        remove_stale(tmp_path)  # as another fleet would, meanwhile
        file.write(b"whole")

    write_atomically(tmp_path / "shadow_01.pt", write)
    assert not stale.exists()
    assert other.exists()
    assert (tmp_path / "shadow_01.pt").read_bytes() == b"whole"


def test_memory_that_does_not_suffice_is_a_models_trouble():
    with (
        pytest.raises(ModelError, match=r"shadow_07: out of memory .*--train-batch-size \(256\)"),
        _memory_named("shadow_07", "--train-batch-size (256)"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
    with pytest.raises(RuntimeError, match="something else"), _memory_named("shadow_07", "--train-batch-size (256)"):
        raise RuntimeError("something else")


def test_a_resume_file_of_a_changed_network():
    def unfinished(width):
        return Trainer(
            "shadow_02", lambda: nn.Linear(2, width), torch.device("cpu"), seed=0, lr=0.1, lr_step=80, optimizer="MSGD"
        )

    state = unfinished(3).state_dict()
    unfinished(3).load_state_dict(state)
    with pytest.raises(ModelError, match="shadow_02: its resume file does not fit the network, whose code has changed"):
        unfinished(4).load_state_dict(state)


@pytest.mark.parametrize(("epoch_seconds", "cost"), [(0.1, 0.005), (3.0, 0.2), (60.0, 0.5), (5.0, 4.0)])
def test_checkpoints_cost_less_than_two_percent(epoch_seconds, cost):
    now = 0.0
    checkpoints = Checkpoints(None, clock=lambda: now)
    spent, gaps, last = 0.0, [], 0.0
    for epoch in range(1, 2001):
        now += epoch_seconds
        if checkpoints.due(epoch):
            gaps.append(now - last)

            def write():
                nonlocal now
                now += cost

            checkpoints.save(write)
            spent, last = spent + cost, now
    assert spent <= SHARE * (now - spent) + max(cost - FIRST_COST, 0), f"{spent} of {now} seconds"
    assert max(gaps[1:]) <= max(SHORTEST, cost / SHARE) + epoch_seconds


def test_checkpoint_every_is_obeyed():
    checkpoints = Checkpoints(7)
    assert [epoch for epoch in range(1, 30) if checkpoints.due(epoch)] == [7, 14, 21, 28]


def test_plan_trains_and_writes_nothing(tmp_path, capsys):
    assert train_model.main(flags(tmp_path, "make", "--plan")) == 0
    said = capsys.readouterr().out
    assert "complete: none" in said
    assert "missing: target_00, shadow_00 to shadow_03" in said
    assert "1 worker" in said
    assert "free" in said
    assert not list(tmp_path.iterdir())
