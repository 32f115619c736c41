"""The SGD loop: one model from its seed to its weights, without a DataLoader and without waiting for the device."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lira.errors import ModelError
from lira.pool import PicturePool

OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, fused=True),
    "MSGD": partial(torch.optim.SGD, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "RMSprop": torch.optim.RMSprop,
}
WEIGHT_DECAY = 1e-4


def epoch_batches(
    pool: PicturePool, training_set: torch.Tensor, generator: torch.Generator, *, size: int, augment: bool
) -> Iterator[tuple[torch.Tensor, ...]]:
    """One epoch in a fresh order: (index, top, left, flip) a batch, on the pool's device. One copy an epoch.

    A last batch of a single picture joins the one before it: batch normalisation has no variance of one."""
    n = len(training_set)
    order = torch.randperm(n, generator=generator)
    columns = (training_set[order], *pool.draw(n, generator, augment=augment))
    columns = [column.to(pool.device, non_blocking=True) for column in columns]
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        yield tuple(column[start:stop] for column in columns)


def train_epoch(model, optimizer, pool, batches, *, precision: str, progress: Callable[[int], None]):
    """One pass. Returns (mean loss, accuracy), both over the batches as they were trained on.

    The sums stay on the device until the end: nothing in the loop waits for it."""
    model.train()
    loss_sum, hits, n = torch.zeros((), device=pool.device), torch.zeros((), device=pool.device), 0
    for index, *augmentation in batches:
        x, y = pool.batch(index, *augmentation), pool.y[index]
        with torch.autocast(pool.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            loss_sum += loss.detach() * len(index)
            hits += (logits.argmax(1) == y).sum()
        n += len(index)
        progress(len(index))
    return loss_sum.item() / n, hits.item() / n


@torch.no_grad()
def evaluate(model, pool: PicturePool, index: torch.Tensor, *, batch_size: int, precision: str):
    """(mean loss, accuracy) in eval mode on pictures as they are."""
    model.eval()
    loss_sum, hits = torch.zeros((), device=pool.device), torch.zeros((), device=pool.device)
    for part in index.to(pool.device).split(batch_size):
        with torch.autocast(pool.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(pool.plain(part))
        loss_sum += F.cross_entropy(logits.float(), pool.y[part], reduction="sum")
        hits += (logits.argmax(1) == pool.y[part]).sum()
    return loss_sum.item() / len(index), hits.item() / len(index)


def train_model(
    name: str,
    build: Callable[[], nn.Module],
    pool: PicturePool,
    training_set: np.ndarray,
    test_set: np.ndarray,
    *,
    seed: int,
    epochs: int,
    lr: float,
    lr_step: int,
    optimizer: str,
    batch_size: int,
    augment: bool,
    precision: str,
    eval_every: int,
    test_batch_size: int,
    on_epoch: Callable[[list[dict]], None],
    progress: Callable[[int], None],
) -> tuple[nn.Module, list[dict]]:
    """Train one model by plain SGD. Returns it with a row an epoch, as in result/<run>/train/*.csv.

    The result depends on the arguments alone (on CPU: and on the number of threads). Raises ModelError for a loss
    that is not finite."""
    torch.manual_seed(seed)  # weights, and dropout in a user's network
    generator = torch.Generator().manual_seed(seed)
    model = build().to(pool.device, memory_format=torch.channels_last)
    sgd = OPTIMIZERS[optimizer](model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [lr_step])
    training_set, test_set = torch.from_numpy(training_set), torch.from_numpy(test_set)
    history, start = [], time.perf_counter()
    for epoch in range(1, epochs + 1):
        row = {"model": name, "epoch": epoch, "lr": sgd.param_groups[0]["lr"]}
        batches = epoch_batches(pool, training_set, generator, size=batch_size, augment=augment)
        loss, accuracy = train_epoch(model, sgd, pool, batches, precision=precision, progress=progress)
        if not math.isfinite(loss):
            raise ModelError(f"{name}: the loss is {loss} in epoch {epoch} at learning rate {lr:g}; lower --lr")
        schedule.step()
        test_loss, test_accuracy = None, None
        if epoch % eval_every == 0 or epoch == epochs:
            test_loss, test_accuracy = evaluate(model, pool, test_set, batch_size=test_batch_size, precision=precision)
            if not math.isfinite(test_loss):  # the last step of all has no training loss that would show it
                raise ModelError(f"{name}: the test loss is {test_loss} after epoch {epoch}; lower --lr")
        history.append(
            row
            | {"train_loss": loss, "train_accuracy": accuracy, "test_loss": test_loss}
            | {"test_accuracy": test_accuracy, "epsilon": None, "seconds": time.perf_counter() - start}
        )
        on_epoch(history)
    return model, history
