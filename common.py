"""The experiment: the datasets, the split, device and precision, what both scripts prepare, and the SGD loop."""

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lira.data.folder import read_folder
from lira.data.images import Images, few_samples, find_duplicates
from lira.data.readers import read_digits, read_npz, read_torchvision
from lira.data.store import ImageStore
from lira.errors import InputError, ModelError, log
from lira.flags import find_name, suggest
from lira.storage.names import ROLES, Job, model_name
from lira.storage.probe import probe_logits
from lira.storage.provenance import provenance
from lira.training.kernels import fast_kernels
from lira.training.state import TrainingState
from network import build, network_name
from util import Config, TrainConfig

if TYPE_CHECKING:  # it imports Opacus, which only DP needs
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


def dataset_name(text: str) -> str:
    """A key of DATASETS, which text may spell in any case, or the absolute path of a .npz file or of a folder.
    Raises InputError."""
    path = Path(text)
    # os.path, because Path.is_file() raises for a very long name
    is_path = (path.suffix == ".npz" and os.path.isfile(path)) or os.path.isdir(path)  # noqa: PTH112, PTH113
    if text in DATASETS:
        return text
    if is_path:
        return str(path.resolve())
    if name := find_name(text, DATASETS):
        return name
    raise InputError(
        f"--dataset must be one of {', '.join(DATASETS)}, or the path of a .npz file or of a folder; "
        f"got {text!r}, which is none of them{suggest(text, DATASETS)}"
    )


def load_dataset(name: str, data_root: str, *, progress: bool = True) -> tuple[Images, bool]:
    """The images of a dataset_name(), and whether training flips them at random. Raises InputError.

    From a path, images in colour are flipped; grey ones (digits, letters, scans) are not."""
    root, path = Path(data_root), Path(name)
    if name in DATASETS:
        row = DATASETS[name]
        return row.read(root, progress=progress), row.flip
    images = read_npz(path) if path.suffix == ".npz" else read_folder(path, root, progress=progress)
    return images, images.channels == 3


# --- the split -----------------------------------------------------------------------------------------------------


def _rng(exp_idx: int, role: str, index: int, purpose: int) -> np.random.Generator:
    """The generator of one draw: no model depends on what was trained before it."""
    return np.random.default_rng(np.random.SeedSequence([exp_idx, ROLES.index(role), index, purpose]))


_MEMBERS, _TRAINING_SET, _WEIGHTS, _HALVES = range(4)


@dataclass(frozen=True)
class Split:
    """Which images each model trains on. The two halves of the training images are the same for every exp_idx.

    target_half, attack_half: int64 (n_images // 2,), indices of training images; n_samples: N, the number of target
    samples, which are the test images; n_train: images that a model draws from its half, 0 where it trains on target
    samples alone; inclusion: half or coin, --target-inclusion."""

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
        return int(_rng(self.exp_idx, role, index, _WEIGHTS).integers(2**63))


def default_n_train(n_images: int) -> int:
    """The smaller of 20,000 and 80 % of a half of n_images training images, but at least 1."""
    return max(1, min(20_000, int(0.8 * (n_images // 2))))


def make_split(n_images: int, n_samples: int, *, n_train: int | None, exp_idx: int, inclusion: str) -> Split:
    """Split n_images training images into two equal halves; an odd last one is left out. Raises InputError."""
    half = n_images // 2
    n_train = default_n_train(n_images) if n_train is None else n_train
    if half < 1:
        raise InputError(
            f"at least 2 training images are needed, one in each half, to measure test accuracy on: got {n_images}"
        )
    if not 0 <= n_train <= half:
        raise InputError(f"--n-train must be from 0 to {half}, a half of the {n_images} training images: got {n_train}")
    if n_train == 0 and n_samples < 2:
        raise InputError(
            f"--n-train 0 trains on half of the target samples alone, but there is {n_samples} test image: "
            "give more of them"
        )
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
    numbered = kind == "cuda" and number.isdecimal() and len(number) < 9
    if kind not in ("cuda", "mps", "cpu") or (colon and not numbered):
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


# --- what both scripts prepare -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """Flags, data, split, device and precision of one run: what it takes to train or query a model."""

    config: Config
    images: Images
    flip: bool
    split: Split
    device: torch.device
    precision: str
    privacy: "DPSGD | None" = None

    @cached_property
    def store(self) -> ImageStore:
        return ImageStore(self.images, flip=self.flip, device=self.device)

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} {platform.machine()}"

    @property
    def identity(self) -> dict[str, Any]:
        """All settings that change the models' weights."""
        return self.identity_of(self.config)

    def identity_of(self, config: Config) -> dict[str, Any]:
        """The identity of a run of other flags with the same network, on the same data and device."""
        return replace(config, data=self.config.data, model=self.config.model).identity(
            precision=self.precision,
            n_train=self.split.n_train,
            n_train_is_default=self.split.n_train == default_n_train(len(self.images.x_train)),
            fingerprint=self.images.fingerprint,
        )

    def record(self, argv: Sequence[str]) -> dict[str, Any]:
        """What config.json holds beside the identity. argv: the flags of train_model.py."""
        where = {"device": self.device_name, "threads": torch.get_num_threads()}
        privacy = {"privacy": self.privacy.provenance()} if self.privacy else {}
        trained_by = provenance("train_model.py", argv) | where | privacy
        return {"flags": self.config.flags(precision=self.precision), "provenance": trained_by}

    def member_of(self, job: Job, identity: Mapping[str, Any]) -> np.ndarray | None:
        """The target samples that a model of another run was trained on, bool (N,); None where its data are others."""
        if identity["data_fingerprint"] != self.images.fingerprint:
            return None
        split = replace(self.split, exp_idx=identity["exp_idx"], inclusion=identity["target_inclusion"])
        return split.member(*job)

    def build(self) -> nn.Module:
        """A new network for these images, its weights drawn from torch's global generator. Raises InputError."""
        return self.privacy.adapt(self._build_as_given()) if self.privacy else self._build_as_given()

    def _build_as_given(self) -> nn.Module:
        """build(), with the layers that DP-SGD replaces."""
        images, network = self.images, self.config.model.network
        sizes: dict[str, Any] = dict(num_classes=images.n_classes, in_channels=images.channels, size=images.size)
        return build(network, **sizes, mean=images.mean, std=images.std)

    def probe(self, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The logits of these weights on a fixed input, by which load_into() tells whether the network's code is still
        the same. From a new network, as for whoever reads the file: they follow from the weights and from nothing else
        that the training left behind. With DP that makes them post-processing of what is published anyway."""
        shape = (self.images.channels, *self.images.size)
        with torch.random.fork_rng(devices=[]):
            model = self.build().to(self.device).to(memory_format=torch.channels_last)
        model.load_state_dict(weights)
        return {"shape": list(shape), "logits": probe_logits(model, shape)}

    def with_canaries_of(self, existing: int | None) -> "Setup":
        """The setup with as many gradient canaries for new targets as those that exist have; None: there are none.
        Raises InputError where the flag contradicts them."""
        if self.privacy is None or self.config.dp is None or existing in (None, self.privacy.canaries):
            return self
        if self.config.dp.canaries is not None:
            raise InputError(
                f"--canaries {self.config.dp.canaries}: the targets of this run have {existing}, and are not trained "
                "again; leave it out, or give another --exp-idx"
            )
        return replace(self, privacy=replace(self.privacy, canaries=existing))

    def describe_training(self) -> str:
        """describe(), and with DP which layers are replaced, and the guarantee."""
        if self.privacy is None:
            return self.describe()
        with torch.random.fork_rng(devices=[]):
            replaced = self.privacy.describe_replaced(self._build_as_given(), self.build())
        return "\n".join(filter(None, [self.describe(), replaced, self.privacy.describe()]))

    def describe(self) -> str:
        """Sizes on one line, network and device on the next; then target samples that are also drawn training images.

        Compares all images with each other: call it once."""
        n_train, n_test = len(self.images.x_train), len(self.images.x_test)
        shape = "x".join(map(str, self.images.x_train.shape[1:]))
        lines = [
            f"{n_train:,} training + {n_test:,} test images of {shape}, {self.images.n_classes} classes; "
            f"each model trains on {self.split.n_train:,} + {n_test // 2:,}",
            f"{self.config.model.network} in {self.precision} on {self.device_name}",
            *few_samples(self.images),
        ]
        samples, duplicates = find_duplicates(self.images) if self.split.n_train else ((), ())
        if len(samples):
            pairs = [f"{sample} = {image}" for sample, image in zip(samples[:5], duplicates[:5], strict=True)]
            lines.append(
                f"{len(samples):,} target samples are also training images, which blurs who is a member: "
                f"test {'images' if len(samples) > 1 else 'image'} = training: "
                + ", ".join([*pairs, "…"] if len(samples) > len(pairs) else pairs)
            )
        return "\n".join(lines)


def prepare(config: Config, *, local_rank: int = 0) -> Setup:
    """Read the data and resolve what the flags leave open. Writes nothing into the run's folders. Raises InputError."""
    dataset, network = dataset_name(config.data.dataset), network_name(config.model.network)
    if config.run.run and ":" in network:
        log(f"--run {config.run.run}: its network {network} is your own code, which is imported and run now")
    data = replace(config.data, dataset=dataset)
    config = replace(config, data=data, model=replace(config.model, network=network))
    device = resolve_device(config.run.device, local_rank=local_rank)
    precision = resolve_precision(config.train.precision, device)
    images, flip = load_dataset(dataset, data.data_root, progress=not config.run.quiet)
    split = make_split(
        len(images.x_train),
        len(images.x_test),
        n_train=data.n_train,
        exp_idx=config.model.exp_idx,
        inclusion=data.target_inclusion or "half",
    )
    privacy = None
    if config.dp:
        from lira.privacy.dp_sgd import DPSGD  # here: imports Opacus, which only DP needs

        n_images, train = split.n_train + split.n_samples // 2, config.train
        settings = {name: value for name, value in asdict(config.dp).items() if name not in ("disabled", "canaries")}
        privacy = DPSGD(n_images, train.train_batch_size, train.epochs, **settings)
    setup = Setup(config, images, flip, split, device, precision, privacy)
    model = setup.build()  # raises for a network that does not fit, before anything is written
    if config.dp and privacy:
        n_weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        setup = replace(setup, privacy=privacy.with_canaries(config.dp.canaries, n_weights))
        privacy.check(model, (images.channels, *images.size))
    return setup


# --- the SGD loop --------------------------------------------------------------------------------------------------

Batch = tuple[torch.Tensor, ...]  # (index, top, left, flip), each (B,), as for ImageStore.batch()

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, fused=True),
    "MSGD": partial(torch.optim.SGD, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "RMSprop": torch.optim.RMSprop,
}


def make_schedule(optimizer: torch.optim.Optimizer, train: TrainConfig) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by epoch: x0.1 after lr_step of them (with DP there is none), or half a cosine towards 0."""
    if train.lr_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train.epochs)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [train.lr_step] if train.lr_step else [], gamma=0.1)


def epoch_batches(
    store: ImageStore, training_set: torch.Tensor, generator: torch.Generator, *, size: int, augment: bool
) -> Iterator[Batch]:
    """One epoch in a new random order, in batches on the store's device. One copy to the device per epoch.

    training_set: int64 (n,), indices into the store. If the last batch would be a single image, it is added to the
    batch before: batch normalization needs more than one image."""
    n = len(training_set)
    order = torch.randperm(n, generator=generator)
    drawn = (training_set[order], *store.draw(n, generator, augment=augment))
    columns = [column.to(store.device, non_blocking=True) for column in drawn]
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    for start, stop in pairwise([*starts, n]):  # no batch if Bernoulli inclusion chose no image
        yield tuple(column[start:stop] for column in columns)


class Trainer:
    """One model in training: its network, optimizer, learning-rate schedule and every generator that it draws from.

    Images are gathered and augmented on the device. The result depends on the setup, role and index alone (on CPU also
    on the number of threads). history: one row per epoch, as in result/<run>/train/*.csv; state: saved and loaded, it
    continues bit-identically."""

    def __init__(self, setup: Setup, role: str, index: int):
        train, split, self.store = setup.config.train, setup.split, setup.store
        seed = split.seed(role, index)
        torch.manual_seed(seed)  # initial weights, and dropout in a user's network
        self.generator = torch.Generator().manual_seed(seed)  # order of images and augmentation
        self.model = setup.build().to(setup.device).to(memory_format=torch.channels_last)
        if setup.config.run.compile:  # in place, at the first call: one set of kernels per batch size, for all models
            self.model.compile(dynamic=False)
        make_optimizer = OPTIMIZERS[train.optimizer]
        self.optimizer = make_optimizer(self.model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
        self.schedule = make_schedule(self.optimizer, train)
        parts: dict[str, Any] = {"weights": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        self.private = None
        if setup.privacy:  # clips each image's gradient, adds noise to their sum, and draws Poisson samples as batches
            key = (split.exp_idx, ROLES.index(role), index)
            canaries = setup.privacy.canaries if role == "target" else 0
            self.private = setup.privacy.make_private(self.model, self.optimizer, key=key, canaries=canaries)
            self.optimizer = self.private.optimizer
            parts |= self.private.parts
        self.setup, self.name, self.n_epochs = setup, model_name(role, index), train.epochs
        self.training_set = torch.from_numpy(split.training_set(role, index, self.store.first_sample))
        self.test_set = torch.from_numpy(split.test_set(role))
        self.history: list[dict[str, Any]] = []
        self.state = TrainingState(parts, self.history, self.generator, setup.device)

    def epochs(self, progress: Callable[[int], None] = lambda n: None) -> Iterator[dict[str, Any]]:
        """Train epoch by epoch, after those in the history. Yields each new row of the history. progress(n): called
        after each batch of n images. Raises ModelError if the loss is not finite."""
        start = time.perf_counter() - (self.history[-1]["seconds"] if self.history else 0)
        for epoch in range(len(self.history) + 1, self.n_epochs + 1):
            row = {"model": self.name, "epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
            loss, accuracy = self.train(self.batches(), progress)
            self.schedule.step()
            due = epoch % self.setup.config.train.eval_every == 0 or epoch == self.n_epochs
            test_loss, test_accuracy = self.evaluate(self.test_set) if due else (None, None)
            for value in (loss, test_loss):  # after the last step only the test loss shows it
                if value is not None and not math.isfinite(value):
                    reason = f"the loss is {value} in epoch {epoch} at learning rate {row['lr']:g}; lower --lr"
                    raise ModelError(reason, final=True)
            row |= {"train_loss": loss, "train_accuracy": accuracy}
            row |= {"test_loss": test_loss, "test_accuracy": test_accuracy}
            row |= {"epsilon": self.private.epsilon() if self.private else None}
            row |= {"seconds": time.perf_counter() - start}
            self.history.append(row)
            yield row

    def batches(self) -> Iterator[Batch]:
        """One epoch; private training draws Poisson samples, whose size varies."""
        config = self.setup.config
        if self.private:
            return self.private.batches(self.store, self.training_set, self.generator, augment=config.data.augment)
        size = config.train.train_batch_size
        return epoch_batches(self.store, self.training_set, self.generator, size=size, augment=config.data.augment)

    def train(self, batches: Iterable[Batch], progress: Callable[[int], None]) -> tuple[float | None, float | None]:
        """Train on all batches. Returns (mean loss, accuracy) over images, in train mode and before each step; None if
        the batches hold no image.

        The sums stay on the device until the end: the loop never waits for the device."""
        model, store = self.model.train(), self.store
        loss_sum, n_correct, n = torch.zeros((), device=store.device), torch.zeros((), device=store.device), 0
        with self._kernels():
            for index, *augmentation in batches:
                if len(index):  # a Poisson sample may be empty: its step is noise only, and is accounted
                    x, y = store.batch(index, *augmentation), store.y[index]
                    with self._autocast():
                        logits = model(x)
                    loss = F.cross_entropy(logits.float(), y)
                    if self.private:
                        self.private.backward(loss, len(index))
                    else:
                        loss.backward()
                    with torch.no_grad():
                        loss_sum += loss.detach() * len(index)
                        n_correct += (logits.argmax(1) == y).sum()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                n += len(index)
                progress(len(index))
        return (loss_sum.item() / n, n_correct.item() / n) if n else (None, None)

    @torch.no_grad()
    def evaluate(self, index: torch.Tensor) -> tuple[float, float]:
        """(mean loss, accuracy) in eval mode on the unaugmented images `index`, int64 (n,) into the store.

        On CPU a batch is at most 256: larger ones are hardly faster and took 0.6 GB more while a ResNet18 trained."""
        model, store, size = self.model.eval(), self.store, self.setup.config.run.test_batch_size
        loss_sum, n_correct = torch.zeros((), device=store.device), torch.zeros((), device=store.device)
        size = min(size, 256) if store.device.type == "cpu" else size
        with self._kernels():
            for batch in index.to(store.device).split(size):
                with self._autocast():
                    logits = model(store.unaugmented(batch))
                loss_sum += F.cross_entropy(logits.float(), store.y[batch], reduction="sum")
                n_correct += (logits.argmax(1) == store.y[batch]).sum()
        return loss_sum.item() / len(index), n_correct.item() / len(index)

    def _kernels(self) -> AbstractContextManager[None]:
        return fast_kernels(self.store.device, self.setup.precision, same_sizes=not self.private)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.store.device.type, torch.bfloat16, enabled=self.setup.precision == "bf16")

    def take_steps(self, n: int) -> int:
        """Train on the first n batches of an epoch, to be timed. Returns their number of images."""
        sizes: list[int] = []
        self.train(islice(self.batches(), n), sizes.append)
        return sum(sizes)

    def evaluate_part(self) -> int:
        """Evaluate on two batches of test images, to be timed. Returns their number of images."""
        part = self.test_set[: 2 * self.setup.config.run.test_batch_size]
        self.evaluate(part)
        return len(part)
