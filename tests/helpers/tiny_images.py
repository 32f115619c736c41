"""Small random images, in memory and in an ImageStore."""

import numpy as np
import torch

from lira.data.images import make_images
from lira.data.store import ImageStore


def images(n_train=37, n_test=12, size=(16, 20), channels=3, classes=4, seed=0):
    """Random pixels with random labels."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n_train + n_test, *size, channels), dtype=np.uint8)
    y = rng.permutation(np.arange(n_train + n_test) % classes)
    y[:classes] = np.arange(classes)
    return make_images("tiny", x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def store(*, flip=True, **shape):
    return ImageStore(images(**shape), flip=flip, device=torch.device("cpu"))
