"""What the rest of a run will cost: a few steps are timed, and hours, disk and memory estimated from them."""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lira.errors import plural
from lira.training.workers import Workers

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEASURE_SECONDS = 2.0  # for training steps, and as many for evaluation


@dataclass(frozen=True)
class Cost:
    """What one worker was measured to need. Rates in images/s, the rest in bytes."""

    train_rate: float
    query_rate: float
    weights: int
    state: int  # of an unfinished model: weights, optimizer, generators
    memory: int
    slowdown: float = 1.0  # of each worker while all of them train

    def seconds(self, n_train: int, n_test: int, *, epochs: int, eval_every: int) -> float:
        """For the missing `epochs` of one model on n_train images, evaluated every few epochs on n_test images."""
        return epochs * n_train / self.train_rate + math.ceil(epochs / eval_every) * n_test / self.query_rate


def measure_cost(
    workers: Workers,
    take_steps: Callable[[int], int],
    evaluate: Callable[[], int],
    state_dict: Callable[[], Mapping[str, Any]],
    device: torch.device,
) -> Cost | None:
    """The leader's Cost while the other workers wait, with the slowdown when all train; None for the others. Every
    worker has to call it.

    take_steps(n): take n training steps; evaluate(): a few batches; both return their number of images. state_dict():
    what a resume file holds, of it "weights" is published."""

    def train_rate() -> float:
        take_steps(2)  # the first steps choose algorithms, compile and allocate memory
        return _rate(lambda: take_steps(10))

    cost = None
    if workers.leader:
        evaluate()
        rates, state = (train_rate(), _rate(evaluate)), state_dict()
        weights = _n_bytes(state["weights"])
        cost = Cost(*rates, weights=weights, state=_n_bytes(state), memory=_memory_used(device))
    if workers.size == 1:
        return cost
    workers.barrier("ready to measure together")
    workers.add("sum of train rates", round(1000 * train_rate()))
    workers.barrier("all measured")
    mean_rate = workers.add("sum of train rates", 0) / 1000 / workers.size
    return replace(cost, slowdown=max(1.0, cost.train_rate / mean_rate)) if cost else None


def _rate(step: Callable[[], int]) -> float:
    """Images/s of step(), which returns its number of images."""
    start, images = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < MEASURE_SECONDS:
        images += step()
    return images / seconds


def _n_bytes(state: Any) -> int:
    """Of all tensors in nested mappings and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    items = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(_n_bytes, items))


def _memory_used(device: torch.device) -> int:
    """The peak of this process in bytes: on the GPU if it trains there, otherwise of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _memory_total(device: torch.device) -> int:
    """Bytes of the GPU, or of the machine; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def _free_disk(path: Path) -> int:
    """Free bytes where path is or will be."""
    path = path.resolve()
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def describe_cost(cost: Cost, seconds: Sequence[float], workers: Workers, *, folder: Path, device: torch.device) -> str:
    """A table of hours, disk and memory for one worker and for all of them. seconds: of each missing model, alone."""
    disk_free, memory_total = _free_disk(folder), _memory_total(device)
    n_devices = torch.cuda.device_count() if device.type == "cuda" else 1
    rows = [("", "time", "disk", "memory")]
    for n in sorted({1, workers.size}):
        wall = wall_clock_seconds(seconds, n, cost.slowdown if n > 1 else 1.0)
        disk = len(seconds) * cost.weights + min(n, len(seconds)) * cost.state
        memory = cost.memory * math.ceil(min(n, workers.local_size) / n_devices)
        rows.append((plural(n, "worker"), duration(wall), _size(disk), _size(memory)))
    rows.append(("available", "", f"{_size(disk_free)} free", _size(memory_total) if memory_total else "?"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    needs = (("disk", disk, disk_free), ("memory", memory, memory_total))
    lines += [f"not enough {name}" for name, needed, limit in needs if limit and needed > limit]
    rates = f"{cost.train_rate:,.0f} images/s in training, {cost.query_rate:,.0f} images/s in queries"
    return "\n".join([f"measured: {rates}", *lines])


def wall_clock_seconds(seconds: Sequence[float], n_workers: int, slowdown: float) -> float:
    """Wall-clock seconds until all models are trained. seconds: of each model on a worker alone; n_workers take them
    one by one, and each is slower by the factor `slowdown` while the others train."""
    free_at = [0.0] * n_workers
    for duration in seconds:
        free_at[free_at.index(min(free_at))] += duration * slowdown
    return max(free_at)


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{math.ceil(seconds / 60)} min"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{math.ceil(n_bytes / 1e6)} MB"
