"""Small random data for the tests of the engine rooms."""

import numpy as np
import torch

from lira.pictures import make_pictures
from lira.pool import PicturePool


def pictures(n_train=37, n_test=12, size=(16, 20), channels=3, classes=4, seed=0):
    """Random pixels with random labels."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n_train + n_test, *size, channels), dtype=np.uint8)
    y = rng.permutation(np.arange(n_train + n_test) % classes)
    y[:classes] = np.arange(classes)
    return make_pictures("tiny", x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def pool(*, flip=True, **shape):
    return PicturePool(pictures(**shape), flip=flip, device=torch.device("cpu"))
