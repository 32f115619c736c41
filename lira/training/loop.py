"""The SGD loop: one model from its seed to its weights, without a DataLoader and without waiting for the device."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lira.data.store import ImageStore
from lira.errors import ModelError, one_line
from lira.training.kernels import fast_kernels

OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, fused=True),
    "MSGD": partial(torch.optim.SGD, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "RMSprop": torch.optim.RMSprop,
}
WEIGHT_DECAY = 1e-4


def epoch_batches(
    store: ImageStore, training_set: torch.Tensor, generator: torch.Generator, *, size: int, augment: bool
) -> Iterator[tuple[torch.Tensor, ...]]:
    """One epoch in a fresh order: (index, top, left, flip) a batch, on the store's device. One copy an epoch.

    A last batch of a single image joins the one before it: batch normalisation has no variance of one."""
    n = len(training_set)
    order = torch.randperm(n, generator=generator)
    columns = (training_set[order], *store.draw(n, generator, augment=augment))
    columns = [column.to(store.device, non_blocking=True) for column in columns]
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        yield tuple(column[start:stop] for column in columns)


def train_epoch(model, optimizer, store, batches, *, precision: str, progress: Callable[[int], None]):
    """One pass. Returns (mean loss, accuracy), both over the batches as they were trained on; None without a image.

    The sums stay on the device until the end: nothing in the loop waits for it."""
    model.train()
    loss_sum, hits, n = torch.zeros((), device=store.device), torch.zeros((), device=store.device), 0
    for index, *augmentation in batches:
        if len(index):  # a Poisson sample may be empty: its step is noise alone, and counts
            x, y = store.batch(index, *augmentation), store.y[index]
            with torch.autocast(store.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            loss.backward()
            with torch.no_grad():
                loss_sum += loss.detach() * len(index)
                hits += (logits.argmax(1) == y).sum()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        n += len(index)
        progress(len(index))
    return (loss_sum.item() / n, hits.item() / n) if n else (None, None)


@torch.no_grad()
def evaluate(model, store: ImageStore, index: torch.Tensor, *, batch_size: int, precision: str):
    """(mean loss, accuracy) in eval mode on images as they are, at most batch_size at once.

    On CPU never more than 256: larger parts are hardly faster and took 0.6 GB more beside a ResNet18's training."""
    model.eval()
    loss_sum, hits = torch.zeros((), device=store.device), torch.zeros((), device=store.device)
    size = min(batch_size, 256) if store.device.type == "cpu" else batch_size
    for part in index.to(store.device).split(size):
        with torch.autocast(store.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(store.unaugmented(part))
        loss_sum += F.cross_entropy(logits.float(), store.y[part], reduction="sum")
        hits += (logits.argmax(1) == store.y[part]).sum()
    return loss_sum.item() / len(index), hits.item() / len(index)


class Trainer:
    """A model on its way, with all that the rest of its training depends on.

    parts: what the state is made of, each with state_dict() and load_state_dict(). make_private: None, or what turns a
    model and its optimizer into private training as in `lira.privacy`, which then gives optimizer and batches."""

    def __init__(
        self, name: str, build, device: torch.device, *,
        seed: int, lr: float, lr_step: int | None, optimizer: str, make_private: Callable | None = None,
        compiled: bool = False,
    ):  # fmt: skip
        torch.manual_seed(seed)  # weights, and dropout in a user's network
        self.generator = torch.Generator().manual_seed(seed)  # order of images and augmentation
        self.model = build().to(device, memory_format=torch.channels_last)
        if compiled:  # in place, at the first call: one set of kernels for each size of a batch, kept for all models
            self.model.compile(dynamic=False)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [lr_step] if lr_step else [])
        self.history: list[dict] = []  # a row an epoch
        self.name, self.device = name, device
        self.parts = {"weights": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        self.private = make_private(self.model, self.optimizer) if make_private else None
        if self.private:
            self.optimizer = self.private.optimizer
            self.parts |= self.private.parts

    def batches(self, store: ImageStore, training_set: torch.Tensor, *, size: int, augment: bool):
        """One epoch of (index, top, left, flip) a batch; private training draws batches of its own size."""
        if self.private:
            return self.private.batches(store, training_set, self.generator, augment=augment)
        return epoch_batches(store, training_set, self.generator, size=size, augment=augment)

    def state_dict(self) -> dict:
        state = {name: dict(part.state_dict()) for name, part in self.parts.items()}
        state |= {"history": self.history, "generator": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type != "cpu":
            state[self.device.type] = getattr(torch, self.device.type).get_rng_state(*self._which)
        return state

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from a state_dict(). Raises ModelError where it does not fit: the network's code has changed."""
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"{self.name}: its resume file does not fit the network, whose code has changed: {one_line(error)}; "
                "restore the code, or delete the file to start this model anew"
            ) from error
        self.history = list(state["history"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if self.device.type in state:
            getattr(torch, self.device.type).set_rng_state(state[self.device.type], *self._which)

    @property
    def _which(self) -> tuple[torch.device, ...]:
        return (self.device,) if self.device.type == "cuda" else ()  # of the others there is one


def train_model(
    name: str,
    build: Callable[[], nn.Module],
    store: ImageStore,
    training_set: np.ndarray,
    test_set: np.ndarray,
    *,
    seed: int,
    epochs: int,
    lr: float,
    lr_step: int | None,
    optimizer: str,
    batch_size: int,
    augment: bool,
    precision: str,
    eval_every: int,
    test_batch_size: int,
    compiled: bool = False,
    on_epoch: Callable[[list[dict]], None],
    progress: Callable[[int], None],
    make_private: Callable | None = None,
    resume: Mapping | None = None,
    on_state: Callable[[int, Callable[[], dict]], None] = lambda epoch, state: None,
) -> tuple[nn.Module, list[dict]]:
    """Train one model, by plain SGD or privately. Returns it with a row an epoch, as in result/<run>/train/*.csv.

    The result depends on the arguments alone (on CPU: and on the number of threads). on_state(epoch, state) is called
    after every epoch but the last; what state() returns there continues as `resume` to the same bits. Raises
    ModelError for a loss that is not finite, and where memory does not suffice."""
    remedy = "--max-physical-batch" if make_private else f"--train-batch-size ({batch_size})"
    with _memory_named(name, remedy), fast_kernels(store.device, precision, same_sizes=not make_private):
        work = Trainer(
            name, build, store.device, seed=seed, lr=lr, lr_step=lr_step, optimizer=optimizer,
            make_private=make_private, compiled=compiled,
        )  # fmt: skip
        if resume:
            work.load_state_dict(resume)
        history = work.history
        training_set, test_set = torch.from_numpy(training_set), torch.from_numpy(test_set)
        start = time.perf_counter() - (history[-1]["seconds"] if history else 0)
        for epoch in range(len(history) + 1, epochs + 1):
            row = {"model": name, "epoch": epoch, "lr": work.optimizer.param_groups[0]["lr"]}
            batches = work.batches(store, training_set, size=batch_size, augment=augment)
            loss, accuracy = train_epoch(
                work.model, work.optimizer, store, batches, precision=precision, progress=progress
            )
            if loss is not None and not math.isfinite(loss):
                raise ModelError(f"{name}: the loss is {loss} in epoch {epoch} at learning rate {lr:g}; lower --lr")
            work.schedule.step()
            test_loss, test_accuracy = None, None
            if epoch % eval_every == 0 or epoch == epochs:
                test_loss, test_accuracy = evaluate(
                    work.model, store, test_set, batch_size=test_batch_size, precision=precision
                )
                if not math.isfinite(test_loss):  # the last step of all has no training loss that would show it
                    raise ModelError(f"{name}: the test loss is {test_loss} after epoch {epoch}; lower --lr")
            row |= {"train_loss": loss, "train_accuracy": accuracy, "test_loss": test_loss}
            row |= {"test_accuracy": test_accuracy, "epsilon": work.private.epsilon() if work.private else None}
            row |= {"seconds": time.perf_counter() - start}
            history.append(row)
            on_epoch(history)
            if epoch < epochs:
                on_state(epoch, work.state_dict)
    return work.model, history


@contextmanager
def _memory_named(name: str, flag: str):
    """Turns the several ways in which torch and Python run out of memory into the one error of a model."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0] or "no memory left"
        remedy = f"lower {flag} or start fewer workers on a device"
        failure = ModelError(f"{name}: out of memory ({reason}); {remedy}")
    else:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise failure
