"""The network registry: the table NETWORKS, and the user's own network through `module:factory`."""

import copy
import importlib
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lira.errors import InputError, one_line
from resnet import STAGES, resnet


class ConvNet(nn.Sequential):
    """Two 5x5 convolutions of 64 channels without padding, each with 2x2 max-pooling and ReLU; a hidden layer of 512.

    ReLU after pooling gives the same bits and gradients as before it, on a quarter of the values. Two such stages need
    16 pixels; a smaller image gets a black margin up to that size."""

    SMALLEST = 16

    def __init__(self, *, num_classes: int, in_channels: int, size: tuple[int, int]):
        margin = [max(self.SMALLEST - side, 0) for side in reversed(size)]  # width first, as ZeroPad2d wants it
        padding = [part for extra in margin for part in (extra // 2, extra - extra // 2)]
        height, width = (((max(side, self.SMALLEST) - 4) // 2 - 4) // 2 for side in size)
        super().__init__(
            nn.ZeroPad2d(padding) if any(padding) else nn.Identity(),
            nn.Conv2d(in_channels, 64, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * height * width, 512),
            nn.ReLU(),
            nn.Linear(512, num_classes),
        )


def _resnet(name, *, num_classes, in_channels, size):
    return resnet(name, num_classes=num_classes, in_channels=in_channels)


NETWORKS = {"ConvNet": ConvNet, **{name: partial(_resnet, name) for name in STAGES}}


def check_name(name: str) -> None:
    """Raises InputError for a name that build() could not know, before any data is read."""
    if name not in NETWORKS and ":" not in name:
        raise InputError(
            f"--network must be one of {', '.join(NETWORKS)}, or module:factory for your own; got {name!r}"
        )


def build(name: str, *, num_classes: int, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """A new network, its weights drawn from torch's global generator: (B, C, H, W) -> logits (B, num_classes).

    Raises InputError where the network cannot be made, or does not answer one image with num_classes logits."""
    check_name(name)
    factory = partial(NETWORKS[name], size=size) if name in NETWORKS else _user_factory(name)
    try:
        model = factory(num_classes=num_classes, in_channels=in_channels)
        model.eval()
        with torch.no_grad():  # also gives lazy layers their shapes
            shape = tuple(model(torch.zeros(2, in_channels, *size)).shape)
            with torch.random.fork_rng(devices=[]):  # a copy tries training mode: its running statistics move
                trained = copy.deepcopy(model).train()(torch.zeros(2, in_channels, *size))
            if not isinstance(trained, torch.Tensor) or tuple(trained.shape) != shape:
                raise TypeError("in training mode it answers something else than in eval mode")
    except InputError:
        raise
    except Exception as error:  # whatever a user's factory raises is the user's to mend
        raise InputError(
            f"network {name} fails on images of {in_channels}x{size[0]}x{size[1]}: {one_line(error)}"
        ) from error
    if shape != (2, num_classes):
        raise InputError(f"network {name} must answer 2 images with logits (2, {num_classes}), got {shape}")
    return model.train()


def _user_factory(name: str):
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # `python dir/train_model.py` puts the script's folder there, not the user's
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # the user's module runs here: a slip in it is the user's to mend
        raise InputError(
            f"--network {name}: cannot find factory {attribute!r} in {module_name!r}: {one_line(error)}"
        ) from error
