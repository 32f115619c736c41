"""The processes of one fleet: who they are, and the store through which they share out the work.

torchrun starts them and keeps the store; a process without torchrun is a fleet of one, with a store of its own."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import torch
import torch.distributed as dist

POLL = 0.2  # seconds


@dataclass(frozen=True)
class Workers:
    """This process among the fleet's. rank: of size; local_rank: of local_size, on this machine; node: the machine.

    restarts: how often torchrun has started the fleet anew. Each time the store begins empty: what counts lies on
    disk."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0
    restarts: int = 0
    store: dist.Store = field(default_factory=dist.HashStore)

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def add(self, counter: str, amount: int = 1) -> int:
        """Add to a counter that all workers share. Returns its new value."""
        return self.store.add(counter, amount)

    @contextmanager
    def run_first(self, first: bool, step: str) -> Iterator[None]:
        """A step that the worker with `first` finishes before the others begin: what it creates, they find."""
        while not first and not self.add(step, 0):
            time.sleep(POLL)
        yield
        if first:
            self.add(step)

    def finish(self, waiting=lambda: None) -> None:
        """Wait until every worker has come here. waiting(): called again and again meanwhile.

        Nobody leaves early: torchrun would take a failed worker's status for the fleet's, and another machine's agent
        would not wait for it. The leader, whose process may keep the store, leaves last."""
        self.barrier("finished", waiting)
        self.barrier("left", waiting) if self.leader else self.add("left")

    def barrier(self, counter: str, waiting=lambda: None) -> None:
        """Wait until the counter, to which every worker adds one, has reached all of them."""
        self.add(counter)
        while self.add(counter, 0) < self.size:
            waiting()
            time.sleep(POLL)

    @contextmanager
    def stopped_by_signal(self) -> Iterator[None]:
        """A scheduler that takes the machine away says so by SIGTERM: a worker alone stops as by Ctrl-C. To one of
        several it comes from torchrun, which may be about to start them anew."""
        if self.size > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def share_threads(self, threads: int | None = None) -> None:
        """threads, or, where nothing is said: on one machine the workers divide its cores.

        OMP_NUM_THREADS above 1 is the user's word and stays; 1 is what torchrun sets where nothing is said."""
        if threads:
            torch.set_num_threads(threads)
        elif self.local_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
            torch.set_num_threads(max(1, _cores() // self.local_size))


def join_workers() -> Workers:
    """The fleet that torchrun started this process in, or a fleet of one."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return Workers()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RESTART_COUNT")
    rank, size, local_rank, local_size, node, restarts = (int(os.environ[name]) for name in names)
    store, _, _ = next(dist.rendezvous("env://"))
    restarts, life = agree(store, rank, size, restarts)
    return Workers(rank, size, local_rank, local_size, node, restarts, dist.PrefixStore(life, store))


def agree(store: dist.Store, rank: int, size: int, restarts: int) -> tuple[int, str]:
    """(restarts so far, a name for this life of the fleet under which the store is empty), the same for all workers.

    With some rendezvous the store outlives a restart and is full of the dead's counters, and each machine counts
    restarts for itself. So the leader makes up a name, and tells it under numbers that no worker had before."""
    if rank == 0:
        restarts = max(restarts, store.add("lives", 1) - 1)
        life, answered = f"{restarts} {uuid4().hex}", 0
        while store.add(f"{life}/here", 0) < size - 1:
            for number in range(answered + 1, store.add("arrivals", 0) + 1):
                store.set(f"welcome/{number}", life)
                answered = number
            time.sleep(POLL)
        return restarts, life
    number = store.add("arrivals", 1)
    while not store.check([f"welcome/{number}"]):
        time.sleep(POLL)
    life = store.get(f"welcome/{number}").decode()
    store.add(f"{life}/here", 1)
    return int(life.split()[0]), life


def _cores() -> int:
    """Cores that this process may use: a scheduler gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
