"""Reading torchvision's archives, the digits and .npz files."""

import io
import pickle
import socket
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lira.data.readers import read_digits, read_npz, read_torchvision
from tests.helpers.datasets import ARCHIVES, WRITERS, FailsWhenUnpickled, arrays, write_mnist
from tests.helpers.errors import input_error_line


@pytest.fixture
def no_network(monkeypatch):
    def urlopen(*args, **kwargs):
        assert socket.getdefaulttimeout(), "without a timeout an unresponsive server blocks forever"
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


@pytest.fixture
def network(monkeypatch):
    """A network that serves the bytes put into the returned dict, by file name."""
    served = {}

    class Response(io.BytesIO):
        def __init__(self, url):
            data = served[url.rsplit("/", 1)[-1]]
            super().__init__(data)
            self.url, self.length = url, len(data)

    monkeypatch.setattr(urllib.request, "urlopen", lambda request, *args, **options: Response(request.full_url))
    return served


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", WRITERS)
def test_torchvision_archive_is_read_as_written(name, tmp_path, monkeypatch, capfd):
    x_train, y_train, x_test, y_test, names = WRITERS[name](tmp_path, monkeypatch)
    for _ in range(2):  # the second time from the unpacked files
        images = read_torchvision(name, tmp_path)
        np.testing.assert_array_equal(images.x_train, x_train)
        np.testing.assert_array_equal(images.x_test, x_test)
        assert images.y_train.tolist() == y_train
        assert images.y_test.tolist() == y_test
        assert images.class_names == tuple(names)
        assert images.y_train.dtype == images.y_test.dtype == torch.int64
        assert images.x_train.dtype == images.x_test.dtype == torch.uint8
        assert images.x_train.is_contiguous()
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", WRITERS)
def test_without_network_the_error_names_the_missing_files(name, tmp_path, capfd):
    start = time.perf_counter()
    line = input_error_line(read_torchvision, name, tmp_path)
    assert time.perf_counter() - start < 5
    assert all(str(tmp_path / file) in line for file in ARCHIVES[name])
    assert "missing" in line
    assert "Temporary failure in name resolution" in line
    assert "--dataset digits" in line
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("corruption", ["cut", "altered", "text"])
def test_corrupted_archive_is_named_and_not_removed(name, corruption, tmp_path, monkeypatch):
    WRITERS[name](tmp_path, monkeypatch)
    file = tmp_path / ARCHIVES[name][-1]
    original = file.read_bytes()
    half = len(original) // 2
    flipped = original[:half] + bytes([original[half] ^ 1]) + original[half + 1 :]
    file.write_bytes({"cut": original[:-8], "altered": flipped, "text": b"<html>"}[corruption])
    line = input_error_line(read_torchvision, name, tmp_path)
    assert f"{file} corrupted" in line
    assert "missing" not in line
    assert file.exists()
    file.write_bytes(original)
    assert read_torchvision(name, tmp_path).n_classes == (100 if name == "cifar100" else 10)


@pytest.mark.parametrize("name", WRITERS)
def test_download_is_verified_and_removed_if_incomplete(name, tmp_path, monkeypatch, network, capfd):
    (tmp_path / "there").mkdir()
    x_train, *_ = WRITERS[name](tmp_path / "there", monkeypatch)
    originals = {file.rsplit("/", 1)[-1]: (tmp_path / "there" / file).read_bytes() for file in ARCHIVES[name]}
    last = list(originals)[-1]

    network |= originals | {last: originals[last][:-10]}  # the connection broke without an error
    line = input_error_line(read_torchvision, name, tmp_path, progress=False)
    assert f"{last} missing" in line
    remaining = [file for file in tmp_path.glob("[!t]*/**/*") if file.is_file()]
    assert all(file.read_bytes() == originals[file.name] for file in remaining)  # complete files may stay

    network |= originals
    np.testing.assert_array_equal(read_torchvision(name, tmp_path, progress=False).x_train, x_train)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_incomplete_unpacked_mnist_file_is_named(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    read_torchvision("mnist", tmp_path)
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    line = input_error_line(read_torchvision, "mnist", tmp_path)
    assert str(file) in line
    assert "delete" in line


def test_unknown_dataset_is_rejected_with_the_known_names(tmp_path):
    line = input_error_line(read_torchvision, "svhn", tmp_path)
    assert "svhn" in line
    assert "cifar10, cifar100, mnist" in line


# ---- digits


def test_digits_have_golden_shapes_and_labels():
    images = read_digits()
    assert images.x_train.shape == (1197, 1, 28, 28)
    assert images.x_test.shape == (600, 1, 28, 28)
    assert images.class_names == tuple("0123456789")
    labels = torch.cat([images.y_train, images.y_test])
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.x_train.min() == 0
    assert images.x_train.max() == 255
    # Golden: with another draw other images would be target samples, and old runs could not be continued.
    assert images.y_test[:20].tolist() == [1, 2, 4, 5, 6, 1, 5, 2, 3, 5, 6, 5, 6, 9, 9, 7, 3, 0, 1, 2]


def test_digits_are_enlarged_bilinearly_and_each_is_used_once():
    images, digits = read_digits(), load_digits()
    small = torch.from_numpy(digits.images)[:, None] * (255 / 16)
    oracle = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")[:, 0]
    unmatched = {split: list(range(len(getattr(images, f"x_{split}")))) for split in ("train", "test")}
    for image, label in zip(oracle, digits.target, strict=True):  # both sets keep the original order
        matches = [
            split
            for split, indices in unmatched.items()
            if indices
            and (getattr(images, f"x_{split}")[indices[0], 0] - image).abs().max() < 1.6  # two roundings
            and getattr(images, f"y_{split}")[indices[0]] == label
        ]
        assert len(matches) == 1
        unmatched[matches[0]].pop(0)
    assert unmatched == {"train": [], "test": []}


# ---- .npz


def saved(path, **changes):
    """An .npz of arrays() with some of them changed; None leaves one out."""
    np.savez(path, **{key: value for key, value in (arrays() | changes).items() if value is not None})
    return path


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, ">i2"])
def test_npz_is_read_as_written(channels, dtype, tmp_path):
    written = arrays(channels, names=["ant", "bee", "cat"])
    written["y_train"] = written["y_train"].astype(dtype)
    np.savez(tmp_path / "a.npz", **written)
    images = read_npz(tmp_path / "a.npz")
    for split in ("train", "test"):
        x, y = getattr(images, f"x_{split}"), getattr(images, f"y_{split}")
        assert (x.dtype, y.dtype, x.shape[1]) == (torch.uint8, torch.int64, channels or 1)
        assert x.is_contiguous()
        channels_last = x.permute(0, 2, 3, 1).reshape(written[f"x_{split}"].shape)
        np.testing.assert_array_equal(channels_last, written[f"x_{split}"])
        np.testing.assert_array_equal(y, written[f"y_{split}"])
    assert images.class_names == ("ant", "bee", "cat")
    assert (images.n_classes, images.channels, images.size) == (3, channels or 1, (8, 10))


def test_npz_may_state_the_members(tmp_path):
    member = np.arange(4) % 2 == 0
    np.testing.assert_array_equal(read_npz(saved(tmp_path / "a.npz", member=member)).member, [member])


def test_npz_without_names_numbers_the_classes(tmp_path):
    assert read_npz(saved(tmp_path / "a.npz")).class_names == ("0", "1", "2")


INVALID_ARRAYS = {
    "missing key": ({"y_test": None}, ["y_test missing", "x_train, y_train, x_test"]),
    "names are numbers": ({"class_names": np.arange(3)}, ["class_names is int64"]),
    "name twice": ({"class_names": np.array(["a", "b", "a"])}, ["class_names", "a twice"]),
    "pickled images": ({"x_train": np.array([FailsWhenUnpickled()] * 6)}, ["x_train cannot be read", "pickle"]),
    "images of several sizes": (
        {"x_train": np.array([np.zeros((side, 8, 3), np.uint8) for side in range(8, 14)], object)},
        ["x_train cannot be read", "images of several sizes need one size first", ".resize((W, H))"],
    ),
    "pickled names": ({"class_names": np.array(["a", "b", FailsWhenUnpickled()], object)}, ["class_names", "pickle"]),
}


@pytest.mark.parametrize("case", INVALID_ARRAYS)
def test_invalid_array_in_npz_is_rejected_by_name(case, tmp_path):
    changes, expected = INVALID_ARRAYS[case]
    path = saved(tmp_path / "bad.npz", **changes)
    line = input_error_line(read_npz, path)
    assert line.startswith(f"{path}: ")
    assert all(part in line for part in expected), line


def invalid_npz(path):
    original = saved(path.with_name("original.npz")).read_bytes()
    np.save(path.with_name("array.npy"), np.zeros(3))
    return {
        "empty": b"",
        "text": b"x_train,y_train\n",
        "npy": path.with_name("array.npy").read_bytes(),
        "pickle": pickle.dumps(FailsWhenUnpickled()),
        "cut": original[: len(original) // 2],
        "altered": original[:400] + bytes(byte ^ 255 for byte in original[400:420]) + original[420:],
        "table of contents altered": original[:-300] + bytes(200) + original[-100:],
    }


@pytest.mark.parametrize("content", ["empty", "text", "npy", "pickle", "cut", "altered", "table of contents altered"])
def test_invalid_npz_is_rejected(content, tmp_path):
    path = tmp_path / "invalid.npz"
    path.write_bytes(invalid_npz(path)[content])
    line = input_error_line(read_npz, path)
    assert line.startswith(f"{path}: ")
    assert ("save it as a plain array" if content == "altered" else "numpy.savez") in line


def test_npz_that_is_no_file_is_rejected(tmp_path):
    for path in (tmp_path / "absent.npz", tmp_path):
        assert input_error_line(read_npz, path).startswith(f"{path}: ")
