"""A dataset in memory, the checks that every reader ends with, and duplicates between training and test set."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lira.errors import InputError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MIN_SIDE = 4  # pixels: smaller images leave nothing to learn after a convolution or a shift by a few pixels
MIN_SAMPLES, MIN_SAMPLES_OF_CLASS = 300, 10  # target samples: of fewer, the figures say little
MIN_STD = 1 / 255  # one step of a pixel value: a constant channel is not divided by zero


@dataclass(frozen=True, eq=False)
class Images:
    """A dataset in memory. x_*: uint8 (N, C, H, W), contiguous; y_*: int64 (N,), class numbers from 0.

    member: bool (T, N), which of x_test each of the user's own models was trained on, or (1, N) for all of them; None
    where it is not stated. The models of a run do not depend on it, and the fingerprint does not either."""

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    class_names: tuple[str, ...]
    member: np.ndarray | None = None

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.x_train.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.x_train.shape[2], self.x_train.shape[3]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over x_train, pixels in [0, 1]."""
        return self._mean_std[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over x_train, pixels in [0, 1], at least MIN_STD."""
        return self._mean_std[1]

    @cached_property
    def _mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        # From exact counts of the 256 pixel values: the same on every machine and with any number of threads.
        counts = torch.zeros(self.channels, 256, dtype=torch.int64)
        for x in self.x_train.split(4096):  # in parts, because bincount converts the pixels to int64
            counts += torch.stack([x[:, c].flatten().bincount(minlength=256) for c in range(self.channels)])
        frequency = counts.double() / counts.sum(1, keepdim=True)  # (C, 256)
        grey = torch.arange(256, dtype=torch.float64) / 255
        mean = frequency @ grey  # (C,)
        std = (frequency * (grey - mean[:, None]) ** 2).sum(1).sqrt().clamp_min(MIN_STD)
        return tuple(mean.tolist()), tuple(std.tolist())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of shapes, pixels, labels and class names; independent of the files they were read from."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for key in ARRAYS:
            tensor = getattr(self, key)
            digest.update(json.dumps(tensor.shape).encode())
            digest.update(tensor.numpy())
        return digest.hexdigest()


def few_samples(images: Images) -> list[str]:
    """What the user should know of too few target samples, of all classes or of some; empty where there are enough."""
    n, counts, lines = len(images.y_test), images.y_test.bincount(minlength=images.n_classes), []
    if n < MIN_SAMPLES:
        lines.append(
            f"{n} target samples are few: intervals are wide, and low FPRs not resolvable, below {MIN_SAMPLES}"
        )
    if n_few := int((counts < MIN_SAMPLES_OF_CLASS).sum()):
        smallest = int(counts.argmin())
        lines.append(
            f"{n_few} of {images.n_classes} classes have fewer than {MIN_SAMPLES_OF_CLASS} target samples, "
            f"the fewest {images.class_names[smallest]} ({counts[smallest]}): their rows in classes.csv say little"
        )
    return lines


def find_duplicates(images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Test images whose exact pixels also occur in the training set, whatever their labels.

    Returns (test_index, train_index): int64 (n,) each, test_index ascending, train_index the first match."""
    train, test = (_digests(x) for x in (images.x_train, images.x_test))
    first_index = {digest: index for index, digest in reversed(list(enumerate(train)))}
    pairs = [(index, first_index[digest]) for index, digest in enumerate(test) if digest in first_index]
    test_index, train_index = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return test_index, train_index


def _digests(x: torch.Tensor) -> list[bytes]:
    return [hashlib.blake2b(image, digest_size=16).digest() for image in x.numpy()]


def input_error(source: str | Path, problem: str) -> InputError:
    """InputError "source: problem" in one line, even if a file name or a library's message contains line breaks."""
    return InputError(" ".join(f"{source}: {problem}".splitlines()))


def make_images(
    source: str | Path,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    *,
    class_names: Sequence[str] | np.ndarray | None = None,
    member: np.ndarray | None = None,
) -> Images:
    """Images from NumPy arrays, channels last: x_* uint8 (N, H, W) or (N, H, W, C), y_* integers (N,).

    source: the start of every error message. class_names: (K,) strings, by default the class numbers. member: bool, or
    0 and 1, (N,) or (T, N), see Images.
    Raises InputError that names the wrong array and, for a label, its index and value."""
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_arrays(source, split, x, y)
    train, test = (_channels_first(x) for x in (x_train, x_test))
    if train.shape[1:] != test.shape[1:]:
        raise input_error(source, f"x_train has shape {x_train.shape}, x_test {x_test.shape}: give images of one size")
    # Without class names, a label that is not below the number of images is an identifier, not a class.
    _check_range(source, "y_train", y_train, len(x_train) if class_names is None else len(class_names))
    if class_names is None and min(y_train.min(), y_test.min()) > 0:
        problem = "there is no image of class 0, do labels start at 1? They are numbers from 0"
        raise input_error(source, f"{problem}: save y_train - 1 and y_test - 1")
    if class_names is None:
        class_names = [str(k) for k in range(int(y_train.max()) + 1)]
    _check_range(source, "y_test", y_test, len(class_names))
    if len(class_names) < 2:
        raise input_error(source, f"has {len(class_names)} class: a classifier needs at least 2")
    train_labels, test_labels = (torch.from_numpy(np.array(y, dtype=np.int64)) for y in (y_train, y_test))
    # Bytes of a folder's name that are no UTF-8 cannot be written to a table or a page: as escapes they can.
    names = tuple(str(name).encode(errors="backslashreplace").decode() for name in class_names)
    member = None if member is None else check_member(source, member, len(test))
    return Images(train, train_labels, test, test_labels, names, member)


def check_member(source: str | Path, member: np.ndarray, n_samples: int) -> np.ndarray:
    """member as bool (T, N); from (N,) or (T, N), bool or 0 and 1. Raises InputError."""
    if member.shape[-1:] != (n_samples,) or member.ndim > 2:
        hint = "; it is transposed: save member.T" if member.ndim == 2 and len(member) == n_samples else ""
        expected = f"({n_samples},), or (T, {n_samples}) for T models"
        raise input_error(
            source, f"member has shape {member.shape}: expected {expected}, one value per target sample{hint}"
        )
    if member.dtype.kind not in "biuf" or not np.isin(member, (0, 1)).all():
        raise input_error(
            source, "member must be True where a model was trained on the sample, else False: save booleans"
        )
    return np.atleast_2d(member).astype(bool)


def _channels_first(x: np.ndarray) -> torch.Tensor:
    """uint8 array (N, H, W) or (N, H, W, C) -> a contiguous tensor (N, C, H, W) with its own memory."""
    channels_last = x if x.ndim == 4 else x[..., None]
    return torch.from_numpy(np.array(channels_last.transpose(0, 3, 1, 2), order="C"))


def _check_arrays(source: str | Path, split: str, x: np.ndarray, y: np.ndarray) -> None:
    name = f"x_{split}"
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
        channels_last = f"{name}.transpose(0, 2, 3, 1)"
        raise input_error(
            source, f"{name} has shape {x.shape}, channels first: channels come last, save {channels_last}"
        )
    if x.dtype != np.uint8:
        problem = f"{name} is {x.dtype}{_value_range(x)}: pixels must be uint8, 0 to 255"
        raise input_error(source, f"{problem}; save {_as_pixels(name, x)}")
    shape = f"{name} has shape {x.shape}"
    if x.ndim not in (3, 4) or x.shape[3:] not in ((), (1,), (3,)):
        expected = "expected (N, H, W) or, channels last, (N, H, W, C) with C 1 or 3"
        raise input_error(source, f"{shape}: {expected}{_reshaped(name, x)}")
    if not len(x):
        raise input_error(source, f"{shape}: give at least one image")
    if min(x.shape[1:3]) < MIN_SIDE:
        raise input_error(source, f"{shape}: images must be at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if y.dtype.kind not in "iu":
        remedy = ""
        if y.dtype.kind == "f" and y.shape == (len(x),) and np.array_equal(y, np.floor(y)):
            remedy = f"; save y_{split}.astype(np.int64)"
        problem = f"y_{split} is {y.dtype}: labels must be integers, the class numbers from 0"
        raise input_error(source, f"{problem}{remedy}")
    if y.shape != (len(x),):
        one_hot = f"; save y_{split}.argmax(axis=1)" if y.ndim == 2 and len(y) == len(x) and y.shape[1] > 1 else ""
        one_hot = f"; save y_{split}.ravel()" if y.shape == (len(x), 1) else one_hot
        raise input_error(source, f"y_{split} has shape {y.shape}: expected ({len(x)},), one label per image{one_hot}")


def _value_range(x: np.ndarray) -> str:
    """with values from 0 to 1, where it has real values."""
    return f" with values from {x.min():g} to {x.max():g}" if x.size and x.dtype.kind in "fiu" else ""


def _as_pixels(name: str, x: np.ndarray) -> str:
    """The line of NumPy that makes pixels of an array, by the range of its values."""
    low, high = (float(x.min()), float(x.max())) if x.size and x.dtype.kind in "fiu" else (0.0, 255.0)
    if not -1 <= low <= high <= 255 or (low < 0 and high > 1):
        return "the pixels before they were normalised"
    if x.dtype.kind != "f":
        return f"{name}.astype(np.uint8)"
    pixels = f"127.5 * ({name} + 1)" if low < 0 else f"255 * {name}" if high <= 1 else name
    return f"np.rint({pixels}).astype(np.uint8)"


def _reshaped(name: str, x: np.ndarray) -> str:
    """The line of NumPy that makes images of rows of pixels, or drops an alpha channel; empty where there is none."""
    if x.shape[3:] == (4,):
        return f"; save {name}[..., :3] to drop the alpha channel"
    if x.ndim == 2:
        return (
            f"; of rows of pixels save {name}.reshape(-1, H, W), or {name}.reshape(-1, 3, H, W).transpose(0, 2, 3, 1)"
        )
    return ""


def _check_range(source: str | Path, key: str, y: np.ndarray, n_classes: int) -> None:
    invalid = np.flatnonzero((y < 0) | (y >= n_classes))
    if len(invalid):
        problem = f"{key}[{invalid[0]}] is {y[invalid[0]]}: labels must lie in 0..{n_classes - 1}"
        if y.min() == 1 and y.max() == n_classes:
            problem += f"; they seem to start at 1, save {key} - 1"
        raise input_error(source, f"{problem} ({len(invalid)} of {len(y)} do not)")
