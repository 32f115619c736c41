"""The results of gradient canaries on disk: which weights they belong to, and what is missing."""

import numpy as np
import pytest
import torch

from lira.privacy.audit import Mechanism
from lira.privacy.mechanism import Outcome
from lira.storage.canaries import load_canaries
from tests.helpers.runs import RECORD


def weights(value):
    return {"a": torch.full((5,), float(value))}


def results(value, n=3):
    return {
        "score": np.full(n, float(value)),
        "member": np.arange(n) % 2 == 0,
        "check": np.array(["noise scale", "steps"]),
        "scope": np.array(["all", "all"]),
        "value": np.array([1.5, 60.0]),
        "n": np.array([100, 60]),
    }


def complete(run, index, value):
    run.save_canaries("target", index, weights(value), results(value))
    run.save_weights("target", index, weights(value), RECORD | {"canaries": 3})


@pytest.fixture
def two(run):
    """A run of two targets."""
    complete(run, 0, 7.0)
    complete(run, 1, 8.0)
    return run


def test_weights_on_disk_imply_the_results_of_their_canaries(run):
    """A launch killed between the two writes; then two at the same time, of which the slower one began first."""
    run.save_canaries("target", 0, weights(1), results(1))
    run.save_canaries("target", 0, weights(2), results(2))
    run.save_canaries("target", 0, weights(3), results(3))
    for value in (3, 2):
        run.save_weights("target", 0, weights(value), RECORD | {"canaries": 3})
        assert load_canaries(run, 1).scores[0].score.tolist() == [value] * 3


def test_the_results_of_all_targets_are_collected(two):
    collected = load_canaries(two, 2)
    arrays = collected.arrays
    assert arrays["target"].tolist() == [0, 0, 0, 1, 1, 1]
    assert arrays["score"].tolist() == [7.0] * 3 + [8.0] * 3
    assert arrays["member"].tolist() == [True, False, True] * 2
    table = collected.mechanism_table([Mechanism(1.5, 0.25, 60), Mechanism(3.0, 0.25, 60)])
    assert table.columns.tolist() == ["target", *Outcome._fields]
    assert table.target.tolist() == ["target_00", "target_00", "target_01", "target_01"]
    assert table.deviates.tolist() == [False, False, True, False]


def test_targets_without_canaries(two, capsys):
    two.save_weights("target", 2, weights(9), RECORD)
    assert load_canaries(two, 3) is None
    assert two.n_canaries() == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("change", "reason"), [(lambda path: path.unlink(), "is missing"), (None, "is corrupted")])
def test_lost_results_are_named(two, capsys, change, reason):
    (path,) = (two.results / "train").glob("target_01.canaries.*.npz")
    (change or (lambda path: path.write_bytes(path.read_bytes()[:-9])))(path)
    assert load_canaries(two, 2) is None
    stderr = capsys.readouterr().err
    assert f"no audit by gradient canaries: {path} {reason}" in stderr
    assert len(stderr.splitlines()) == 1
