"""Reads datasets: torchvision's archives, scikit-learn's digits, .npz files (folders: lira/data/folder.py).

Every reader ends with `make_images`, so all images pass the same checks."""

import contextlib
import io
import socket
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lira.data.images import ARRAYS, Images, input_error, make_images
from lira.errors import InputError, one_line

DIGITS_SEED, DIGITS_TEST, DIGITS_SIZE = 1797, 600, (28, 28)
DOWNLOAD_TIMEOUT = 20  # seconds without a response; the default is minutes for each mirror
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}  # dataset -> torchvision's class


def read_torchvision(name: str, root: Path, *, progress: bool = True) -> Images:
    """CIFAR-10, CIFAR-100 or MNIST from `root`, downloaded there if missing; torchvision verifies the checksums.

    name: a key of TORCHVISION. progress: the download's bar on stderr.
    Raises InputError that names the files if they are missing or corrupted and cannot be downloaded."""
    if name not in TORCHVISION:
        raise input_error(name, f"no such dataset: known are {', '.join(TORCHVISION)}")
    import torchvision.datasets  # here: the import takes a second, which the other datasets need not wait for

    dataset = getattr(torchvision.datasets, TORCHVISION[name])
    if name == "mnist":
        archives = {root / "MNIST" / "raw" / file: md5 for file, md5 in dataset.resources}
    else:
        archives = {root / dataset.filename: dataset.tgz_md5}
    try:
        with _remove_incomplete_on_failure(archives), _quiet(progress):
            train, test = (dataset(root, train=flag, download=True) for flag in (True, False))
    except Exception as error:  # torchvision passes on the errors of pickle, tarfile, gzip and sockets
        raise _unavailable(name, archives, error) from error
    arrays = (np.asarray(array) for array in (train.data, train.targets, test.data, test.targets))
    return make_images(name, *arrays, class_names=train.classes)


@contextlib.contextmanager
def _remove_incomplete_on_failure(archives: dict[Path, str]) -> Iterator[None]:
    """Removes new incomplete archives and new unpacked MNIST files, which torchvision would use without a check."""
    from torchvision.datasets.utils import check_integrity

    new_archives = [path for path in archives if not path.exists()]
    new_unpacked = [path for path in _unpacked(archives) if not path.exists()]
    try:
        yield
    except BaseException:
        incomplete = [path for path in new_archives if not check_integrity(path, archives[path])]
        for path in (*incomplete, *new_unpacked):
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Silences stdout, and without progress stderr; a download fails after DOWNLOAD_TIMEOUT without a response."""
    default_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        stderr = sys.stderr if progress else io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
            yield
    finally:
        socket.setdefaulttimeout(default_timeout)


def _unpacked(archives: Iterable[Path]) -> list[Path]:
    """MNIST's unpacked files, whose checksums torchvision does not verify."""
    return [path.with_suffix("") for path in archives if path.suffixes == [".gz"]]


def _unavailable(name: str, archives: dict[Path, str], error: Exception) -> InputError:
    """The InputError that names the missing or corrupted files, from what is on disk now."""
    from torchvision.datasets.utils import check_integrity

    unpacked = _unpacked(archives)
    if unpacked and all(path.exists() for path in unpacked):
        files = ", ".join(map(str, unpacked))
        return input_error(name, f"cannot read one of {files} ({one_line(error)}): delete them and start again")
    states: dict[str, list[str]] = {"missing": [], "corrupted": []}
    for path, md5 in archives.items():
        if not check_integrity(path, md5):
            states["corrupted" if path.exists() else "missing"].append(str(path))
    problem = " and ".join(f"{', '.join(paths)} {state}" for state, paths in states.items() if paths)
    problem = f"{problem or 'archives not unpacked'}, and the download failed ({one_line(error)})"
    return input_error(name, f"{problem}: put the original there, or use --dataset digits, which needs no download")


def read_digits() -> Images:
    """scikit-learn's 1,797 digits: 8x8 pixels of 0..16, scaled to 0..255, enlarged to 28x28, one channel.

    600 of them, drawn with a fixed seed, are the test set; both sets keep the original order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = [Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)) for image in digits.images]
    # Pillow computes with integers: the same pixels on every machine, hence the same fingerprint.
    x = np.stack([np.asarray(image.resize(DIGITS_SIZE, Image.Resampling.BILINEAR)) for image in small])
    y = digits.target
    test = np.zeros(len(x), dtype=bool)
    test[np.random.default_rng(DIGITS_SEED).permutation(len(x))[:DIGITS_TEST]] = True
    return make_images("digits", x[~test], y[~test], x[test], y[test], class_names=digits.target_names)


def read_npz(path: Path) -> Images:
    """x_train, y_train, x_test, y_test and optionally class_names and member from an .npz file without pickles.

    x_*: uint8 (N, H, W) or (N, H, W, C), C 1 or 3; y_*: integers (N,), class numbers from 0; class_names: strings (K,);
    member: bool (N,) or (T, N), which of x_test the user's own models were trained on.
    Raises InputError that names the missing or wrong array."""
    if not path.is_file():
        raise input_error(path, "no such file: give the path of an .npz file")
    if not zipfile.is_zipfile(path):
        raise input_error(path, "not an .npz file, or a truncated one: write it again with numpy.savez")
    try:
        archive = np.load(path, allow_pickle=False)
        for member in archive.zip.namelist():  # compares both copies of its name: a damaged class_names would be missed
            archive.zip.open(member).close()
    except Exception as error:  # a zip file with a corrupted table of contents
        raise input_error(path, f"cannot be read ({one_line(error)}): write it again with numpy.savez") from error
    with archive:
        missing = [key for key in ARRAYS if key not in archive.files]
        if missing:
            present = ", ".join(archive.files) or "nothing"
            raise input_error(path, f"{', '.join(missing)} missing, it holds {present}: save {', '.join(ARRAYS)}")
        arrays = [_read_array(path, archive, key) for key in ARRAYS]
        optional = {key: _read_array(path, archive, key) for key in ("class_names", "member") if key in archive.files}
    if "class_names" in optional:
        _check_class_names(path, optional["class_names"])
    return make_images(path, *arrays, **optional)


def _read_array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    remedy = "save it as a plain array, without pickles"
    try:
        array = archive[key]
    except Exception as error:  # zipfile, zlib and NumPy each raise their own errors for a pickled or corrupted array
        if key.startswith("x_") and "Object arrays" in str(error):
            remedy += (
                "; images of several sizes need one size first, like np.asarray(Image.fromarray(x).resize((W, H)))"
            )
        raise input_error(path, f"{key} cannot be read ({one_line(error)}): {remedy}") from error
    if not isinstance(array, np.ndarray):  # NumPy returns the bytes of a member that is not in .npy format
        raise input_error(path, f"{key} is not an array, it begins with {array[:20]!r}: {remedy}")
    return array


def _check_class_names(path: Path, names: np.ndarray) -> None:
    if names.dtype.kind != "U" or names.ndim != 1:
        raise input_error(path, f"class_names is {names.dtype} of shape {names.shape}: expected strings of shape (K,)")
    repeated = [name for name in names if np.count_nonzero(names == name) > 1]
    if repeated:
        raise input_error(path, f"class_names holds {repeated[0]!s} twice: give each class a different name")
