"""Competitors in processes of their own, so that peak memory is theirs, whose rounds alternate."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

Prepare = Callable[..., Callable[[], Any]]  # arguments -> one round, which returns what was measured


def _serve(prepare: Prepare, arguments: tuple[Any, ...], pipe: Connection) -> None:
    """A round for every True received."""
    one_round = prepare(*arguments)
    while pipe.recv():
        pipe.send(one_round())


def alternate(
    prepare: Prepare,
    competitors: Mapping[str, tuple[Any, ...]],
    rounds: int,
    after_each: Callable[[], Any] = lambda: None,
) -> tuple[list[dict[str, Any]], list[Any]]:
    """(what each competitor, by name, measured in each round, what after_each() returned): every one is warmed up by a
    round that is not counted. competitors: the arguments of prepare(). Raises EOFError if a process ends."""
    spawn, pipes, measured, between = multiprocessing.get_context("spawn"), {}, [], []
    processes = []
    for name, arguments in competitors.items():
        pipes[name], remote = spawn.Pipe()
        processes.append(spawn.Process(target=_serve, args=(prepare, arguments, remote)))
        processes[-1].start()
        remote.close()
    for number in range(rounds + 1):
        by_name = {}
        for name, pipe in pipes.items():
            pipe.send(True)
            by_name[name] = pipe.recv()
        if number:
            measured.append(by_name)
            between.append(after_each())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return measured, between


def now(device: torch.device) -> float:
    """Seconds, when the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> int:
    """Bytes, of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
