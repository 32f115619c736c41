"""What both scripts share: the table of datasets, the split, devices and precision, and the setup of a run."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lira.data.folder import read_folder
from lira.data.images import Images, find_duplicates
from lira.data.readers import read_digits, read_npz, read_torchvision
from lira.data.store import ImageStore
from lira.errors import InputError
from lira.storage.names import ROLES
from lira.storage.provenance import training_provenance
from lira.training.loop import MakePrivate, TrainingSettings
from network import build, check_name
from util import Config

if TYPE_CHECKING:
    from lira.privacy.dp_sgd import DPSGD

# --- datasets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetRow:
    """How one dataset is read, and whether a mirrored image still belongs to its class."""

    read: Callable[..., Images]  # (data_root, progress=…) -> Images
    flip: bool


DATASETS = {
    "cifar10": DatasetRow(partial(read_torchvision, "cifar10"), flip=True),
    "cifar100": DatasetRow(partial(read_torchvision, "cifar100"), flip=True),
    "mnist": DatasetRow(partial(read_torchvision, "mnist"), flip=False),
    "digits": DatasetRow(lambda data_root, progress: read_digits(), flip=False),
}


def load_dataset(name: str, data_root: str, *, progress: bool = True) -> tuple[Images, bool]:
    """The images of a row of DATASETS or of a path, and whether training flips them at random. Raises InputError.

    From a path, images in colour are flipped; grey ones (digits, letters, scans) are not."""
    root = Path(data_root)
    if name in DATASETS:
        row = DATASETS[name]
        return row.read(root, progress=progress), row.flip
    path = Path(name)
    if path.suffix == ".npz" and os.path.isfile(path):  # noqa: PTH113 (Path.is_file() raises for a very long name)
        images = read_npz(path)
    elif os.path.isdir(path):  # noqa: PTH112
        images = read_folder(path, root, progress=progress)
    else:
        raise InputError(
            f"--dataset must be one of {', '.join(DATASETS)}, or the path of a .npz file or of a folder; "
            f"got {name!r}, which is none of them"
        )
    return images, images.channels == 3


# --- the split -----------------------------------------------------------------------------------------------------


def _rng(exp_idx: int, role: str, index: int, purpose: int) -> np.random.Generator:
    """The generator of one draw: no model depends on what was trained before it."""
    return np.random.default_rng(np.random.SeedSequence([exp_idx, ROLES.index(role), index, purpose]))


_MEMBERS, _TRAINING_SET, _WEIGHTS, _HALVES, _SAMPLING, _NOISE = range(6)


@dataclass(frozen=True)
class Split:
    """Which images each model trains on. The two halves of the training images are the same for every exp_idx.

    target_half, attack_half: int64 (n_images // 2,), indices of training images; n_samples: N, the number of target
    samples, which are the test images; n_train: images that a model draws from its half; inclusion: half or coin,
    --target-inclusion."""

    target_half: np.ndarray
    attack_half: np.ndarray
    n_samples: int
    n_train: int
    exp_idx: int
    inclusion: str = "half"

    def member(self, role: str, index: int) -> np.ndarray:
        """Which target samples a model trains on, bool (N,).

        Shadow 2k takes a random half and shadow 2k + 1 the rest; targets draw independently of all others."""
        if role == "shadow":
            half = self._random_half(role, index // 2)
            return half if index % 2 == 0 else ~half
        if self.inclusion == "coin":
            return _rng(self.exp_idx, role, index, _MEMBERS).random(self.n_samples) < 0.5
        return self._random_half(role, index)

    def _random_half(self, role: str, index: int) -> np.ndarray:
        order = _rng(self.exp_idx, role, index, _MEMBERS).permutation(self.n_samples)
        member = np.zeros(self.n_samples, dtype=bool)
        member[order[: self.n_samples // 2]] = True
        return member

    def training_set(self, role: str, index: int, first_sample: int) -> np.ndarray:
        """Indices of one model's training images, int64 (n,); target sample i has the index first_sample + i."""
        half = self.target_half if role == "shadow" else self.attack_half
        rng = _rng(self.exp_idx, role, index, _TRAINING_SET)
        drawn = rng.choice(half, self.n_train, replace=False)
        return np.concatenate([drawn, first_sample + np.flatnonzero(self.member(role, index))])

    def test_set(self, role: str) -> np.ndarray:
        """Indices of the half that models of this role never draw from, int64 (n_images // 2,)."""
        return self.attack_half if role == "shadow" else self.target_half

    def seed(self, role: str, index: int) -> int:
        """The seed of a model's initial weights, order of images and augmentation."""
        return self._seed(role, index, _WEIGHTS)

    def privacy_seeds(self, role: str, index: int) -> dict[str, int]:
        """The seeds of DP-SGD's Poisson sampling and noise, independent of each other and of seed()."""
        return {"sampling": self._seed(role, index, _SAMPLING), "noise": self._seed(role, index, _NOISE)}

    def _seed(self, role: str, index: int, purpose: int) -> int:
        return int(_rng(self.exp_idx, role, index, purpose).integers(2**63))


def default_n_train(n_images: int) -> int:
    """The smaller of 20,000 and 80 % of a half of n_images training images."""
    return min(20_000, int(0.8 * (n_images // 2)))


def make_split(n_images: int, n_samples: int, *, n_train: int | None, exp_idx: int, inclusion: str) -> Split:
    """Split n_images training images into two equal halves; an odd last one is left out. Raises InputError."""
    half = n_images // 2
    n_train = default_n_train(n_images) if n_train is None else n_train
    if not 1 <= n_train <= half:
        raise InputError(f"--n-train must be from 1 to {half}, a half of the {n_images} training images: got {n_train}")
    order = _rng(0, ROLES[0], 0, _HALVES).permutation(n_images)
    return Split(order[:half], order[half : 2 * half], n_samples, n_train, exp_idx, inclusion)


# --- devices and precision -----------------------------------------------------------------------------------------


def resolve_device(name: str, *, local_rank: int = 0) -> torch.device:
    """The device called `name`. Workers of one machine take its GPUs in turn. Raises InputError if it is missing."""
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
    """fp32 or bf16; auto is bf16 where the hardware multiplies bf16 natively, else fp32."""
    if name != "auto":
        return name
    native = False
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16" if native else "fp32"


# --- the setup of a run --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """Data, split, device and settings of one run: what it takes to train or query a model."""

    images: Images
    flip: bool
    split: Split
    device: torch.device
    training: TrainingSettings
    network: str
    identity: dict[str, Any]
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
        """A new network for these images, its weights drawn from torch's global generator. Raises InputError."""
        images = self.images
        model = build(self.network, num_classes=images.n_classes, in_channels=images.channels, size=images.size)
        return self.privacy.adapt(model) if self.privacy else model

    def make_private(self, role: str, index: int) -> MakePrivate | None:
        """What turns this model and its optimizer into private training; None without DP."""
        if not self.privacy:
            return None
        seeds = self.split.privacy_seeds(role, index)
        return partial(self.privacy.make_private, sampling=seeds["sampling"], noise=seeds["noise"])

    def provenance(self, argv: Sequence[str]) -> dict[str, Any]:
        """How and where the run is trained, for config.json; argv: the flags of train_model.py."""
        privacy = self.privacy.provenance() if self.privacy else None
        return training_provenance(argv, device_name=self.device_name, privacy=privacy)

    def describe_training(self) -> str:
        """describe(), and with DP the guarantee."""
        return "\n".join([self.describe(), *([self.privacy.describe()] if self.privacy else [])])

    def describe(self) -> str:
        """Sizes on one line, network and device on the next; then target samples that are also training images.

        Compares all images with each other: call it once."""
        n_train, n_test = len(self.images.x_train), len(self.images.x_test)
        shape = "x".join(map(str, self.images.x_train.shape[1:]))
        lines = [
            f"{n_train:,} training + {n_test:,} test images of {shape}, {self.images.n_classes} classes; "
            f"each model trains on {self.split.n_train:,} + {n_test // 2:,}",
            f"{self.network} in {self.training.precision} on {self.device_name}",
        ]
        samples, duplicates = find_duplicates(self.images)
        if len(samples):
            pairs = [f"{sample} = {image}" for sample, image in zip(samples[:5], duplicates[:5], strict=True)]
            lines.append(
                f"{len(samples):,} target samples are also training images, which blurs who is a member: "
                f"test {'images' if len(samples) > 1 else 'image'} = training: "
                + ", ".join([*pairs, "…"] if len(samples) > len(pairs) else pairs)
            )
        return "\n".join(lines)


def unread_identities(config: Config) -> list[dict[str, Any]]:
    """The identities that a run of these flags may have. The data is not read: fields that depend on it are None.

    With --precision auto the run may come from other hardware, so each precision is possible."""
    precisions = [config.train.precision]
    if config.train.precision == "auto":
        here = resolve_precision("auto", resolve_device(config.run.device))
        precisions = [here, "fp32" if here == "bf16" else "bf16"]
    n_train = config.data.n_train
    return [
        config.identity(precision=precision, n_train=n_train, n_train_is_default=is_default, fingerprint=None)
        for precision in precisions
        for is_default in ([True] if n_train is None else [False, True])
    ]


def prepare(config: Config, *, local_rank: int = 0) -> Setup:
    """Read the data and resolve what the flags leave open. Writes nothing into the run's folders. Raises InputError."""
    check_name(config.model.network)
    device = resolve_device(config.run.device, local_rank=local_rank)
    precision = resolve_precision(config.train.precision, device)
    images, flip = load_dataset(config.data.dataset, config.data.data_root, progress=not config.run.quiet)
    split = make_split(
        len(images.x_train),
        len(images.x_test),
        n_train=config.data.n_train,
        exp_idx=config.model.exp_idx,
        inclusion=config.data.target_inclusion,
    )
    is_default = split.n_train == default_n_train(len(images.x_train))
    identity = config.identity(
        precision=precision, n_train=split.n_train, n_train_is_default=is_default, fingerprint=images.fingerprint
    )
    privacy = _privacy(config, n_images=split.n_train + split.n_samples // 2)
    train = config.train
    assert train.lr is not None  # parse_args() fills it in
    training = TrainingSettings(
        epochs=train.epochs,
        lr=train.lr,
        lr_step=train.lr_step,
        optimizer=train.optimizer,
        batch_size=train.train_batch_size,
        test_batch_size=config.run.test_batch_size,
        augment=config.data.augment,
        precision=precision,
        eval_every=train.eval_every,
        compiled=config.run.compile,
    )
    setup = Setup(images, flip, split, device, training, config.model.network, identity, privacy)
    model = setup.build()  # raises for a network that does not fit, before anything is written
    if privacy:
        privacy.check(model, (images.channels, *images.size))
    return setup


def _privacy(config: Config, *, n_images: int) -> "DPSGD | None":
    if not config.dp:
        return None
    from lira.privacy.dp_sgd import DPSGD  # here: imports Opacus, which only DP needs

    train = config.train
    return DPSGD(n_images=n_images, batch_size=train.train_batch_size, epochs=train.epochs, **asdict(config.dp))
