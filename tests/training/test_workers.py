"""Workers that share one store: who waits for whom; restarts, threads, signals."""

import os
import signal
import threading
from functools import partial

import pytest
import torch
import torch.distributed as dist

from lira.training import workers
from lira.training.workers import Workers, agree_on_restart
from tests.helpers.workers import in_threads, workers_of_a_run

# --- one store -----------------------------------------------------------------------------------------------------


def test_no_worker_leaves_before_all_have_finished():
    first, second = workers_of_a_run(2)
    order = []

    def fast():
        second.finish(lambda: order.append("waits"))
        order.append("left")

    def slow():
        while "waits" not in order:
            pass
        order.append("finished")
        first.finish(lambda: None)

    in_threads(fast, slow)
    assert order.index("finished") < order.index("left")


def test_one_worker_runs_first():
    first, second = workers_of_a_run(2)
    order = []

    def step(worker):
        with worker.run_first(0, "data"):
            order.append(worker.rank)

    in_threads(partial(step, second), partial(step, first))
    assert order == [0, 1]


def test_a_silent_worker_is_named(monkeypatch):
    """Stopped by SIGSTOP, or hanging on a disk: torchrun sees a living process. One that still trains is not named."""
    lines = []
    monkeypatch.setattr(workers, "SILENT_SECONDS", 0.5)
    waiting, also_waiting, silent, training = workers_of_a_run(4)
    named = threading.Event()
    monkeypatch.setattr(workers, "warn", lambda line: (lines.append(line), named.set()))

    def trains():
        while not named.wait(0.1):
            training.sign_of_life()
        training.barrier("end")

    def stopped():
        named.wait(60)
        silent.barrier("end")

    in_threads(partial(waiting.barrier, "end"), partial(also_waiting.barrier, "end"), trains, stopped)
    (line,) = lines
    assert line.startswith(f"waiting for worker 2 (process {os.getpid()} on ")
    assert "kill it" in line


def test_every_restart_begins_with_empty_counters():
    """Three starts with one store; machines count restarts each for themselves, and a worker dies while it joins."""
    store, ids = dist.HashStore(), set()
    for restart in range(3):
        store.add("joined", 1)  # by a worker that died at once
        counts = {2: 0, 1: restart, 0: 0}
        agreed = in_threads(*(partial(agree_on_restart, store, rank, 3, count) for rank, count in counts.items()))
        assert {restarts for restarts, _ in agreed} == {restart}
        (restart_id,) = {restart_id for _, restart_id in agreed}
        assert dist.PrefixStore(restart_id, store).add("turn", 1) == 1
        ids.add(restart_id)
    assert len(ids) == 3


# --- threads, signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local_size", "omp_num_threads", "threads"),
    [(1, None, 8), (1, "16", None), (2, "1", 4), (2, None, 4), (3, "1", 2), (16, "1", 1), (2, "3", None)],
)
def test_workers_divide_the_cores(local_size, omp_num_threads, threads, monkeypatch):
    """On 8 of a machine's 64 cores; threads None = unchanged. torchrun sets OMP_NUM_THREADS=1 where it is unset."""
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(workers, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp_num_threads:
        monkeypatch.setenv("OMP_NUM_THREADS", omp_num_threads)
    Workers(local_size=local_size).set_threads(None)
    assert calls == ([threads] if threads else [])
    Workers(local_size=local_size).set_threads(1)
    assert calls[-1] == 1, "--threads overrides the environment"


def test_a_single_worker_never_takes_more_threads_than_torch_would(monkeypatch):
    """OMP_NUM_THREADS=1, or half of the logical cores where two share a physical one."""
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(workers, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Workers().set_threads(None)
    assert calls == [1]


def test_sigterm_stops_a_single_worker_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Workers().stopped_by_signal():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
