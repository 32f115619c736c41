"""What the rest of a run will cost: a few steps timed, hours, disk and memory counted from them."""

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from lira.data.store import ImageStore
from lira.training.kernels import fast_kernels
from lira.training.loop import Trainer, evaluate, train_epoch
from lira.training.workers import Workers

SECONDS = 2.0  # that are spent on training steps, and at most as many on questions


@dataclass(frozen=True)
class Cost:
    """What one worker was seen to need. Rates in images/s, the rest in bytes."""

    train_rate: float
    query_rate: float
    weights: int
    state: int  # of an unfinished model: weights, optimizer, generators
    memory: int
    slowdown: float = 1.0  # of each worker, when all of them train at the same time

    def seconds(self, n_train: int, n_test: int, *, epochs: int, evaluations: int) -> float:
        """For one model that lacks `epochs`, on n_train images each, tested on n_test images."""
        return epochs * n_train / self.train_rate + evaluations * n_test / self.query_rate


def measure_cost(workers: Workers, *args, **settings) -> Cost:
    """The leader's Cost with the machine to itself, and how much slower all workers are beside each other.

    Arguments as for measure_alone(); every worker has to call it."""
    with workers.run_first(workers.leader, "measured alone"):
        alone = measure_alone(*args, **settings) if workers.leader else None
    if workers.size == 1:
        return alone
    workers.barrier("begin together")
    workers.add("rates together", round(1000 * measure_alone(*args, **settings).train_rate))
    workers.barrier("measured together")
    mean = workers.add("rates together", 0) / 1000 / workers.size
    return replace(alone, slowdown=max(1.0, alone.train_rate / mean)) if workers.leader else None


def measure_alone(
    build, store: ImageStore, training_set: np.ndarray, test_set: np.ndarray, *,
    optimizer: str, batch_size: int, test_batch_size: int, augment: bool, precision: str, make_private=None,
    compiled: bool = False,
) -> Cost:  # fmt: skip
    """Train a throw-away model for a few steps. training_set, test_set: int64 indices into the store."""
    training_set, test_set = torch.from_numpy(training_set), torch.from_numpy(test_set)
    work = Trainer(
        "plan", build, store.device, seed=0, lr=1e-4, lr_step=1, optimizer=optimizer, make_private=make_private,
        compiled=compiled,
    )  # fmt: skip

    def train(n_batches: int) -> int:
        seen, batches = [], work.batches(store, training_set, size=batch_size, augment=augment)
        some = islice(batches, n_batches)
        train_epoch(work.model, work.optimizer, store, some, precision=precision, progress=seen.append)
        return sum(seen)

    def ask() -> int:
        some = test_set[: 2 * test_batch_size]
        evaluate(work.model, store, some, batch_size=test_batch_size, precision=precision)
        return len(some)

    with fast_kernels(store.device, precision, same_sizes=not make_private):
        train(2)  # the first steps choose algorithms, compile and take memory
        if compiled:
            ask()
        train_rate, query_rate = _rate(lambda: train(10)), _rate(ask)
    return Cost(
        train_rate=train_rate,
        query_rate=query_rate,
        weights=sum(t.nbytes for t in _tensors(dict(work.model.state_dict()))),
        state=sum(t.nbytes for t in _tensors(work.state_dict())),
        memory=_memory_used(store.device),
    )


def _rate(work) -> float:
    """Images a second of work(), which returns how many it saw."""
    start, images = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < SECONDS:
        images += work()
    return images / spent


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _memory_used(device: torch.device) -> int:
    """The most that this process has held so far: on the GPU where it trains there, else of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        from resource import RUSAGE_SELF, getrusage  # not on Windows
    except ImportError:
        return 0
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _memory_here(device: torch.device) -> int:
    """Bytes of the card, or of the machine; 0 where that is unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def _free_disk(path: Path) -> int:
    """Bytes free where path lies or will lie."""
    path = path.resolve()
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def describe_cost(cost: Cost, seconds: Sequence[float], workers: Workers, *, folder: Path, device: torch.device) -> str:
    """A table of hours, disk and memory for one worker and for all of them. seconds: what each missing model takes."""
    free, here = _free_disk(folder), _memory_here(device)
    devices = torch.cuda.device_count() if device.type == "cuda" else 1
    rows = [("", "time", "disk", "memory")]
    for n in sorted({1, workers.size}):
        wall = wall_clock_seconds(seconds, n, cost.slowdown if n > 1 else 1.0)
        disk = len(seconds) * cost.weights + min(n, len(seconds)) * cost.state
        memory = cost.memory * math.ceil(min(n, workers.local_size) / devices)
        who = f"{n} workers" if n > 1 else "1 worker"
        rows.append((who, _duration(wall), _size(disk), _size(memory)))
    rows.append(("there is", "", f"{_size(free)} free", _size(here) if here else "?"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    short = [what for what, need, limit in (("disk", disk, free), ("memory", memory, here)) if limit and need > limit]
    lines += [f"there is not enough {what} for that" for what in short]
    rates = f"{cost.train_rate:,.0f} images/s in training, {cost.query_rate:,.0f} when asked"
    return "\n".join([f"timed: {rates}", *lines])


def wall_clock_seconds(seconds: Sequence[float], workers: int, slowdown: float) -> float:
    """Wall-clock seconds of models that take `seconds` each for a worker alone, handed out one by one to `workers`
    that are each slower by `slowdown` beside the others."""
    free_at = [0.0] * workers
    for one in seconds:
        free_at[free_at.index(min(free_at))] += one * slowdown
    return max(free_at)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{math.ceil(seconds / 60)} min"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{math.ceil(n_bytes / 1e6)} MB"
