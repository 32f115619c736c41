"""The worker processes of a run, and the store through which they share out the models.

torchrun starts them and holds the store. Without torchrun there is one worker, with a store of its own."""

import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from uuid import uuid4

import torch
import torch.distributed as dist
from joblib import cpu_count

from lira.errors import warn

POLL_SECONDS = 0.2
SILENT_SECONDS = 300.0  # without a sign of life: a worker that others wait for is named


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

    def __post_init__(self) -> None:
        self.store.set(f"process/{self.rank}", f"process {os.getpid()} on {platform.node()}")

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def add(self, counter: str, amount: int = 1) -> int:
        """Add to a counter that all workers share. Returns its new value."""
        return self.store.add(counter, amount)

    def sign_of_life(self) -> None:
        """To be called about once a second while this worker works and others may wait for it."""
        self.add(f"signs of life/{self.rank}")

    @contextmanager
    def run_first(self, first: int, step: str) -> Iterator[None]:
        """The worker of rank `first` completes the block before the others enter it, so they find what it created."""
        if self.rank != first:
            self._wait({step: first})
        yield
        if self.rank == first:
            self.store.set(step, "")

    def finish(self, while_waiting: Callable[[], object]) -> None:
        """Wait until every worker has come here.

        If a worker left early, torchrun would take its exit status for that of all, and the agent of another machine
        would not wait for it. The leader, whose process may hold the store, leaves last."""
        self.barrier("finished", while_waiting)
        if self.leader:
            self.barrier("left", while_waiting)
        else:
            self.store.set(f"left/{self.rank}", "")

    def barrier(self, step: str, while_waiting: Callable[[], object] = lambda: None) -> None:
        """Wait until all workers have come to this step. while_waiting(): called at every poll."""
        self.store.set(f"{step}/{self.rank}", "")
        self._wait({f"{step}/{rank}": rank for rank in range(self.size)}, while_waiting)

    def _wait(self, done: Mapping[str, int], while_waiting: Callable[[], object] = lambda: None) -> None:
        """Poll until the store holds every key of `done`: key -> the rank that sets it.

        A worker may be stopped, or hang on its disk or GPU, and torchrun sees a living process. So the first of the
        waiting workers names those that have set no key and shown no sign of life for SILENT_SECONDS."""
        signs, last_look = self._signs_of_life(done), time.monotonic()
        while not self.store.check(list(done)):
            while_waiting()
            time.sleep(POLL_SECONDS)
            if time.monotonic() - last_look > SILENT_SECONDS:
                before, signs, last_look = signs, self._signs_of_life(done), time.monotonic()
                silent = [rank for rank, n in signs.items() if n == before[rank]]
                if self.rank == next(rank for rank in count(min(done.values())) if rank not in signs):
                    for rank in silent:
                        warn(
                            f"waiting for worker {rank} ({self._process(rank)}), without a sign "
                            f"of life for {SILENT_SECONDS / 60:.0f} minutes: if it hangs, kill it, and torchrun starts "
                            "all workers again (--max-restarts); or run the same command again"
                        )

    def _process(self, rank: int) -> str:
        key = f"process/{rank}"
        return self.store.get(key).decode() if self.store.check([key]) else "which has not joined yet"

    def _signs_of_life(self, done: Mapping[str, int]) -> dict[int, int]:
        """Rank -> number of signs of life so far, of the workers that have not set their key."""
        return {rank: self.add(f"signs of life/{rank}", 0) for key, rank in done.items() if not self.store.check([key])}

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
        """Use `threads` threads; with None, the workers of one machine divide the cores that they may use.

        Cores are counted with the affinity that a scheduler sets and the quota of a container, where torch alone takes
        all of the machine's. OMP_NUM_THREADS above 1 was set by the user and is respected; torchrun sets 1 where it is
        unset."""
        if threads:
            torch.set_num_threads(threads)
        elif os.environ.get("OMP_NUM_THREADS", "1") == "1":
            share = max(1, cpu_count() // self.local_size)
            torch.set_num_threads(share if self.local_size > 1 else min(share, torch.get_num_threads()))


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
