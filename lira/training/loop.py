"""The SGD loop: one model from its seed to its weights, without a DataLoader and without waiting for the device."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lira.data.store import ImageStore
from lira.errors import ModelError, one_line
from lira.training.kernels import fast_kernels

if TYPE_CHECKING:  # it imports Opacus
    from lira.privacy.dp_sgd import PrivateTraining

Batch = tuple[torch.Tensor, ...]  # (index, top, left, flip), each (B,), as for ImageStore.batch()
MakePrivate = Callable[[nn.Module, torch.optim.Optimizer], "PrivateTraining"]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, fused=True),
    "MSGD": partial(torch.optim.SGD, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "RMSprop": torch.optim.RMSprop,
}
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class TrainingSettings:
    """How every model of a run is trained. optimizer: a key of OPTIMIZERS; lr_step: epochs after which the learning
    rate is multiplied by 0.1, None for never; precision: fp32 or bf16; eval_every: epochs between two evaluations on
    the test set, after the last one always; compiled: through torch.compile. Private training ignores batch_size."""

    epochs: int
    lr: float
    lr_step: int | None
    optimizer: str
    batch_size: int
    test_batch_size: int
    augment: bool
    precision: str
    eval_every: int
    compiled: bool = False


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
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        yield tuple(column[start:stop] for column in columns)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    store: ImageStore,
    batches: Iterable[Batch],
    *,
    precision: str,
    progress: Callable[[int], None],
) -> tuple[float, float] | tuple[None, None]:
    """Train on all batches. Returns (mean loss, accuracy) over images, in train mode and before each step; (None, None)
    if the batches hold no image. progress(n): called after each batch of n images.

    The sums stay on the device until the end: the loop never waits for the device."""
    model.train()
    loss_sum, n_correct, n = torch.zeros((), device=store.device), torch.zeros((), device=store.device), 0
    for index, *augmentation in batches:
        if len(index):  # a Poisson sample may be empty: its step is noise only, and is accounted
            x, y = store.batch(index, *augmentation), store.y[index]
            with torch.autocast(store.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            loss.backward()
            with torch.no_grad():
                loss_sum += loss.detach() * len(index)
                n_correct += (logits.argmax(1) == y).sum()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        n += len(index)
        progress(len(index))
    return (loss_sum.item() / n, n_correct.item() / n) if n else (None, None)


@torch.no_grad()
def evaluate(
    model: nn.Module, store: ImageStore, index: torch.Tensor, *, batch_size: int, precision: str
) -> tuple[float, float]:
    """(mean loss, accuracy) in eval mode on the unaugmented images `index`, int64 (n,) into the store.

    On CPU a batch is at most 256: larger ones are hardly faster and took 0.6 GB more while a ResNet18 trained."""
    model.eval()
    loss_sum, n_correct = torch.zeros((), device=store.device), torch.zeros((), device=store.device)
    size = min(batch_size, 256) if store.device.type == "cpu" else batch_size
    for batch in index.to(store.device).split(size):
        with torch.autocast(store.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(store.unaugmented(batch))
        loss_sum += F.cross_entropy(logits.float(), store.y[batch], reduction="sum")
        n_correct += (logits.argmax(1) == store.y[batch]).sum()
    return loss_sum.item() / len(index), n_correct.item() / len(index)


class Trainer:
    """A model in training, with all state that the rest of its training depends on.

    parts: name in the resume file -> object with state_dict() and load_state_dict(). make_private: None, or turns model
    and optimizer into private training (`DPSGD.make_private`), which then supplies the optimizer and the batches."""

    def __init__(
        self,
        name: str,
        build: Callable[[], nn.Module],
        device: torch.device,
        settings: TrainingSettings,
        *,
        seed: int,
        make_private: MakePrivate | None = None,
    ):
        torch.manual_seed(seed)  # initial weights, and dropout in a user's network
        self.generator = torch.Generator().manual_seed(seed)  # order of images and augmentation
        self.model = build().to(device).to(memory_format=torch.channels_last)
        if settings.compiled:  # in place, at the first call: one set of kernels per batch size, shared by all models
            self.model.compile(dynamic=False)
        make_optimizer = OPTIMIZERS[settings.optimizer]
        self.optimizer = make_optimizer(self.model.parameters(), lr=settings.lr, weight_decay=WEIGHT_DECAY)
        milestones = [settings.lr_step] if settings.lr_step else []
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, milestones)
        self.history: list[dict[str, Any]] = []  # one row per epoch
        self.name, self.device, self.settings = name, device, settings
        self.parts: dict[str, Any] = {"weights": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        self.private = make_private(self.model, self.optimizer) if make_private else None
        if self.private:
            self.optimizer = self.private.optimizer
            self.parts |= self.private.parts

    def batches(self, store: ImageStore, training_set: torch.Tensor) -> Iterator[Batch]:
        """One epoch; private training draws Poisson samples, whose size varies."""
        size, augment = self.settings.batch_size, self.settings.augment
        if self.private:
            return self.private.batches(store, training_set, self.generator, augment=augment)
        return epoch_batches(store, training_set, self.generator, size=size, augment=augment)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {name: dict(part.state_dict()) for name, part in self.parts.items()}
        state |= {"history": self.history, "generator": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type != "cpu":
            state[self.device.type] = getattr(torch, self.device.type).get_rng_state(*self._rng_arguments)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state_dict(). Raises ModelError if it does not fit: the network's code has changed."""
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"{self.name}: its resume file does not fit the network, whose code has changed: {one_line(error)}; "
                "restore the code, or delete the file to train this model from the beginning"
            ) from error
        self.history = list(state["history"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if self.device.type in state:
            getattr(torch, self.device.type).set_rng_state(state[self.device.type], *self._rng_arguments)

    @property
    def _rng_arguments(self) -> tuple[torch.device, ...]:
        return (self.device,) if self.device.type == "cuda" else ()  # torch.mps knows one device only


def train_model(
    name: str,
    build: Callable[[], nn.Module],
    store: ImageStore,
    training_set: np.ndarray,
    test_set: np.ndarray,
    settings: TrainingSettings,
    *,
    seed: int,
    on_epoch: Callable[[list[dict[str, Any]]], None],
    progress: Callable[[int], None],
    make_private: MakePrivate | None = None,
    resume: Mapping[str, Any] | None = None,
    on_checkpoint: Callable[[int, Callable[[], dict[str, Any]]], None] = lambda epoch, state_dict: None,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train one model, with or without privacy. Returns it and one row per epoch, as in result/<run>/train/*.csv.

    training_set, test_set: int64 indices into the store. The result depends on the arguments alone (on CPU also on the
    number of threads). After every epoch on_epoch(history) is called, and after every epoch but the last
    on_checkpoint(epoch, state_dict): passed as `resume`, state_dict() continues bit-identically. Raises ModelError if
    the loss is not finite or memory runs out."""
    flag = "--max-physical-batch" if make_private else f"--train-batch-size ({settings.batch_size})"
    epochs, precision = settings.epochs, settings.precision
    with out_of_memory_as_model_error(name, flag), fast_kernels(store.device, precision, same_sizes=not make_private):
        trainer = Trainer(name, build, store.device, settings, seed=seed, make_private=make_private)
        if resume:
            trainer.load_state_dict(resume)
        history = trainer.history
        training_index, test_index = torch.from_numpy(training_set), torch.from_numpy(test_set)
        start = time.perf_counter() - (history[-1]["seconds"] if history else 0)
        for epoch in range(len(history) + 1, epochs + 1):
            row = {"model": name, "epoch": epoch, "lr": trainer.optimizer.param_groups[0]["lr"]}
            batches = trainer.batches(store, training_index)
            loss, accuracy = train_epoch(
                trainer.model, trainer.optimizer, store, batches, precision=precision, progress=progress
            )
            if loss is not None and not math.isfinite(loss):
                rate = f"learning rate {settings.lr:g}"
                raise ModelError(f"{name}: the loss is {loss} in epoch {epoch} at {rate}; lower --lr")
            trainer.schedule.step()
            test_loss, test_accuracy = None, None
            if epoch % settings.eval_every == 0 or epoch == epochs:
                test_loss, test_accuracy = evaluate(
                    trainer.model, store, test_index, batch_size=settings.test_batch_size, precision=precision
                )
                if not math.isfinite(test_loss):  # after the last step no training loss would show it
                    raise ModelError(f"{name}: the test loss is {test_loss} after epoch {epoch}; lower --lr")
            row |= {"train_loss": loss, "train_accuracy": accuracy, "test_loss": test_loss}
            row |= {"test_accuracy": test_accuracy, "epsilon": trainer.private.epsilon() if trainer.private else None}
            row |= {"seconds": time.perf_counter() - start}
            history.append(row)
            on_epoch(history)
            if epoch < epochs:
                on_checkpoint(epoch, trainer.state_dict)
    return trainer.model, history


@contextmanager
def out_of_memory_as_model_error(name: str, flag: str) -> Iterator[None]:
    """ModelError in place of the various errors by which torch and Python report a lack of memory. flag: to lower."""
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0] or "no memory left"
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise ModelError(f"{name}: out of memory ({reason}); lower {flag} or start fewer workers per device")
