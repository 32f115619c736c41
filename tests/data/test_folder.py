"""Reading a folder of images: what is read, in which order, what the cache notices, what is refused."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lira.data import folder
from lira.data.folder import read_folder
from lira.data.readers import read_npz
from tests.helpers.datasets import N_TEST, N_TRAIN, pixels, rejected, write_images


def assert_equal(images, written):
    for split in ("train", "test"):
        x, y = getattr(images, f"x_{split}"), getattr(images, f"y_{split}")
        expected = written[f"x_{split}"]
        expected = expected[:, None] if expected.ndim == 3 else expected.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(y, written[f"y_{split}"])
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert x.is_contiguous()


def read(path, root=None):
    return read_folder(path, root or path.parent / "root", progress=False)


def caches(root):
    return [file for file in (root / "cache").iterdir() if file.is_file()]


@pytest.fixture
def pics(tmp_path):
    write_images(tmp_path / "pics")
    return tmp_path / "pics"


@pytest.fixture
def decoded(monkeypatch):
    """The files decoded from now on."""
    files, decode = [], folder._decode
    monkeypatch.setattr(folder, "_decode", lambda file: files.append(file) or decode(file))
    return files


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_folder_is_read_as_written(channels, suffix, tmp_path):
    written = write_images(tmp_path / "pics", channels, suffix)
    for _ in range(2):  # decoded, then from the cache
        images = read(tmp_path / "pics")
        assert_equal(images, written)
        assert images.class_names == ("ant", "bee")
        assert (images.channels, images.size) == (channels, (8, 10))


def test_same_data_as_npz_has_the_same_fingerprint(tmp_path):
    written = write_images(tmp_path / "pics")
    np.savez(tmp_path / "pics.npz", **written, class_names=np.array(["ant", "bee"]))
    assert read(tmp_path / "pics").fingerprint == read_npz(tmp_path / "pics.npz").fingerprint


def test_order_does_not_depend_on_the_file_system(pics, monkeypatch):
    first, scandir = read(pics), os.scandir

    class Reversed(list):
        __enter__, __exit__ = list.__iter__, lambda self, *error: None

    monkeypatch.setattr(os, "scandir", lambda path: Reversed(sorted(scandir(path), key=str, reverse=True)))
    assert read(pics, pics.parent / "other").fingerprint == first.fingerprint


@pytest.mark.parametrize("grey_first", [True, False])
def test_grey_among_colours_becomes_three_equal_channels(tmp_path, grey_first):
    written = write_images(tmp_path / "pics")
    index = 0 if grey_first else 5
    grey = pixels(8, 10, seed=9)
    Image.fromarray(grey).save(tmp_path / f"pics/train/ant/{index}.png")
    written["x_train"][index] = grey[..., None]
    assert_equal(read(tmp_path / "pics"), written)


def test_other_modes_keep_their_colours(tmp_path):
    written = write_images(tmp_path / "pics")
    image = Image.fromarray(written["x_train"][1])
    alpha = Image.fromarray(pixels(8, 10, seed=9))
    image.putalpha(alpha)
    image.save(tmp_path / "pics/train/ant/1.png")  # RGBA: alpha is dropped
    flat = Image.new("RGB", (10, 8), (10, 200, 30))
    flat.quantize(4).save(tmp_path / "pics/train/ant/2.png")  # a palette
    written["x_train"][2] = (10, 200, 30)
    assert_equal(read(tmp_path / "pics"), written)


def test_hidden_and_other_files_are_ignored(tmp_path):
    written = write_images(tmp_path / "pics")
    for name in (
        ".DS_Store",
        "train/.hidden.png",
        "train/notes.txt",
        "train/ant/.9.png",
        "test/bee/Thumbs.db",
    ):
        (tmp_path / "pics" / name).write_bytes(b"no image")
    (tmp_path / "pics/train/.ipynb_checkpoints").mkdir()
    assert_equal(read(tmp_path / "pics"), written)


# ---- the cache


def test_second_read_decodes_nothing(pics, decoded, monkeypatch):
    first = read(pics)
    assert len(decoded) == 2 * (N_TRAIN + N_TEST)
    decoded.clear()
    monkeypatch.chdir(pics)
    for path in (pics, pics.parent / "pics/../pics", "."):
        assert read_folder(path, pics.parent / "root", progress=False).fingerprint == first.fingerprint
    assert not decoded
    assert len(caches(pics.parent / "root")) == 1


def new_pixels(pics):
    file = pics / "train/ant/3.png"
    Image.fromarray(pixels(8, 10, 3, seed=5)).save(file)


def newer(pics):
    file = pics / "test/bee/0.png"
    time = file.stat().st_mtime_ns
    os.utime(file, ns=(time, time + 1))


CHANGES = {
    "changed": new_pixels,
    "touched": newer,
    "added": lambda pics: shutil.copy(pics / "train/bee/1.png", pics / "train/bee/99.png"),
    "removed": lambda pics: (pics / "test/ant/1.png").unlink(),
    "renamed": lambda pics: (pics / "train/ant/0.png").rename(pics / "train/ant/77.png"),
    "class renamed": lambda pics: [(pics / s / "ant").rename(pics / s / "ape") for s in ("train", "test")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_cache_notices_that_the_folder_changed(change, pics, decoded):
    read(pics)
    decoded.clear()
    CHANGES[change](pics)
    images = read(pics)
    assert len(decoded) == len(images.x_train) + len(images.x_test)
    assert images.fingerprint == read(pics, pics.parent / "fresh").fingerprint


HARMS = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "altered": lambda data: data[:-3000] + bytes([data[-3000] ^ 1]) + data[-2999:],
    "text": lambda data: b"no cache\n",
}


@pytest.mark.parametrize("harm", HARMS)
def test_corrupted_cache_is_made_again_and_said(harm, pics, decoded, capsys):
    first = read(pics)
    (cache,) = caches(pics.parent / "root")
    good = cache.read_bytes()
    cache.write_bytes(HARMS[harm](good))
    decoded.clear()
    assert read(pics).fingerprint == first.fingerprint
    assert decoded
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{cache} is corrupted" in said[0]
    decoded.clear()
    assert read(pics).fingerprint == first.fingerprint
    assert not decoded


def test_cache_that_cannot_be_written_is_said_and_done_without(pics, capsys):
    root = pics.parent / "root"
    root.write_text("a file where the folder should be")
    assert read(pics).fingerprint == read(pics, pics.parent / "other").fingerprint
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "cannot write" in said[0]


def test_interrupted_write_leaves_neither_cache_nor_rubbish(pics, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(pics)
    assert caches(pics.parent / "root") == []


def test_folders_of_one_name_have_caches_of_their_own(tmp_path):
    written = {name: write_images(tmp_path / name / "pics", channels) for name, channels in (("a", 1), ("b", 3))}
    for name in ("a", "b", "a", "b"):
        assert_equal(read(tmp_path / name / "pics", tmp_path / "root"), written[name])
    assert len(caches(tmp_path / "root")) == 2


def test_progress_is_one_bar_on_stderr(pics, capsys):
    read_folder(pics, pics.parent / "root", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "images/s" in err
    read_folder(pics, pics.parent / "other", progress=False)
    assert capsys.readouterr() == ("", "")


# ---- what is refused


def emptied(pics):
    for file in (pics / "test/bee").iterdir():
        file.rename(file.with_suffix(".txt"))
    return pics / "test/bee"


def extra_class(pics):
    shutil.copytree(pics / "train/ant", pics / "train/cat")
    shutil.copytree(pics / "test/ant", pics / "test/dog")
    return pics


def one_class(pics):
    for split in ("train", "test"):
        shutil.rmtree(pics / split / "bee")
    return pics


def put(name, write):
    def harm(pics):
        write(pics / name)
        return pics / name

    return harm


def save(shape, dtype=np.uint8):
    return lambda file: Image.fromarray(np.zeros(shape, dtype)).save(file)


def cut(file):
    file.write_bytes(file.read_bytes()[:-200])


def tiny(pics):
    for file in pics.rglob("*.png"):
        save((1, 1))(file)
    return pics


REFUSED = {
    "absent": (lambda pics: pics / "nowhere", ["no such folder"]),
    "no test": (lambda pics: shutil.rmtree(pics / "test") or pics / "test", ["no such folder"]),
    "empty class": (emptied, ["class without images", ".png"]),
    "classes differ": (extra_class, ["only in train/: cat", "only in test/: dog"]),
    "one class": (one_class, ["1 class", "at least 2"]),
    "other size": (put("train/bee/4.png", save((9, 10))), ["10x9", "10x8", "ant/0.png"]),
    "other size, in test": (put("test/ant/0.png", save((8, 8, 3))), ["8x8", "10x8"]),
    "no image": (put("train/ant/4.png", lambda file: file.write_text("hello\n")), ["cannot be decoded"]),
    "cut image": (put("train/ant/4.png", cut), ["cannot be decoded"]),
    "empty file": (put("train/ant/4.png", lambda file: file.write_bytes(b"")), ["cannot be decoded"]),
    "16 bits": (put("train/ant/4.png", save((8, 10), np.uint16)), ["I;16", "8 bits"]),
    "nested": (put("train/ant/more", lambda file: file.mkdir()), ["inside a class"]),
    "outside a class": (put("train/9.png", save((8, 10))), ["outside a class"]),
    "tiny": (tiny, ["1, 1", "4x4"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_folder_is_refused_by_name(case, pics):
    harm, told = REFUSED[case]
    named = harm(pics)
    line = rejected(read, named if case == "absent" else pics, pics.parent / "root")
    assert line.startswith(f"{named}: ")
    assert all(part in line for part in told), line


def test_link_to_nowhere_is_refused(pics):
    (pics / "train/ant/99.png").symlink_to(pics / "gone.png")
    assert "99.png" in rejected(read, pics)


def test_refusal_stays_one_line_whatever_the_file_is_called(pics):
    (pics / "train/ant/a\nb.png").write_bytes(b"")
    assert "a b.png" in rejected(read, pics)
