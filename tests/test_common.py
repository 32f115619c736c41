"""The table of data sets, devices and precision, and the setup that both scripts begin with."""

import numpy as np
import pytest
import torch

import common
from common import DATASETS, default_n_train, load_dataset, prepare, resolve_device, resolve_precision
from tests.helpers.datasets import arrays, rejected, write_images
from tests.helpers.scripts import FLAGS
from util import parse_args


def setup(*flags):
    return prepare(parse_args([*FLAGS, *flags], description="test"))


def test_only_images_whose_mirror_image_is_of_the_same_class_are_flipped():
    assert {name: row.flip for name, row in DATASETS.items()} == {
        "cifar10": True, "cifar100": True, "mnist": False, "digits": False,
    }  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_own_data_is_read_and_flipped_in_colour_only(channels, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(channels=channels))
    images, flip = load_dataset(str(tmp_path / "own.npz"), str(tmp_path))
    assert flip == (channels == 3)
    assert images.channels == channels
    found = write_images(tmp_path / "folder", channels=channels)
    images, flip = load_dataset(str(tmp_path / "folder"), str(tmp_path), progress=False)
    assert flip == (channels == 3)
    np.testing.assert_array_equal(images.y_train, found["y_train"])


@pytest.mark.parametrize("name", ["cifar", "", "nothing.npz", "nothing/", "/nothing", "CIFAR10"])
def test_an_unknown_data_set_is_refused_with_those_that_are_known(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = rejected(load_dataset, name, "data", progress=False)
    if name:
        assert f"cifar10, cifar100, mnist, digits, or the path of a .npz file or of a folder; got {name!r}" in line


# --- devices -------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    def make(*, gpus=0, mps=False, capability=(8, 0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("have", "name", "expected"),
    [
        ({}, "auto", "cpu"), ({"mps": True}, "auto", "mps"), ({"gpus": 2, "mps": True}, "auto", "cuda:0"),
        ({"gpus": 2}, "cuda", "cuda:0"), ({"gpus": 2}, "cuda:1", "cuda:1"), ({"gpus": 2}, "cpu", "cpu"),
        ({"mps": True}, "mps", "mps"),
    ],
)  # fmt: skip
def test_devices_that_are_there(machine, have, name, expected):
    machine(**have)
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("have", "name", "words"),
    [
        ({}, "cuda", "finds 0 GPUs"), ({}, "cuda:0", "finds 0 GPUs"), ({"gpus": 1}, "cuda:1", "finds 1 GPUs"),
        ({}, "mps", "no Apple GPU"), ({"gpus": 1}, "gpu", "got 'gpu'"), ({"gpus": 1}, "cuda:x", "got 'cuda:x'"),
        ({}, "cpu:1", "got 'cpu:1'"), ({}, "", "got ''"), ({"gpus": 1}, "cuda:-1", "got 'cuda:-1'"),
        ({"gpus": 1}, "cuda:", "got 'cuda:'"),
    ],
)  # fmt: skip
def test_devices_that_are_not_there(machine, have, name, words):
    machine(**have)
    assert words in rejected(resolve_device, name)


def test_precision_follows_the_hardware(machine, monkeypatch):
    machine(gpus=1, capability=(8, 0))
    assert resolve_precision("auto", torch.device("cuda")) == "bf16"
    machine(gpus=1, capability=(7, 5))
    assert resolve_precision("auto", torch.device("cuda")) == "fp32"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    for has in (True, False):
        for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, check, lambda has=has: has, raising=False)
        assert resolve_precision("auto", torch.device("cpu")) == ("bf16" if has else "fp32")
    for name in ("fp32", "bf16"):
        assert resolve_precision(name, torch.device("cpu")) == name


# --- the setup -----------------------------------------------------------------------------------------------------


def test_setup_brings_flags_and_data_together():
    found = setup("--n-train", "50", "--target-inclusion", "coin", "--exp-idx", "3")
    assert (found.split.n_train, found.split.inclusion, found.split.exp_idx) == (50, "coin", 3)
    assert found.store.first_sample == 1197
    assert found.split.n_samples == 600
    assert not found.store.flip
    assert found.identity["data_fingerprint"] == found.images.fingerprint
    assert found.build()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert "a model trains on 50 + 300" in found.describe()


@pytest.mark.parametrize(("n_train", "is_default"), [("478", True), ("477", False)])
def test_the_default_is_the_default_also_when_it_is_spelled_out(n_train, is_default):
    assert default_n_train(1197) == 478
    assert setup("--n-train", n_train).identity["n_train_is_default"] is is_default


def test_no_image_is_tested_on_that_was_trained_on():
    """Over the pixels, not the indices: what the store shows to a model, and what it is tested with."""
    found = setup()
    for role in ("target", "shadow"):
        for index in range(3):
            indices = torch.from_numpy(found.split.training_set(role, index, found.store.first_sample))
            tested = torch.from_numpy(found.split.test_set(role))
            outside = torch.from_numpy(np.flatnonzero(~found.split.member(role, index))) + found.store.first_sample
            assert not set(indices.tolist()) & set(tested.tolist())
            assert not set(indices.tolist()) & set(outside.tolist())
            inside = torch.from_numpy(np.flatnonzero(found.split.member(role, index)))
            shown = found.store.unaugmented(indices[found.split.n_train :])
            pixels = found.images.x_test[inside].float() / 255
            expected = (pixels - found.images.mean[0]) / found.images.std[0]
            torch.testing.assert_close(shown, expected, atol=1e-5, rtol=1e-5)


def test_a_wrong_name_is_refused_before_data_is_read(monkeypatch):
    monkeypatch.setattr(common, "load_dataset", lambda *args, **settings: pytest.fail("data was read"))
    assert "ResNet19" in rejected(setup, "--network", "ResNet19")
    assert "abc" in rejected(setup, "--device", "abc")
