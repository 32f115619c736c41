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
MIN_STD = 1 / 255  # one step of a pixel value: a constant channel is not divided by zero


@dataclass(frozen=True, eq=False)
class Images:
    """A dataset in memory. x_*: uint8 (N, C, H, W), contiguous; y_*: int64 (N,), class numbers from 0."""

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    class_names: tuple[str, ...]

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
) -> Images:
    """Images from NumPy arrays, channels last: x_* uint8 (N, H, W) or (N, H, W, C), y_* integers (N,).

    source: the start of every error message. class_names: (K,) strings, by default the class numbers.
    Raises InputError that names the wrong array and, for a label, its index and value."""
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_arrays(source, split, x, y)
    train, test = (_channels_first(x) for x in (x_train, x_test))
    if train.shape[1:] != test.shape[1:]:
        raise input_error(source, f"x_train has shape {x_train.shape}, x_test {x_test.shape}: give images of one size")
    # Without class names, a label that is not below the number of images is an identifier, not a class.
    _check_range(source, "y_train", y_train, len(x_train) if class_names is None else len(class_names))
    if class_names is None:
        class_names = [str(k) for k in range(int(y_train.max()) + 1)]
    _check_range(source, "y_test", y_test, len(class_names))
    if len(class_names) < 2:
        raise input_error(source, f"has {len(class_names)} class: a classifier needs at least 2")
    train_labels, test_labels = (torch.from_numpy(np.array(y, dtype=np.int64)) for y in (y_train, y_test))
    # Bytes of a folder's name that are no UTF-8 cannot be written to a table or a page: as escapes they can.
    names = tuple(str(name).encode(errors="backslashreplace").decode() for name in class_names)
    return Images(train, train_labels, test, test_labels, names)


def _channels_first(x: np.ndarray) -> torch.Tensor:
    """uint8 array (N, H, W) or (N, H, W, C) -> a contiguous tensor (N, C, H, W) with its own memory."""
    channels_last = x if x.ndim == 4 else x[..., None]
    return torch.from_numpy(np.array(channels_last.transpose(0, 3, 1, 2), order="C"))


def _check_arrays(source: str | Path, split: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype != np.uint8:
        raise input_error(source, f"x_{split} is {x.dtype}: pixels must be uint8, 0 to 255")
    shape = f"x_{split} has shape {x.shape}"
    if x.ndim not in (3, 4) or x.shape[3:] not in ((), (1,), (3,)):
        raise input_error(source, f"{shape}: expected (N, H, W) or, channels last, (N, H, W, C) with C 1 or 3")
    if not len(x):
        raise input_error(source, f"{shape}: give at least one image")
    if min(x.shape[1:3]) < MIN_SIDE:
        raise input_error(source, f"{shape}: images must be at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if y.dtype.kind not in "iu":
        raise input_error(source, f"y_{split} is {y.dtype}: labels must be integers, the class numbers from 0")
    if y.shape != (len(x),):
        raise input_error(source, f"y_{split} has shape {y.shape}: expected ({len(x)},), one label per image")


def _check_range(source: str | Path, key: str, y: np.ndarray, n_classes: int) -> None:
    invalid = np.flatnonzero((y < 0) | (y >= n_classes))
    if len(invalid):
        problem = f"{key}[{invalid[0]}] is {y[invalid[0]]}: labels must lie in 0..{n_classes - 1}"
        raise input_error(source, f"{problem} ({len(invalid)} of {len(y)} do not)")
