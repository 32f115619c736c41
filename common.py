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

import torch
from torch import nn

from lira import data
from lira.data import Pictures
from lira.errors import InputError
from lira.pool import PicturePool
from lira.split import Split, default_n_train, make_split
from network import build, check_name
from util import Config

if TYPE_CHECKING:
    from lira.privacy import Privacy

# --- data sets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetRow:
    """How one data set is read, and whether a mirrored picture is still a picture of its class."""

    read: Callable[..., Pictures]  # (data_root, progress=…) -> Pictures
    flip: bool


DATASETS = {
    "cifar10": DatasetRow(partial(data.read_torchvision, "cifar10"), flip=True),
    "cifar100": DatasetRow(partial(data.read_torchvision, "cifar100"), flip=True),
    "mnist": DatasetRow(partial(data.read_torchvision, "mnist"), flip=False),
    "digits": DatasetRow(lambda root, progress: data.read_digits(), flip=False),
}


def load_dataset(name: str, data_root: str, *, progress: bool = True) -> tuple[Pictures, bool]:
    """The pictures of a row of DATASETS or of the user's own path, and whether training may flip them.

    Your own colour pictures are flipped, your own grey ones (digits, letters, scans) are not."""
    root = Path(data_root)
    if name in DATASETS:
        row = DATASETS[name]
        return row.read(root, progress=progress), row.flip
    path = Path(name)
    if path.suffix == ".npz" and os.path.isfile(path):  # noqa: PTH113 (Path.is_file() raises for a very long name)
        pictures = data.read_npz(path)
    elif os.path.isdir(path):  # noqa: PTH112
        pictures = data.read_folder(path, root, progress=progress)
    else:
        raise InputError(
            f"--dataset must be one of {', '.join(DATASETS)}, or the path of a .npz file or of a folder; "
            f"got {name!r}, which is none of them"
        )
    return pictures, pictures.x_train.shape[1] == 3


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

    pictures: Pictures
    flip: bool
    split: Split
    device: torch.device
    precision: str
    network: str
    identity: dict
    privacy: "Privacy | None" = None

    @cached_property
    def pool(self) -> PicturePool:
        return PicturePool(self.pictures, flip=self.flip, device=self.device)

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} {platform.machine()}"

    def build(self) -> nn.Module:
        """A new network for these pictures, its weights from torch's global generator."""
        _, channels, *size = self.pictures.x_train.shape
        model = build(self.network, num_classes=len(self.pictures.class_names), in_channels=channels, size=tuple(size))
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
        n_train, n_test = len(self.pictures.x_train), len(self.pictures.x_test)
        shape = "x".join(map(str, self.pictures.x_train.shape[1:]))
        lines = [
            f"{n_train:,} + {n_test:,} pictures of {shape}, {self.pictures.n_classes} classes; "
            f"a model trains on {self.split.n_train:,} + {n_test // 2:,}",
            f"{self.network} in {self.precision} on {self.device_name}",
        ]
        samples, twins = data.overlap(self.pictures)
        if len(samples):
            named = ", ".join(f"{sample} = {twin}" for sample, twin in zip(samples[:5], twins[:5], strict=True))
            lines.append(
                f"{len(samples):,} target samples are also training pictures, which blurs who is a member: "
                f"test {'pictures' if len(samples) > 1 else 'picture'} = training: {named}{', …' * (len(samples) > 5)}"
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
    pictures, flip = load_dataset(config.data.dataset, config.data.data_root, progress=not config.run.quiet)
    split = make_split(
        len(pictures.x_train), len(pictures.x_test), n_train=config.data.n_train,
        exp_idx=config.model.exp_idx, inclusion=config.data.target_inclusion,
    )  # fmt: skip
    identity = config.identity(
        precision=precision, n_train=split.n_train, fingerprint=pictures.fingerprint,
        n_train_is_default=split.n_train == default_n_train(len(pictures.x_train)),
    )  # fmt: skip
    privacy = _privacy(config, n_pictures=split.n_train + split.n_samples // 2)
    setup = Setup(pictures, flip, split, device, precision, config.model.network, identity, privacy)
    model = setup.build()  # a network that does not fit is refused before anything is written
    if privacy:
        privacy.check(model, tuple(pictures.x_train.shape[1:]))
    return setup


def _privacy(config: Config, *, n_pictures: int) -> "Privacy | None":
    if not config.dp:
        return None
    from lira.privacy import Privacy  # here: only what is private needs Opacus

    train = config.train
    return Privacy(n_pictures=n_pictures, batch_size=train.train_batch_size, epochs=train.epochs, **asdict(config.dp))
