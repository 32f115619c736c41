"""The files of one model: weights with their record, in files that no other model's are taken for."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from lira.errors import CorruptedFile, ModelError
from lira.storage.checksums import digest
from lira.storage.probe import probe_logits
from lira.storage.runs import open_run
from tests.helpers.errors import input_error_line
from tests.helpers.runs import IDENTITY, RECORD

WEIGHTS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(3),
    "bf16": torch.ones(2, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "channels_last": torch.ones(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
}


def test_weights_are_loaded_as_they_were_saved(run):
    assert not run.has_weights("shadow", 3)
    run.save_weights("shadow", 3, WEIGHTS, RECORD)
    assert run.weights_path("shadow", 3) == run.models / "shadow_03.pt"
    assert run.has_weights("shadow", 3)
    loaded = run.load_weights("shadow", 3)
    assert loaded.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value)
    assert RECORD.items() <= run.record("shadow", 3).items()
    assert run.record("shadow", 3)["sha256"] == digest(WEIGHTS)
    assert {path.name for path in run.models.iterdir()} == {"config.json", "shadow_03.pt"}


def test_a_flipped_bit_anywhere_in_the_weights_is_detected(run):
    run.save_weights("target", 0, {"a": torch.arange(40.0)}, RECORD)
    path = run.weights_path("target", 0)
    valid = path.read_bytes()
    start = valid.index(torch.arange(40.0).numpy().tobytes())
    for place in (start, start + 77, start + 159):
        path.write_bytes(valid[:place] + bytes([valid[place] ^ 4]) + valid[place + 1 :])
        assert "target_00.pt is corrupted" in input_error_line(run.load_weights, "target", 0)
    for corrupted in (b"", b"text", valid[:200], valid[: len(valid) // 2], valid[:-1]):
        path.write_bytes(corrupted)
        assert "target_00.pt is corrupted" in input_error_line(run.load_weights, "target", 0)
        assert "target_00.pt is corrupted" in input_error_line(run.record, "target", 0)


def test_weights_of_another_model_or_other_settings(run, tmp_path):
    run.save_weights("shadow", 0, {"a": torch.ones(1)}, RECORD)
    content = run.weights_path("shadow", 0).read_bytes()
    run.weights_path("shadow", 1).write_bytes(content)
    with pytest.raises(CorruptedFile, match="another model"):
        run.load_weights("shadow", 1)
    other = open_run(tmp_path / "other", tmp_path / "elsewhere", IDENTITY | {"lr_step": 5}, record={})
    other.weights_path("shadow", 0).write_bytes(content)
    with pytest.raises(CorruptedFile, match="other settings"):
        other.record("shadow", 0)


def test_weights_are_loaded_into_the_network_that_they_were_saved_from_and_into_no_other(run):
    saved, loaded = nn.Linear(3, 4), nn.Linear(3, 4)
    run.save_weights("target", 0, saved.state_dict(), RECORD)
    run.load_into(loaded, "target", 0)
    assert torch.equal(loaded.weight, saved.weight)
    assert torch.equal(loaded.bias, saved.bias)
    for other in (nn.Linear(3, 5), nn.Linear(3, 4, bias=False), nn.Sequential(nn.Linear(3, 4))):
        line = input_error_line(run.load_into, other, "target", 0)
        assert line.startswith(f"{run.weights_path('target', 0)} holds the weights of another network than --network ")


def test_weights_are_not_loaded_into_another_network_of_the_same_shapes(run):
    """Nor into one whose logits are not finite where they were; files of earlier versions hold no such logits."""
    saved = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    shape = (3, 2, 2)
    probe = {"shape": list(shape), "logits": probe_logits(saved, shape)}
    run.save_weights("target", 0, saved.state_dict(), RECORD | {"probe": probe})
    run.save_weights("target", 1, saved.state_dict(), RECORD)
    edited = [nn.Sequential(*saved[:2], activation, saved[3]) for activation in (nn.LeakyReLU(0.1), nn.Identity())]
    edited.append(nn.Sequential(*saved, nn.Threshold(10, float("nan"))))
    for index in (0, 1):
        run.load_into(saved, "target", index)
    for other in edited:
        line = input_error_line(run.load_into, other, "target", 0)
        assert line.startswith(f"{run.weights_path('target', 0)} was trained with another network than --network makes")
        assert "another network" in input_error_line(run.has_valid_weights, "target", 0, other)
        run.load_into(other, "target", 1)
    assert run.has_valid_weights("target", 0, saved)
    assert run.record("target", 0)["probe"]["shape"] == [3, 2, 2]


def test_corrupted_weights_that_another_process_has_just_renamed_are_no_error(run, monkeypatch):
    run.weights_path("target", 0).write_bytes(b"half a fi")

    def renamed_by_another(path, target):
        path.rename(target)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(Path, "replace", renamed_by_another)
    assert not run.has_valid_weights("target", 0)


def test_only_the_user_reads_the_resume_file_of_a_private_model(run):
    """It holds the noise to come. A failed private model leaves none, unless it can be continued."""
    for job, state in ((("target", 0), {"privacy": {}}), (("shadow", 0), {})):
        run.save_resume(*job, {"history": [], **state})
    modes = [run.resume_path(role, 0).stat().st_mode & 0o077 for role in ("target", "shadow")]
    assert modes[0] == 0
    assert modes[1] == 0o066 & ~umask()
    for role, remove_resume in (("shadow", False), ("target", False), ("target", True)):
        run.save_failure(role, 0, ModelError("the loss is nan"), remove_resume=remove_resume)
        assert run.resume_path(role, 0).exists() != remove_resume


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
