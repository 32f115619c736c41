"""The table of networks, and the user's own network by `module:factory`."""

import copy
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lira.attacks.outputs import looks_like_softmax
from lira.errors import InputError, one_line
from lira.flags import find_name, suggest
from lira.storage.probe import TOLERANCE, probe_images
from resnet import RESNETS, resnet


class ConvNet(nn.Sequential):
    """Two 5x5 convolutions of 64 channels without padding, each with 2x2 max-pooling and ReLU; a hidden layer of 512.

    ReLU after pooling gives the same values and gradients as before it, on a quarter of the values. Images below
    16 pixels are padded with zeros to 16, the smallest size that the two stages can take."""

    MIN_SIZE = 16

    def __init__(self, *, num_classes: int, in_channels: int, size: tuple[int, int]):
        top, left = (max(self.MIN_SIZE - side, 0) // 2 for side in size)
        bottom, right = (-(-max(self.MIN_SIZE - side, 0) // 2) for side in size)
        padding = (left, right, top, bottom)
        height, width = (((max(side, self.MIN_SIZE) - 4) // 2 - 4) // 2 for side in size)
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


def _resnet(name: str, *, num_classes: int, in_channels: int, size: tuple[int, int]) -> nn.Module:
    return resnet(name, num_classes=num_classes, in_channels=in_channels)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"ConvNet": ConvNet} | {
    name: partial(_resnet, name) for name in RESNETS
}


def network_name(text: str) -> str:
    """A key of NETWORKS, which text may spell in any case, or module:factory. Raises InputError."""
    if ":" in text:
        return text
    if name := find_name(text, NETWORKS):
        return name
    raise InputError(
        f"--network must be one of {', '.join(NETWORKS)}, or module:factory for your own; "
        f"got {text!r}{suggest(text, NETWORKS)}"
    )


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    size: tuple[int, int],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> nn.Module:
    """A new network, its weights drawn from torch's global generator: (B, C, H, W) -> logits (B, num_classes).

    size: (H, W). mean, std: (C,), of the pixels in [0, 1], by which the images are normalised; a user's factory that
    has parameters of these names is given them. Raises InputError where the network cannot be built, does not return
    such logits, or where in eval mode the logits of an image do not follow from the weights and that image alone."""
    factory = _user_factory(name) if ":" in name else NETWORKS[network_name(name)]
    try:
        more = _accepted(factory, size=size, mean=mean, std=std)
        model = factory(num_classes=num_classes, in_channels=in_channels, **more)
        model.eval()
        with torch.no_grad():  # also gives lazy layers their shapes
            logits = model(torch.zeros(2, in_channels, *size))
            shape = tuple(logits.shape)
            with torch.random.fork_rng(devices=[]):  # training mode on a copy, because it changes running statistics
                outputs = copy.deepcopy(model).train()(torch.zeros(2, in_channels, *size))
            if not isinstance(outputs, torch.Tensor) or tuple(outputs.shape) != shape:
                raise TypeError("its outputs in training mode differ in type or shape from those in eval mode")
            if shape == (2, num_classes):
                _check_queries(name, model, probe_images((in_channels, *size), n=3))
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's factory may raise anything
        raise InputError(
            f"network {name} fails on images of {in_channels}x{size[0]}x{size[1]}: {one_line(error)}"
        ) from error
    if shape != (2, num_classes):
        raise InputError(f"network {name} must return logits (2, {num_classes}) for 2 images, got {shape}")
    if looks_like_softmax(logits.float().numpy()):
        raise InputError(f"network {name} returns probabilities and no logits: return the inputs of its softmax")
    return model.train()


def _check_queries(name: str, model: nn.Module, images: torch.Tensor) -> None:
    """Raises InputError if the logits of a query, in eval mode, are random or depend on the rest of the batch. Leaves
    torch's global generator as it is."""
    with torch.random.fork_rng(devices=[]):
        logits, repeated, alone = model(images), model(images), [model(image[None]) for image in images]
    for single in alone:
        if single.shape != logits[:1].shape:
            raise InputError(
                f"network {name} for one image must return logits {tuple(logits[:1].shape)}, got {tuple(single.shape)}"
            )
    # Of the spread over images, or, where they all get nearly the same logits, well above rounding.
    tolerance = max(TOLERANCE * (logits - logits.mean(0)).std(), 1e-5 * logits.abs().max())
    if (repeated - logits).abs().max() > tolerance:
        raise InputError(
            f"network {name} is random in eval mode: the same images get other logits in a second call; "
            "let F.dropout and the like follow training=self.training"
        )
    if (torch.cat(alone) - logits).abs().max() > tolerance:
        raise InputError(
            f"network {name}: in eval mode its output for an image depends on the other images of the batch; "
            "let it depend on that image alone"
        )


def _accepted(factory: Callable[..., nn.Module], **settings: object) -> dict[str, object]:
    """Those of these settings that a factory has parameters for, by name."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # what it takes is not known
        return {}
    return {name: value for name, value in settings.items() if name in parameters}


def _user_factory(name: str) -> Callable[..., nn.Module]:
    module_name, _, attribute = name.partition(":")
    current_folder = str(Path.cwd())
    if current_folder not in sys.path:  # `python folder/train_model.py` puts only the script's folder there
        sys.path.insert(0, current_folder)
    try:
        _check_not_hidden(module_name)
        return getattr(importlib.import_module(module_name), attribute)
    except InputError as error:
        raise InputError(f"--network {name}: {error}") from None
    except (Exception, SystemExit) as error:  # importing runs the user's module, which may end with sys.exit()
        raise InputError(
            f"--network {name}: cannot find factory {attribute!r} in {module_name!r}: {one_line(error)}"
        ) from error


def _check_not_hidden(module_name: str) -> None:
    """Raises InputError where a module of this toolkit or of Python is found in place of the user's own."""
    top = module_name.partition(".")[0]
    own = next((path for path in (Path(f"{top}.py"), Path(top, "__init__.py")) if path.is_file()), None)
    if own and (spec := importlib.util.find_spec(top)):
        origin = spec.origin or ""
        if not (Path(origin).is_file() and own.samefile(origin)):
            raise InputError(f"{origin} is found in place of your {own}: give yours another name")
