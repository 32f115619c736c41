"""Weights from elsewhere: which files hold a state_dict, under which keys, and which networks they fit."""

import types

import numpy as np
import pytest
import torch
from torch import nn

from lira.errors import CorruptedFile
from lira.storage.checkpoints import load_into, read_checkpoint
from lira.storage.runs import Run, open_run
from tests.helpers.errors import input_error_line
from tests.helpers.networks import equal_weights, mlp, normed
from tests.helpers.runs import IDENTITY, RECORD, RECORDED


def network(seed=0):
    torch.manual_seed(seed)
    return normed(10, 1)


def saved(folder, content, name="mine.pt"):
    torch.save(content, folder / name)
    return folder / name


class Wrapper(nn.Module):
    """A network on images that it prepares itself."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(1), persistent=False)


def renamed(weights, prefix):
    return {f"{prefix}{key}": value for key, value in weights.items()}


def lightning(weights):
    return {"epoch": 3, "state_dict": renamed(weights, "model."), "hyper_parameters": {"lr": 0.1}, "callbacks": {}}


SHAPES = {
    "a state_dict": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "epoch": 7, "best": 0.9},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer_state_dict": {"state": {}, "param_groups": []}},
    "model": lambda w: {"model": w, "args": {"lr": 0.1}},
    "nested": lambda w: {"state": 1, "model": {"state_dict": w}},
    "DataParallel": lambda w: renamed(w, "module."),
    "torch.compile": lambda w: {"model": renamed(w, "_orig_mod.")},
    "both": lambda w: renamed(w, "module._orig_mod."),
    "inside": lambda w: {key.replace("1.", "1.module.", 1) if key[0] == "1" else key: v for key, v in w.items()},
    "Opacus": lambda w: renamed(w, "_module."),
    "Lightning": lightning,
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_found_and_fit_whatever_wrapped_them(kind, wrapped, tmp_path):
    """wrapped: the network that --network makes holds the one that was saved."""
    original, model = network(), network(seed=1)
    path = saved(tmp_path, SHAPES[kind](original.state_dict()))
    load_into(Wrapper(model) if wrapped else model, read_checkpoint(path))
    assert equal_weights(model, original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_fp32(dtype, tmp_path):
    original, model = network(), network(seed=1)
    path = saved(
        tmp_path,
        {key: value.to(dtype) if value.is_floating_point() else value for key, value in original.state_dict().items()},
    )
    load_into(model, read_checkpoint(path))
    for key, value in model.state_dict().items():
        expected = original.state_dict()[key]
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected.to(dtype).to(value.dtype) if value.is_floating_point() else expected)


def test_a_member_beside_the_weights_is_read(tmp_path):
    member = np.arange(6) % 2 == 0
    for value in (torch.from_numpy(member), member.tolist()):
        checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": network().state_dict(), "member": value}))
        np.testing.assert_array_equal(checkpoint.member, member)
    assert read_checkpoint(saved(tmp_path, network().state_dict())).member is None


class Module(nn.Linear):
    """A class of the user's, which a file of a whole model names."""


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_whole_model_is_never_unpickled(tmp_path):
    scripted = tmp_path / "scripted.pt"
    torch.jit.script(nn.Linear(2, 2)).save(scripted)
    pickled = saved(tmp_path, Module(2, 2))
    with_arguments = saved(
        tmp_path, {"state_dict": network().state_dict(), "args": types.SimpleNamespace(lr=1)}, "args.pt"
    )
    for path in (pickled, with_arguments, scripted):
        line = input_error_line(read_checkpoint, path)
        assert line.startswith(f"--target-weights {path} holds more than tensors and plain values")
        assert "torch.save(model.state_dict(), ...)" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["cannot be read"]),
        (b"text, not weights\n" * 9, ["cannot be read"]),
        ([1, 2], ["holds no state_dict", "it holds list"]),
        ({"epoch": 3, "optimizer": {"state": {}}}, ["holds no state_dict", "it holds epoch, optimizer"]),
        ({}, ["holds no state_dict"]),
    ],
)
def test_other_files_are_rejected(content, words, tmp_path):
    path = tmp_path / "mine.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    line = input_error_line(read_checkpoint, path)
    for word in (str(path), *words):
        assert word in line


def test_safetensors_are_named_with_the_line_that_converts_them(tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"")
    line = input_error_line(read_checkpoint, tmp_path / "mine.safetensors")
    assert "torch.save(safetensors.torch.load_file('mine.safetensors'), 'mine.pt')" in line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: mlp(10, 1), ["4.weight", "unknown to the network", "missing", "module:factory"]),
        (lambda: normed(7, 1), ["5.weight is (10, 72) in the file and (7, 72) in the network", "all its classes"]),
        (lambda: normed(10, 3), ["0.weight is (8, 1, 3, 3) in the file and (8, 3, 3, 3) in the network"]),
        (lambda: nn.Sequential(*normed(10, 1), nn.Linear(10, 10)), ["6.weight, 6.bias missing"]),
    ],
)
def test_another_network_is_named_by_keys_and_shapes(model, words, tmp_path):
    path = saved(tmp_path, network().state_dict())
    line = input_error_line(load_into, model(), read_checkpoint(path))
    assert line.startswith(f"--target-weights {path} does not fit --network: ")
    for word in words:
        assert word in line


def test_a_file_of_a_run_is_read_with_what_it_is(tmp_path):
    run = open_run(str(tmp_path / "model"), str(tmp_path / "result"), IDENTITY, name="run", record=RECORDED)
    run.save_weights("shadow", 3, network().state_dict(), RECORD)
    checkpoint = read_checkpoint(run.weights_path("shadow", 3))
    assert checkpoint.trained_as() == (("shadow", 3), IDENTITY)
    assert checkpoint.sha256 == Run(run.models, run.results, run.identity).record("shadow", 3)["sha256"]
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes(checkpoint.path.read_bytes())
    assert read_checkpoint(moved).trained_as() is None
    content = torch.load(moved, weights_only=True)
    content["weights"]["5.bias"] += 1
    with pytest.raises(CorruptedFile):
        read_checkpoint(saved(tmp_path, content, "altered.pt"))
