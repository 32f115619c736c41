"""Reading a folder of images: content, order, cache and rejected folders."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lira.data import folder
from lira.data.folder import read_folder
from lira.data.readers import read_npz
from tests.helpers.datasets import N_TEST, N_TRAIN, pixels, write_images
from tests.helpers.errors import input_error_line


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


def cache_files(root):
    return [file for file in (root / "cache").iterdir() if file.is_file()]


@pytest.fixture
def dataset(tmp_path):
    write_images(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded, a growing list."""
    files, decode = [], folder._decode
    monkeypatch.setattr(folder, "_decode", lambda file: files.append(file) or decode(file))
    return files


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_folder_is_read_as_written(channels, suffix, tmp_path):
    written = write_images(tmp_path / "dataset", channels, suffix)
    for _ in range(2):  # decoded, then from the cache
        images = read(tmp_path / "dataset")
        assert_equal(images, written)
        assert images.class_names == ("ant", "bee")
        assert (images.channels, images.size) == (channels, (8, 10))


def test_npz_of_the_same_images_has_the_same_fingerprint(tmp_path):
    written = write_images(tmp_path / "dataset")
    np.savez(tmp_path / "dataset.npz", **written, class_names=np.array(["ant", "bee"]))
    assert read(tmp_path / "dataset").fingerprint == read_npz(tmp_path / "dataset.npz").fingerprint


def test_order_does_not_depend_on_the_file_system(dataset, monkeypatch):
    first, scandir = read(dataset), os.scandir

    class Reversed(list):
        __enter__, __exit__ = list.__iter__, lambda self, *error: None

    monkeypatch.setattr(os, "scandir", lambda path: Reversed(sorted(scandir(path), key=str, reverse=True)))
    assert read(dataset, dataset.parent / "other").fingerprint == first.fingerprint


@pytest.mark.parametrize("grey_first", [True, False])
def test_grey_images_among_rgb_images_become_three_equal_channels(tmp_path, grey_first):
    written = write_images(tmp_path / "dataset")
    index = 0 if grey_first else 5
    grey = pixels(8, 10, seed=9)
    Image.fromarray(grey).save(tmp_path / f"dataset/train/ant/{index}.png")
    written["x_train"][index] = grey[..., None]
    assert_equal(read(tmp_path / "dataset"), written)


def test_other_modes_are_converted_to_rgb(tmp_path):
    written = write_images(tmp_path / "dataset")
    image = Image.fromarray(written["x_train"][1])
    alpha = Image.fromarray(pixels(8, 10, seed=9))
    image.putalpha(alpha)
    image.save(tmp_path / "dataset/train/ant/1.png")  # RGBA: alpha is dropped
    flat = Image.new("RGB", (10, 8), (10, 200, 30))
    flat.quantize(4).save(tmp_path / "dataset/train/ant/2.png")  # a palette
    written["x_train"][2] = (10, 200, 30)
    assert_equal(read(tmp_path / "dataset"), written)


def test_images_are_turned_as_exif_says_and_of_an_animation_the_first_frame_is_read(dataset):
    frames = [Image.fromarray(np.full((8, 10), value, np.uint8)) for value in (50, 200)]
    frames[0].save(dataset / "test/ant/0.gif", save_all=True, append_images=frames[1:])
    upright = Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(dataset / "train/ant/0.png", exif=exif)
    images = read(dataset)
    assert (images.x_test[0] == 50).all()
    assert np.array_equal(images.x_train[0, 0], upright)


def test_bytes_of_a_class_name_that_are_no_utf8_are_escaped(dataset):
    for split in ("train", "test"):
        (dataset / split / "bee").rename(os.fsdecode(os.fsencode(dataset / split) + b"/bee\xff"))
    assert read(dataset).class_names == ("ant", r"bee\udcff")


def test_members_are_the_test_images_that_a_file_names(dataset):
    assert read(dataset).member is None
    (dataset / "members.txt").write_text("test/bee/1.png\n\n  test/ant/0.png\r\n")
    for _ in range(2):  # decoded, then from the cache
        images = read(dataset)
        assert images.member.tolist() == [[True, False, False, False, True, False]]
    for line in ("test/ant/9.png", "train/ant/0.png", str(dataset / "test/ant/0.png")):
        (dataset / "members.txt").write_text(f"test/bee/1.png\n{line}\n")
        message = input_error_line(read, dataset)
        assert message.startswith(f"{dataset / 'members.txt'}: {line} is none of the test images")
        assert message.endswith("give lines like test/ant/0.png")


def test_validation_folders_are_named(dataset):
    for name in ("val", "validation"):
        (dataset / "test").rename(dataset / name)
        assert f"rename {name}/ to test/" in input_error_line(read, dataset)
        (dataset / name).rename(dataset / "test")


def test_hidden_and_other_files_are_ignored(tmp_path):
    written = write_images(tmp_path / "dataset")
    for name in (".DS_Store", "train/.hidden.png", "train/notes.txt", "train/ant/.9.png", "test/bee/Thumbs.db"):
        (tmp_path / "dataset" / name).write_bytes(b"no image")
    (tmp_path / "dataset/train/.ipynb_checkpoints").mkdir()
    assert_equal(read(tmp_path / "dataset"), written)


# ---- the cache


def test_second_read_decodes_nothing(dataset, decoded, monkeypatch):
    first = read(dataset)
    assert len(decoded) == 2 * (N_TRAIN + N_TEST)
    decoded.clear()
    monkeypatch.chdir(dataset)
    for path in (dataset, dataset.parent / "dataset/../dataset", Path()):
        assert read_folder(path, dataset.parent / "root", progress=False).fingerprint == first.fingerprint
    assert not decoded
    assert len(cache_files(dataset.parent / "root")) == 1


def new_pixels(dataset):
    file = dataset / "train/ant/3.png"
    Image.fromarray(pixels(8, 10, 3, seed=5)).save(file)


def newer_file(dataset):
    file = dataset / "test/bee/0.png"
    time = file.stat().st_mtime_ns
    os.utime(file, ns=(time, time + 1))


def restored_times(change):
    """The change, made in a way that sizes and modification times do not show."""

    def hidden(dataset):
        before = {file: file.stat() for file in dataset.rglob("*.bmp")}
        change(dataset)
        for file, stat in before.items():
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)

    return hidden


def new_bitmap(dataset):
    Image.fromarray(pixels(8, 10, 3, seed=5)).save(dataset / "train/ant/3.bmp")


def exchanged(dataset):
    """Two files of one size change places, by renaming: neither is written."""
    a, b, spare = (dataset / f"train/ant/{name}" for name in ("3.bmp", "4.bmp", "spare"))
    for source, target in ((a, spare), (b, a), (spare, b)):
        source.rename(target)


CHANGES = {
    "changed": new_pixels,
    "changed, with its old size and time": restored_times(new_bitmap),
    "exchanged, with their old sizes and times": restored_times(exchanged),
    "touched": newer_file,
    "added": lambda dataset: shutil.copy(dataset / "train/bee/1.png", dataset / "train/bee/99.png"),
    "removed": lambda dataset: (dataset / "test/ant/1.png").unlink(),
    "renamed": lambda dataset: (dataset / "train/ant/0.png").rename(dataset / "train/ant/77.png"),
    "class renamed": lambda dataset: [(dataset / s / "ant").rename(dataset / s / "ape") for s in ("train", "test")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_folder_is_decoded_again(change, dataset, decoded):
    if "old" in change:
        shutil.rmtree(dataset)
        write_images(dataset, suffix=".bmp")  # of equal sizes
    read(dataset)
    decoded.clear()
    CHANGES[change](dataset)
    images = read(dataset)
    assert len(decoded) == len(images.x_train) + len(images.x_test)
    assert images.fingerprint == read(dataset, dataset.parent / "fresh").fingerprint


CORRUPTIONS = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "altered": lambda content: content[:-3000] + bytes([content[-3000] ^ 1]) + content[-2999:],
    "text": lambda content: b"no cache\n",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corrupted_cache_is_rewritten_with_a_warning(corruption, dataset, decoded, capsys):
    original = read(dataset)
    (cache,) = cache_files(dataset.parent / "root")
    cache.write_bytes(CORRUPTIONS[corruption](cache.read_bytes()))
    decoded.clear()
    assert read(dataset).fingerprint == original.fingerprint
    assert decoded
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert f"{cache} is corrupted" in line
    decoded.clear()
    assert read(dataset).fingerprint == original.fingerprint
    assert not decoded


def test_edited_arrays_of_a_valid_cache_are_named_and_decoded_again(dataset, capsys):
    """A valid .npz file of the same state, of which one pixel, or one label, is another."""
    original = read(dataset)
    (cache,) = cache_files(dataset.parent / "root")
    valid = cache.read_bytes()
    for name in ("x_train", "y_test"):
        cache.write_bytes(valid)
        with np.load(cache) as archive:
            arrays = dict(archive)
        arrays[name].flat[0] ^= 1
        np.savez(cache, **arrays)
        assert read(dataset).fingerprint == original.fingerprint
        assert f"{cache} is corrupted (its checksum does not match)" in capsys.readouterr().err


def test_cache_that_cannot_be_written_is_a_warning(dataset, capsys):
    root = dataset.parent / "root"
    root.write_text("a file where the folder should be")
    assert read(dataset).fingerprint == read(dataset, dataset.parent / "other").fingerprint
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write" in line


def test_interrupted_write_leaves_no_files(dataset, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(dataset)
    assert cache_files(dataset.parent / "root") == []


def test_folders_of_the_same_name_have_different_caches(tmp_path):
    written = {name: write_images(tmp_path / name / "dataset", channels) for name, channels in (("a", 1), ("b", 3))}
    for name in ("a", "b", "a", "b"):
        assert_equal(read(tmp_path / name / "dataset", tmp_path / "root"), written[name])
    assert len(cache_files(tmp_path / "root")) == 2


def test_progress_is_one_bar_on_a_terminal(dataset, capsys, monkeypatch):
    for root, progress, terminal in (("a", True, True), ("b", True, False), ("c", False, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        read_folder(dataset, dataset.parent / root, progress=progress)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("images/s" in err) == (progress and terminal)


# ---- rejected folders: each function makes a folder invalid and returns the path that the message must name


def class_of_other_files(dataset):
    for file in (dataset / "test/bee").iterdir():
        file.rename(file.with_suffix(".txt"))
    return dataset / "test/bee"


def class_without_files(dataset):
    shutil.rmtree(dataset / "train/bee")
    (dataset / "train/bee").mkdir()
    return dataset / "train/bee"


def extra_class(dataset):
    shutil.copytree(dataset / "train/ant", dataset / "train/cat")
    shutil.copytree(dataset / "test/ant", dataset / "test/dog")
    return dataset


def one_class(dataset):
    for split in ("train", "test"):
        shutil.rmtree(dataset / split / "bee")
    return dataset


def no_class(dataset):
    for split in ("train", "test"):
        shutil.rmtree(dataset / split)
        (dataset / split).mkdir()
    return dataset / "train"


def put(name, write):
    def make_invalid(dataset):
        write(dataset / name)
        return dataset / name

    return make_invalid


def save(shape, dtype=np.uint8):
    return lambda file: Image.fromarray(np.zeros(shape, dtype)).save(file)


def cut(file):
    file.write_bytes(file.read_bytes()[:-200])


def tiny(dataset):
    for file in dataset.rglob("*.png"):
        save((1, 1))(file)
    return dataset


INVALID_FOLDERS = {
    "absent": (lambda dataset: dataset / "nowhere", ["no such folder"]),
    "no test": (lambda dataset: shutil.rmtree(dataset / "test") or dataset / "test", ["no such folder"]),
    "class of other files": (class_of_other_files, ["class without images", ".png"]),
    "class without files": (class_without_files, ["class without images", ".png"]),
    "classes differ": (extra_class, ["only in train/: cat", "only in test/: dog"]),
    "one class": (one_class, ["1 class", "at least 2"]),
    "no class": (no_class, ["no class folder", "train/<class>/"]),
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


@pytest.mark.parametrize("case", INVALID_FOLDERS)
def test_invalid_folder_is_rejected_by_name(case, dataset):
    make_invalid, expected = INVALID_FOLDERS[case]
    path = make_invalid(dataset)
    line = input_error_line(read, path if case == "absent" else dataset, dataset.parent / "root")
    assert line.startswith(f"{path}: ")
    assert all(part in line for part in expected), line


def test_a_pipe_is_rejected_and_not_waited_for(dataset):
    os.mkfifo(dataset / "train/ant/99.png")
    line = input_error_line(read, dataset)
    assert line.startswith(f"{dataset / 'train/ant/99.png'}: ")
    assert "no regular file" in line


def test_broken_link_is_rejected(dataset):
    (dataset / "train/ant/99.png").symlink_to(dataset / "gone.png")
    assert "99.png" in input_error_line(read, dataset)


def test_error_is_one_line_even_if_a_file_name_is_not(dataset):
    (dataset / "train/ant/a\nb.png").write_bytes(b"")
    assert "a b.png" in input_error_line(read, dataset)
