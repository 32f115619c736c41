"""Workers that share one store: who trains what, who waits for whom; restarts, threads, signals."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.distributed as dist

from lira.training.progress import ProgressBars
from lira.training.schedule import planned_models, train_all
from lira.training.workers import Workers, agree_on_restart


def workers_of_a_run(n):
    """n workers for threads of this process."""
    store = dist.HashStore()
    return [Workers(rank, n, rank, n, store=store) for rank in range(n)]


def in_threads(*calls):
    with ThreadPoolExecutor(len(calls)) as executor:
        return [future.result(timeout=60) for future in [executor.submit(call) for call in calls]]


# --- one store -----------------------------------------------------------------------------------------------------


def test_each_model_is_trained_once_and_no_worker_waits_for_a_slow_one():
    workers, jobs, trained = workers_of_a_run(3), planned_models(1, 20), [[], [], []]
    all_started = threading.Event()

    def train(worker):
        def train_one(job):
            trained[worker.rank].append(job)
            if worker.rank == 0:
                all_started.wait(60)  # slow: until the others have taken all other models
            if sum(map(len, trained)) == len(jobs):
                all_started.set()

        settings = dict(n_models=len(jobs), n_done=0, images_per_model=10, quiet=True, count_done=lambda: 0)
        bars = ProgressBars(**settings, workers=worker)
        train_all(jobs, train_one, bars, workers=worker, is_done=lambda job: False)

    in_threads(*(partial(train, worker) for worker in workers))
    assert sorted(trained[0] + trained[1] + trained[2]) == sorted(jobs)
    assert len(trained[0]) <= 1
    assert workers[0].add("trained", 0) == len(jobs)


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
        with worker.run_first(worker.leader, "data"):
            order.append(worker.rank)

    in_threads(partial(step, second), partial(step, first))
    assert order == [0, 1]


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
    [(1, "1", None), (2, "1", 4), (2, None, 4), (3, "1", 2), (16, "1", 1), (2, "3", None)],
)
def test_workers_divide_the_cores(local_size, omp_num_threads, threads, monkeypatch):
    """On 8 cores; threads None = unchanged. torchrun sets OMP_NUM_THREADS=1 where it is unset."""
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp_num_threads:
        monkeypatch.setenv("OMP_NUM_THREADS", omp_num_threads)
    Workers(local_size=local_size).set_threads(None)
    assert calls == ([threads] if threads else [])
    Workers(local_size=local_size).set_threads(1)
    assert calls[-1] == 1, "--threads overrides the environment"


def test_sigterm_stops_a_single_worker_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Workers().stopped_by_signal():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
