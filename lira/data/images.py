"""A data set in memory, the checks that every reader ends in, and what training and test set share."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lira.errors import InputError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MIN_SIDE = 4  # pixels: below this neither a convolution nor a shift by a few pixels leaves anything to learn
MIN_STD = 1 / 255  # one grey level: a constant channel is not divided by zero


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory. x_*: uint8 (N, C, H, W), contiguous; y_*: int64 (N,), class numbers from 0."""

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
        return tuple(self.x_train.shape[2:])

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over x_train, pixels in [0, 1]."""
        return self._mean_std[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over x_train, pixels in [0, 1], at least MIN_STD."""
        return self._mean_std[1]

    @cached_property
    def _mean_std(self):
        # Counts of the 256 grey levels: exact, so the same on every machine and number of threads.
        counts = torch.zeros(self.channels, 256, dtype=torch.int64)
        for part in self.x_train.split(4096):  # in parts: bincount makes int64 of the pixels
            counts += torch.stack([part[:, c].flatten().bincount(minlength=256) for c in range(self.channels)])
        share = counts.double() / counts.sum(1, keepdim=True)  # (C, 256)
        level = torch.arange(256, dtype=torch.float64) / 255
        mean = share @ level  # (C,)
        std = (share * (level - mean[:, None]) ** 2).sum(1).sqrt().clamp_min(MIN_STD)
        return tuple(mean.tolist()), tuple(std.tolist())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over shapes, pixels, labels and class names, not over where they came from."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for key in ARRAYS:
            tensor = getattr(self, key)
            digest.update(json.dumps(tensor.shape).encode())
            digest.update(tensor.numpy())
        return digest.hexdigest()


def find_duplicates(images: Images):
    """Test images whose exact pixels also occur in the training set, whatever their labels.

    Returns (test_index, train_index): int64 (n,) each, test_index ascending, train_index the first match."""
    train, test = (_digests(x) for x in (images.x_train, images.x_test))
    first = {digest: index for index, digest in reversed(list(enumerate(train)))}
    pairs = [(index, first[digest]) for index, digest in enumerate(test) if digest in first]
    test_index, train_index = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return test_index, train_index


def _digests(x):
    return [hashlib.blake2b(image, digest_size=16).digest() for image in x.numpy()]


def input_error(source, problem):
    """InputError in one line, even where a library's own words, or a file name, hold line breaks."""
    return InputError(" ".join(f"{source}: {problem}".splitlines()))


def make_images(source, x_train, y_train, x_test, y_test, class_names=None) -> Images:
    """Images from NumPy arrays, channels last: x_* uint8 (N, H, W) or (N, H, W, C), y_* integers (N,).

    source: what the errors begin with. class_names: (K,) strings; without them the classes are numbers.
    Raises InputError naming the array that is wrong and, for a label, its index and value."""
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_pixels(source, f"x_{split}", x)
        _check_labels(source, f"y_{split}", y, n=len(x))
    train, test = (_channels_first(x) for x in (x_train, x_test))
    if train.shape[1:] != test.shape[1:]:
        problem = f"x_train has shape {x_train.shape}, x_test {x_test.shape}: give images of one size"
        raise input_error(source, problem)
    # Without names no class number may reach the number of images: that is an identifier, not a class.
    _check_range(source, "y_train", y_train, len(x_train) if class_names is None else len(class_names))
    if class_names is None:
        class_names = [str(k) for k in range(int(y_train.max()) + 1)]
    _check_range(source, "y_test", y_test, len(class_names))
    if len(class_names) < 2:
        raise input_error(source, f"has {len(class_names)} class: a classifier needs at least 2")
    labels = (torch.from_numpy(np.array(y, dtype=np.int64)) for y in (y_train, y_test))
    return Images(train, next(labels), test, next(labels), tuple(map(str, class_names)))


def _channels_first(x):
    """uint8 (N, H, W[, C]) array -> (N, C, H, W) tensor of its own, contiguous."""
    channels_last = x if x.ndim == 4 else x[..., None]
    return torch.from_numpy(np.array(channels_last.transpose(0, 3, 1, 2), order="C"))


def _check_pixels(source, key, x):
    if x.dtype != np.uint8:
        raise input_error(source, f"{key} is {x.dtype}: pixels must be uint8, 0 to 255")
    shape = f"{key} has shape {x.shape}"
    if x.ndim not in (3, 4) or x.shape[3:] not in ((), (1,), (3,)):
        raise input_error(source, f"{shape}: expected (N, H, W) or, channels last, (N, H, W, C) with C 1 or 3")
    if not len(x):
        raise input_error(source, f"{shape}: give at least one image")
    if min(x.shape[1:3]) < MIN_SIDE:
        raise input_error(source, f"{shape}: images must be at least {MIN_SIDE}x{MIN_SIDE} pixels")


def _check_labels(source, key, y, *, n):
    if y.dtype.kind not in "iu":
        raise input_error(source, f"{key} is {y.dtype}: labels must be integers, the class numbers from 0")
    if y.shape != (n,):
        raise input_error(source, f"{key} has shape {y.shape}: expected ({n},), one label a image")


def _check_range(source, key, y, n_classes):
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if len(wrong):
        problem = f"{key}[{wrong[0]}] is {y[wrong[0]]}: labels must lie in 0..{n_classes - 1}"
        raise input_error(source, f"{problem} ({len(wrong)} of {len(y)} do not)")
