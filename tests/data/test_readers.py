"""Reading torchvision's archives, the digits and .npz files. Folders are in test_folder.py."""

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
from tests.helpers.datasets import ARCHIVES, WRITERS, arrays, rejected, write_mnist


@pytest.fixture
def no_network(monkeypatch):
    def urlopen(*args, **kwargs):
        assert socket.getdefaulttimeout(), "a network that does not answer would hang"
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
def test_without_network_one_line_says_which_file_belongs_where(name, tmp_path, capfd):
    start = time.perf_counter()
    line = rejected(read_torchvision, name, tmp_path)
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
@pytest.mark.parametrize("harm", ["cut", "altered", "text"])
def test_corrupted_archive_is_named_and_kept(name, harm, tmp_path, monkeypatch):
    WRITERS[name](tmp_path, monkeypatch)
    file = tmp_path / ARCHIVES[name][-1]
    good = file.read_bytes()
    half = len(good) // 2
    flipped = good[:half] + bytes([good[half] ^ 1]) + good[half + 1 :]
    file.write_bytes({"cut": good[:-8], "altered": flipped, "text": b"<html>"}[harm])
    line = rejected(read_torchvision, name, tmp_path)
    assert f"{file} corrupted" in line
    assert "missing" not in line
    assert file.exists()
    file.write_bytes(good)
    assert read_torchvision(name, tmp_path).n_classes == (100 if name == "cifar100" else 10)


@pytest.mark.parametrize("name", WRITERS)
def test_download_is_checked_and_a_bad_one_leaves_nothing(name, tmp_path, monkeypatch, network, capfd):
    (tmp_path / "there").mkdir()
    expected = WRITERS[name](tmp_path / "there", monkeypatch)
    good = {file.rsplit("/", 1)[-1]: (tmp_path / "there" / file).read_bytes() for file in ARCHIVES[name]}
    last = list(good)[-1]

    network |= good | {last: good[last][:-10]}  # the connection broke, and nobody noticed
    line = rejected(read_torchvision, name, tmp_path, progress=False)
    assert f"{last} missing" in line
    left = [file for file in tmp_path.glob("[!t]*/**/*") if file.is_file()]
    assert all(file.read_bytes() == good[file.name] for file in left)  # what came whole may stay

    network |= good
    np.testing.assert_array_equal(read_torchvision(name, tmp_path, progress=False).x_train, expected[0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_half_unpacked_mnist_file_is_named(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    read_torchvision("mnist", tmp_path)
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    line = rejected(read_torchvision, "mnist", tmp_path)
    assert str(file) in line
    assert "delete" in line


def test_unknown_torchvision_name_lists_the_known(tmp_path):
    line = rejected(read_torchvision, "svhn", tmp_path)
    assert "svhn" in line
    assert "cifar10, cifar100, mnist" in line


# ---- digits


def test_digits_are_the_known_ones():
    images = read_digits()
    assert images.x_train.shape == (1197, 1, 28, 28)
    assert images.x_test.shape == (600, 1, 28, 28)
    assert images.class_names == tuple("0123456789")
    labels = torch.cat([images.y_train, images.y_test])
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.x_train.min() == 0
    assert images.x_train.max() == 255
    # Golden: another draw would make other target samples of them, and old runs could not be continued.
    assert images.y_test[:20].tolist() == [1, 2, 4, 5, 6, 1, 5, 2, 3, 5, 6, 5, 6, 9, 9, 7, 3, 0, 1, 2]


def test_digits_are_enlarged_bilinearly_and_each_is_used_once():
    images, digits = read_digits(), load_digits()
    small = torch.from_numpy(digits.images)[:, None] * (255 / 16)
    oracle = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")[:, 0]
    left = {split: list(range(len(getattr(images, f"x_{split}")))) for split in ("train", "test")}
    for image, label in zip(oracle, digits.target, strict=True):  # both sets keep the original order
        matches = [
            split
            for split, indices in left.items()
            if indices
            and (getattr(images, f"x_{split}")[indices[0], 0] - image).abs().max() < 1.6  # two roundings
            and getattr(images, f"y_{split}")[indices[0]] == label
        ]
        assert len(matches) == 1
        left[matches[0]].pop(0)
    assert left == {"train": [], "test": []}


def first(tensor, n_channels):
    """(N, C, H, W) tensor -> (N, H, W, C) array, as files have it."""
    assert tensor.is_contiguous()
    assert tensor.dtype == torch.uint8
    assert tensor.shape[1] == n_channels
    return tensor.permute(0, 2, 3, 1).numpy()


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
        x = first(getattr(images, f"x_{split}"), channels or 1)
        np.testing.assert_array_equal(x.reshape(written[f"x_{split}"].shape), written[f"x_{split}"])
        np.testing.assert_array_equal(getattr(images, f"y_{split}"), written[f"y_{split}"])
        assert getattr(images, f"y_{split}").dtype == torch.int64
    assert images.class_names == ("ant", "bee", "cat")
    assert (images.n_classes, images.channels, images.size) == (3, channels or 1, (8, 10))


def test_npz_without_names_numbers_the_classes(tmp_path):
    assert read_npz(saved(tmp_path / "a.npz")).class_names == ("0", "1", "2")


class Evil:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


BAD_ARRAYS = {
    "missing key": ({"y_test": None}, ["y_test missing", "x_train, y_train, x_test"]),
    "names are numbers": ({"class_names": np.arange(3)}, ["class_names is int64"]),
    "name twice": ({"class_names": np.array(["a", "b", "a"])}, ["class_names", "a twice"]),
    "pickled images": ({"x_train": np.array([Evil()] * 6)}, ["x_train cannot be read", "pickle"]),
    "pickled names": ({"class_names": np.array(["a", "b", Evil()], object)}, ["class_names", "pickle"]),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_npz_is_refused_by_name(case, tmp_path):
    changes, told = BAD_ARRAYS[case]
    path = saved(tmp_path / "bad.npz", **changes)
    line = rejected(read_npz, path)
    assert line.startswith(f"{path}: ")
    assert all(part in line for part in told), line


def not_npz(path):
    good = saved(path.with_name("good.npz")).read_bytes()
    np.save(path.with_name("one.npy"), np.zeros(3))
    return {
        "absent": None,
        "empty": b"",
        "text": b"x_train,y_train\n",
        "npy": path.with_name("one.npy").read_bytes(),
        "pickle": pickle.dumps(Evil()),
        "cut": good[: len(good) // 2],
        "altered": good[:400] + bytes(byte ^ 255 for byte in good[400:420]) + good[420:],
        "table of contents altered": good[:-300] + bytes(200) + good[-100:],
    }


@pytest.mark.parametrize("harm", ["absent", "empty", "text", "npy", "pickle", "cut", "altered", "folder"])
def test_what_is_no_npz_is_refused(harm, tmp_path):
    path = tmp_path / "bad.npz"
    content = not_npz(path).get(harm)
    if content is not None:
        path.write_bytes(content)
    if harm == "folder":
        path.mkdir()
    assert rejected(read_npz, path).startswith(f"{path}: ")


def test_npz_with_a_corrupted_table_of_contents_is_refused(tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(not_npz(path)["table of contents altered"])
    assert "numpy.savez" in rejected(read_npz, path)
