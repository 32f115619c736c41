"""Reading data sets: torchvision's archives, scikit-learn's digits, .npz files (folders: lira/folder.py).

Every reader ends in `make_images`, so the checks are the same wherever the images came from."""

import contextlib
import io
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lira.data.folder import read_folder
from lira.data.images import ARRAYS, Images, find_duplicates, input_error, make_images
from lira.errors import one_line

__all__ = ["TORCHVISION", "Images", "find_duplicates", "read_digits", "read_folder", "read_npz", "read_torchvision"]

DIGITS_SEED, DIGITS_TEST, DIGITS_SIDE = 1797, 600, 28
DOWNLOAD_TIMEOUT = 20  # seconds without an answer; the system's own limit is minutes, for each mirror


class Archives(NamedTuple):
    """A data set of torchvision: its class, the folder of the archives under root, (name, md5) of each."""

    dataset: str
    folder: str
    files: Callable


TORCHVISION = {
    "cifar10": Archives("CIFAR10", "", lambda dataset: [(dataset.filename, dataset.tgz_md5)]),
    "cifar100": Archives("CIFAR100", "", lambda dataset: [(dataset.filename, dataset.tgz_md5)]),
    "mnist": Archives("MNIST", "MNIST/raw", lambda dataset: dataset.resources),
}


def read_torchvision(name, root, *, progress=True) -> Images:
    """CIFAR-10, CIFAR-100 or MNIST from `root`, downloaded there when missing, checksums by torchvision.

    name: a key of TORCHVISION. progress: the download's bar on stderr.
    Raises InputError, naming the files, if they are missing or corrupted and cannot be downloaded."""
    if name not in TORCHVISION:
        raise input_error(name, f"no such data set: known are {', '.join(TORCHVISION)}")
    import torchvision.datasets  # here: it takes a second that the other data sets need not wait for

    row = TORCHVISION[name]
    dataset = getattr(torchvision.datasets, row.dataset)
    archives = {Path(root) / row.folder / file: md5 for file, md5 in row.files(dataset)}
    try:
        with _removed_on_failure(archives), _quiet(progress):
            train, test = (dataset(root, train=flag, download=True) for flag in (True, False))
    except Exception as error:  # torchvision lets through what pickle, tarfile, gzip and sockets raise
        raise _unavailable(name, archives, error) from error
    arrays = (np.asarray(array) for array in (train.data, train.targets, test.data, test.targets))
    return make_images(name, *arrays, train.classes)


@contextlib.contextmanager
def _removed_on_failure(archives):
    """Half a download must not stay, nor half an unpacked MNIST file: torchvision would take it for good."""
    from torchvision.datasets.utils import check_integrity

    new_archives = [path for path in archives if not path.exists()]
    unpacked = [path for path in _unpacked(archives) if not path.exists()]
    try:
        yield
    except BaseException:
        corrupted = [path for path in new_archives if not check_integrity(path, archives[path])]
        for file in (*corrupted, *unpacked):
            file.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _quiet(progress):
    """No chatter on stdout, without progress none on stderr; a network that does not answer is given up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            if not progress:
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
    finally:
        socket.setdefaulttimeout(before)


def _unpacked(archives):
    """MNIST's unpacked files, the ones that torchvision takes without a look at their checksums."""
    return [path.with_suffix("") for path in archives if path.suffixes == [".gz"]]


def _unavailable(name, archives, error):
    """The InputError that says which files are the trouble, from what lies on disk now."""
    from torchvision.datasets.utils import check_integrity

    unpacked = _unpacked(archives)
    if unpacked and all(path.exists() for path in unpacked):
        files = ", ".join(map(str, unpacked))
        return input_error(name, f"cannot read one of {files} ({one_line(error)}): delete them and start again")
    states = {"missing": [], "corrupted": []}
    for path, md5 in archives.items():
        if not check_integrity(path, md5):
            states["corrupted" if path.exists() else "missing"].append(str(path))
    found = " and ".join(f"{', '.join(files)} {state}" for state, files in states.items() if files)
    problem = f"{found or 'archives not unpacked'}, and the download failed ({one_line(error)})"
    return input_error(name, f"{problem}: put the original there, or use --dataset digits, which needs no download")


def read_digits() -> Images:
    """scikit-learn's 1,797 digits: 8x8 pixels of 0..16, scaled to 0..255, enlarged to 28x28, one channel.

    600 of them, drawn once from a fixed seed, are the test set; both sets keep the original order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    x = np.stack([_enlarged(image) for image in small])
    test = np.zeros(len(x), dtype=bool)
    test[np.random.default_rng(DIGITS_SEED).permutation(len(x))[:DIGITS_TEST]] = True
    y = digits.target
    return make_images("digits", x[~test], y[~test], x[test], y[test], digits.target_names)


def _enlarged(image):
    # Pillow enlarges in integers: the same pixels on every machine, hence the same fingerprint.
    return np.asarray(Image.fromarray(image).resize((DIGITS_SIDE, DIGITS_SIDE), Image.Resampling.BILINEAR))


def read_npz(path) -> Images:
    """x_train, y_train, x_test, y_test and perhaps class_names (strings) from an .npz file.

    x_*: uint8 (N, H, W) or (N, H, W, C), C 1 or 3; y_*: integers (N,), class numbers from 0. No pickles.
    Raises InputError naming the array that is missing or wrong."""
    path = Path(path)
    if not path.is_file():
        raise input_error(path, "no such file: give the path of an .npz file")
    if not zipfile.is_zipfile(path):
        raise input_error(path, "not an .npz file, or one cut short: write it again with numpy.savez")
    with _opened(path) as archive:
        missing = [key for key in ARRAYS if key not in archive.files]
        if missing:
            found = ", ".join(archive.files) or "nothing"
            raise input_error(path, f"{', '.join(missing)} missing, it holds {found}: save {', '.join(ARRAYS)}")
        arrays = [_member(path, archive, key) for key in ARRAYS]
        class_names = _member(path, archive, "class_names") if "class_names" in archive.files else None
    if class_names is not None:
        _check_names(path, class_names)
    return make_images(path, *arrays, class_names)


def _opened(path):
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # a zip file whose table of contents is corrupted
        problem = f"cannot be read ({one_line(error)}): write it again with numpy.savez"
        raise input_error(path, problem) from error


def _member(path, archive, key):
    advice = "save it as a plain array, without pickles"
    try:
        array = archive[key]
    except Exception as error:  # pickled, cut or altered: zipfile, zlib and NumPy raise each their own
        raise input_error(path, f"{key} cannot be read ({one_line(error)}): {advice}") from error
    if not isinstance(array, np.ndarray):  # NumPy hands the bytes of a member that it does not know through
        raise input_error(path, f"{key} is no array, it begins with {array[:20]!r}: {advice}")
    return array


def _check_names(path, names):
    if names.dtype.kind != "U" or names.ndim != 1:
        problem = f"class_names is {names.dtype} of shape {names.shape}: expected strings of shape (K,)"
        raise input_error(path, problem)
    twice = [name for name in names if np.count_nonzero(names == name) > 1]
    if twice:
        raise input_error(path, f"class_names holds {twice[0]!s} twice: give each class a name of its own")
