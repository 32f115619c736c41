"""What both scripts share: the table of data sets, what a device can do, and a run's setup made of both."""

import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lira.data import readers
from lira.data.images import Images
from lira.data.store import ImageStore
from lira.errors import InputError
from lira.storage.names import ROLES
from network import build, check_name
from util import Config

if TYPE_CHECKING:
    from lira.privacy.dp_sgd import DPSGD

# --- data sets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetRow:
    """How one data set is read, and whether a mirrored image is still a image of its class."""

    read: Callable[..., Images]  # (data_root, progress=…) -> Images
    flip: bool


DATASETS = {
    "cifar10": DatasetRow(partial(readers.read_torchvision, "cifar10"), flip=True),
    "cifar100": DatasetRow(partial(readers.read_torchvision, "cifar100"), flip=True),
    "mnist": DatasetRow(partial(readers.read_torchvision, "mnist"), flip=False),
    "digits": DatasetRow(lambda root, progress: readers.read_digits(), flip=False),
}


def load_dataset(name: str, data_root: str, *, progress: bool = True) -> tuple[Images, bool]:
    """The images of a row of DATASETS or of the user's own path, and whether training may flip them.

    Your own colour images are flipped, your own grey ones (digits, letters, scans) are not."""
    root = Path(data_root)
    if name in DATASETS:
        row = DATASETS[name]
        return row.read(root, progress=progress), row.flip
    path = Path(name)
    if path.suffix == ".npz" and os.path.isfile(path):  # noqa: PTH113 (Path.is_file() raises for a very long name)
        images = readers.read_npz(path)
    elif os.path.isdir(path):  # noqa: PTH112
        images = readers.read_folder(path, root, progress=progress)
    else:
        raise InputError(
            f"--dataset must be one of {', '.join(DATASETS)}, or the path of a .npz file or of a folder; "
            f"got {name!r}, which is none of them"
        )
    return images, images.x_train.shape[1] == 3


# --- the split ---------------------------------------------------------------------------------------------------


def _rng(exp_idx: int, role: int, index: int, purpose: int) -> np.random.Generator:
    """Every draw has a generator of its own, so that no model depends on what was trained before it."""
    return np.random.default_rng(np.random.SeedSequence([exp_idx, role, index, purpose]))


_MEMBERS, _TRAINING_SET, _WEIGHTS, _HALVES, _SAMPLING, _NOISE = range(6)


@dataclass(frozen=True)
class Split:
    """Who trains on what. The training images are cut once into two halves, whatever exp_idx is.

    target_half, attack_half: int64 (n_training_images // 2,), indices of training images;
    n_samples: N, the number of target samples, which are the test images; n_train: images from a half."""

    target_half: np.ndarray
    attack_half: np.ndarray
    n_samples: int
    n_train: int
    exp_idx: int
    inclusion: str = "half"

    def member(self, role: str, index: int) -> np.ndarray:
        """Which target samples a model trains on, bool (N,).

        Shadow 2k takes a random half and shadow 2k + 1 the rest; targets draw independently."""
        if role == "shadow":
            half = self._random_half(role, index // 2)
            return half if index % 2 == 0 else ~half
        if self.inclusion == "coin":
            return _rng(self.exp_idx, ROLES.index(role), index, _MEMBERS).random(self.n_samples) < 0.5
        return self._random_half(role, index)

    def _random_half(self, role: str, index: int) -> np.ndarray:
        order = _rng(self.exp_idx, ROLES.index(role), index, _MEMBERS).permutation(self.n_samples)
        member = np.zeros(self.n_samples, dtype=bool)
        member[order[: self.n_samples // 2]] = True
        return member

    def training_set(self, role: str, index: int, first_sample: int) -> np.ndarray:
        """Indices of one model's images, int64, where target sample i has the index first_sample + i."""
        half = self.target_half if role == "shadow" else self.attack_half
        rng = _rng(self.exp_idx, ROLES.index(role), index, _TRAINING_SET)
        drawn = rng.choice(half, self.n_train, replace=False)
        return np.concatenate([drawn, first_sample + np.flatnonzero(self.member(role, index))])

    def test_set(self, role: str) -> np.ndarray:
        """The half that models of this role never draw from."""
        return self.attack_half if role == "shadow" else self.target_half

    def seed(self, role: str, index: int) -> int:
        """What a model's weights, order of images and augmentation start from."""
        return self._seed(role, index, _WEIGHTS)

    def privacy_seeds(self, role: str, index: int) -> dict[str, int]:
        """What the Poisson samples and the noise of DP-SGD start from: independent of each other and of seed()."""
        return {"sampling": self._seed(role, index, _SAMPLING), "noise": self._seed(role, index, _NOISE)}

    def _seed(self, role: str, index: int, purpose: int) -> int:
        return int(_rng(self.exp_idx, ROLES.index(role), index, purpose).integers(2**63))


def default_n_train(n_images: int) -> int:
    """The smaller of 20,000 and 80 % of a half."""
    return min(20_000, int(0.8 * (n_images // 2)))


def make_split(n_images: int, n_samples: int, *, n_train: int | None, exp_idx: int, inclusion: str) -> Split:
    """Cut n_images training images into two halves; an odd one out is left out. Raises InputError."""
    half = n_images // 2
    n_train = default_n_train(n_images) if n_train is None else n_train
    if not 1 <= n_train <= half:
        raise InputError(f"--n-train must be from 1 to {half}, a half of the {n_images} training images: got {n_train}")
    order = _rng(0, 0, 0, _HALVES).permutation(n_images)
    return Split(order[:half], order[half : 2 * half], n_samples, n_train, exp_idx, inclusion)


# --- devices -------------------------------------------------------------------------------------------------------


def resolve_device(name: str, *, local_rank: int = 0) -> torch.device:
    """A device that is really there. Workers of one machine take its GPUs in turn. Raises InputError."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cuda", "mps", "cpu") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"--device must be auto, cuda, cuda:N, mps or cpu; got {name!r}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: torch finds no Apple GPU here; use --device auto")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs here; "
            "use --device auto, or install a driver and a build of torch that match"
        )
    return torch.device(kind, int(number or 0)) if kind == "cuda" else torch.device(kind)


def resolve_precision(name: str, device: torch.device) -> str:
    """auto becomes bf16 where the hardware multiplies bf16 natively, fp32 elsewhere."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, check, bool)() for check in checks)
    else:
        native = False
    return "bf16" if native else "fp32"


# --- what both scripts begin with ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """Flags, data and hardware brought together: all that a model or an attack of this run needs."""

    images: Images
    flip: bool
    split: Split
    device: torch.device
    precision: str
    network: str
    identity: dict
    privacy: "DPSGD | None" = None

    @cached_property
    def store(self) -> ImageStore:
        return ImageStore(self.images, flip=self.flip, device=self.device)

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} {platform.machine()}"

    def build(self) -> nn.Module:
        """A new network for these images, its weights from torch's global generator."""
        _, channels, *size = self.images.x_train.shape
        model = build(self.network, num_classes=len(self.images.class_names), in_channels=channels, size=tuple(size))
        return self.privacy.fit(model) if self.privacy else model

    def make_private(self, role: str, index: int) -> Callable | None:
        """(model, optimizer) -> private training of this model; None without DP."""
        return partial(self.privacy.begin, **self.split.privacy_seeds(role, index)) if self.privacy else None

    def provenance(self, argv: Sequence[str]) -> dict:
        """Where and how a run was made: recorded, never compared."""
        return {
            "command": shlex.join(["python", "train_model.py", *argv]),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "device": self.device_name,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            **({"privacy": self.privacy.provenance()} if self.privacy else {}),
        }

    def describe_training(self) -> str:
        """describe(), and what private training promises."""
        return "\n".join([self.describe(), *([self.privacy.describe()] if self.privacy else [])])

    def describe(self) -> str:
        """What is trained on what, for the screen; names target samples that a half holds too."""
        n_train, n_test = len(self.images.x_train), len(self.images.x_test)
        shape = "x".join(map(str, self.images.x_train.shape[1:]))
        lines = [
            f"{n_train:,} + {n_test:,} images of {shape}, {self.images.n_classes} classes; "
            f"a model trains on {self.split.n_train:,} + {n_test // 2:,}",
            f"{self.network} in {self.precision} on {self.device_name}",
        ]
        samples, twins = readers.find_duplicates(self.images)
        if len(samples):
            named = ", ".join(f"{sample} = {twin}" for sample, twin in zip(samples[:5], twins[:5], strict=True))
            lines.append(
                f"{len(samples):,} target samples are also training images, which blurs who is a member: "
                f"test {'images' if len(samples) > 1 else 'image'} = training: {named}{', …' * (len(samples) > 5)}"
            )
        return "\n".join(lines)


def unread_identities(config: Config) -> list[dict]:
    """What the run of these flags may be called, before its data is read: what only the data can tell is None.

    The hardware that trained may be another than this, so with --precision auto any precision will do."""
    auto = config.train.precision == "auto"
    here = resolve_precision(config.train.precision, resolve_device(config.run.device)) if auto else None
    return [
        config.identity(precision=precision, n_train=config.data.n_train, n_train_is_default=usual, fingerprint=None)
        for precision in (dict.fromkeys([here, "bf16", "fp32"]) if auto else [config.train.precision])
        for usual in ([True] if config.data.n_train is None else [False, True])
    ]


def versions() -> dict[str, str]:
    """Of the packages that the figures of an attack may depend on."""
    names = ("torch", "numpy", "scipy", "scikit-learn")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def prepare(config: Config, *, local_rank: int = 0) -> Setup:
    """Read the data and resolve what the flags left open. Raises InputError."""
    check_name(config.model.network)
    device = resolve_device(config.run.device, local_rank=local_rank)
    precision = resolve_precision(config.train.precision, device)
    images, flip = load_dataset(config.data.dataset, config.data.data_root, progress=not config.run.quiet)
    split = make_split(
        len(images.x_train), len(images.x_test), n_train=config.data.n_train,
        exp_idx=config.model.exp_idx, inclusion=config.data.target_inclusion,
    )  # fmt: skip
    identity = config.identity(
        precision=precision, n_train=split.n_train, fingerprint=images.fingerprint,
        n_train_is_default=split.n_train == default_n_train(len(images.x_train)),
    )  # fmt: skip
    privacy = _privacy(config, n_images=split.n_train + split.n_samples // 2)
    setup = Setup(images, flip, split, device, precision, config.model.network, identity, privacy)
    model = setup.build()  # a network that does not fit is refused before anything is written
    if privacy:
        privacy.check(model, tuple(images.x_train.shape[1:]))
    return setup


def _privacy(config: Config, *, n_images: int) -> "DPSGD | None":
    if not config.dp:
        return None
    from lira.privacy.dp_sgd import DPSGD  # here: only what is private needs Opacus

    train = config.train
    return DPSGD(n_images=n_images, batch_size=train.train_batch_size, epochs=train.epochs, **asdict(config.dp))
