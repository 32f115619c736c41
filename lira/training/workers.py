"""The worker processes of a run, and the store through which they share out the models.

torchrun starts them and holds the store. Without torchrun there is one worker, with a store of its own."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import torch
import torch.distributed as dist

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Workers:
    """This process, number `rank` of `size` workers, on this machine `local_rank` of `local_size`. node: the machine.

    restarts: how often torchrun has restarted all workers. The store is empty after each: progress lies on disk."""

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
        """The worker with `first` completes the block before the others enter it, so they find what it created."""
        while not first and not self.add(step, 0):
            time.sleep(POLL_SECONDS)
        yield
        if first:
            self.add(step)

    def finish(self, while_waiting: Callable[[], None]) -> None:
        """Wait until every worker has come here.

        If a worker left early, torchrun would take its exit status for that of all, and the agent of another machine
        would not wait for it. The leader, whose process may hold the store, leaves last."""
        self.barrier("finished", while_waiting)
        if self.leader:
            self.barrier("left", while_waiting)
        else:
            self.add("left")

    def barrier(self, counter: str, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Add one to the counter and wait until all workers have. while_waiting(): called at every poll."""
        self.add(counter)
        while self.add(counter, 0) < self.size:
            while_waiting()
            time.sleep(POLL_SECONDS)

    @contextmanager
    def stopped_by_signal(self) -> Iterator[None]:
        """Inside, SIGTERM, by which a scheduler takes the machine away, stops a single worker like Ctrl-C. Several
        workers get it from torchrun, which may be about to restart them."""
        if self.size > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def set_threads(self, threads: int | None) -> None:
        """Use `threads` threads; with None, the workers of one machine divide its cores.

        OMP_NUM_THREADS above 1 was set by the user and is respected; torchrun sets 1 where it is unset."""
        if threads:
            torch.set_num_threads(threads)
        elif self.local_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
            torch.set_num_threads(max(1, _available_cores() // self.local_size))


def join_workers() -> Workers:
    """The workers that torchrun started this process with, or a single one."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return Workers()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RESTART_COUNT")
    rank, size, local_rank, local_size, node, restarts = (int(os.environ[name]) for name in names)
    store, _, _ = next(dist.rendezvous("env://"))
    restarts, restart_id = agree_on_restart(store, rank, size, restarts)
    return Workers(rank, size, local_rank, local_size, node, restarts, dist.PrefixStore(restart_id, store))


def agree_on_restart(store: dist.Store, rank: int, size: int, restarts: int) -> tuple[int, str]:
    """(restarts so far, restart id), the same for all workers. Under a new restart id the store is empty.

    With some rendezvous the store outlives a restart and still holds the counters of killed workers, and each machine
    counts restarts for itself. So each worker takes a number from the counter "joined", which no worker had before it,
    and the leader draws the id and sends it to every number."""
    if rank == 0:
        restarts = max(restarts, store.add("starts", 1) - 1)
        restart_id, n_sent = f"{restarts} {uuid4().hex}", 0
        while store.add(f"{restart_id}/received", 0) < size - 1:
            for number in range(n_sent + 1, store.add("joined", 0) + 1):
                store.set(f"restart id/{number}", restart_id)
                n_sent = number
            time.sleep(POLL_SECONDS)
        return restarts, restart_id
    number = store.add("joined", 1)
    while not store.check([f"restart id/{number}"]):
        time.sleep(POLL_SECONDS)
    restart_id = store.get(f"restart id/{number}").decode()
    store.add(f"{restart_id}/received", 1)
    return int(restart_id.split()[0]), restart_id


def _available_cores() -> int:
    """Cores that this process may use: a scheduler gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
