"""Who trains what: workers that share one store, parts of a fleet, GPUs, threads, the bar, the forecast."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

import common
from lira.errors import InputError, ModelError
from lira.training.cost import Cost, wall_clock_seconds
from lira.training.progress import ProgressBars
from lira.training.schedule import plan, shard, spell, train_all
from lira.training.workers import Workers, agree
from util import parse_args


def workers(n, **more):
    """n workers of one fleet, for threads of this process."""
    store = dist.HashStore()
    return [Workers(rank, n, rank, n, store=store, **more) for rank in range(n)]


def bars(worker=None, *, n_models, **more):
    return ProgressBars(n_models=n_models, n_done=0, images_per_model=10, quiet=True, workers=worker, **more)


def together(*calls):
    with ThreadPoolExecutor(len(calls)) as store:
        return [future.result(timeout=60) for future in [store.submit(call) for call in calls]]


# --- handing out ---------------------------------------------------------------------------------------------------


def test_each_model_is_handed_out_once_and_a_slow_worker_holds_nobody_up():
    fleet, jobs, trained = workers(3), plan(1, 20), [[], [], []]
    others_done = threading.Event()

    def work(worker):
        def train(job):
            trained[worker.rank].append(job)
            if worker.rank == 0:
                others_done.wait(60)  # slow: as long as the others still find work
            if sum(map(len, trained)) == len(jobs):
                others_done.set()

        return train_all(jobs, train, bars(worker, n_models=len(jobs)), workers=worker)

    assert together(*(lambda worker=worker: work(worker) for worker in fleet)) == [{}, {}, {}]
    assert sorted(trained[0] + trained[1] + trained[2]) == sorted(jobs)
    assert len(trained[0]) <= 1


def test_what_is_settled_is_asked_when_its_turn_comes_and_not_trained_again():
    """Another fleet completes shadow_02 while this one trains shadow_00."""
    jobs, on_disk, trained = plan(1, 4), {("target", 0)}, []

    def train(job):
        trained.append(job)
        on_disk.update({job, ("shadow", 2)})

    train_all(jobs, train, bars(n_models=5), settled=on_disk.__contains__)
    assert trained == [("shadow", 0), ("shadow", 1), ("shadow", 3)]


def test_the_others_go_on_after_a_failure():
    def train(job):
        if job == ("shadow", 1):
            raise ModelError("shadow_01: the loss is nan")

    failed = train_all(plan(1, 4), train, bars(n_models=5))
    assert failed == {"shadow_01": "shadow_01: the loss is nan"}


def test_nobody_leaves_before_all_have_finished():
    first, second = workers(2)
    order = []

    def fast():
        second.finish(lambda: order.append("waits"))
        order.append("left")

    def slow():
        while "waits" not in order:
            pass
        order.append("finished")
        first.finish()

    together(fast, slow)
    assert order.index("finished") < order.index("left")


def test_one_worker_goes_first():
    first, second = workers(2)
    order = []

    def step(worker):
        with worker.after(worker.leader, "data"):
            order.append(worker.rank)

    together(lambda: step(second), lambda: step(first))
    assert order == [0, 1]


def test_each_life_of_a_fleet_begins_with_empty_counters():
    """One store for three lives, in which machines count restarts each for itself and workers die while they join."""
    store, names = dist.HashStore(), set()
    for life in range(3):
        store.add("arrivals", 1)  # of a worker that died at once
        counts = {2: 0, 1: life, 0: 0}
        told = together(*(partial(agree, store, rank, 3, count) for rank, count in counts.items()))
        assert {restarts for restarts, _ in told} == {life}
        (name,) = {name for _, name in told}
        assert dist.PrefixStore(name, store).add("turn", 1) == 1
        names.add(name)
    assert len(names) == 3


# --- parts of a run ------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(2, 60), st.integers(1, 70))
def test_parts_share_out_every_model_once(n_targets, half_shadows, parts):
    jobs = plan(n_targets, 2 * half_shadows)
    cut = [shard(jobs, part, parts) for part in range(1, parts + 1)]
    assert sorted(job for part in cut for job in part) == sorted(jobs)
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_spell():
    jobs = plan(2, 20)
    assert spell(jobs) == "target_00 to target_01, shadow_00 to shadow_19"
    assert spell([("shadow", 3), ("shadow", 5), ("shadow", 4), ("target", 0)]) == "target_00, shadow_03 to shadow_05"
    assert spell([]) == "none"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "/4", "-1/4", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--shard: must be I/N with I from 1 to N"):
        parse_args([f"--shard={text}"], description="")


def test_a_part():
    assert parse_args(["--shard", "2/4"], description="").run.shard == (2, 4)


# --- devices, threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "local_rank", "gpu"), [("auto", 0, 0), ("auto", 5, 1), ("cuda", 2, 0), ("cuda:1", 0, 1)]
)
def test_workers_take_the_gpus_in_turn(name, local_rank, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert common.resolve_device(name, local_rank=local_rank) == torch.device("cuda", gpu)


@pytest.mark.parametrize(
    ("local_size", "said", "threads"),
    [(1, "1", None), (2, "1", 4), (2, None, 4), (3, "1", 2), (16, "1", 1), (2, "3", None)],
)
def test_workers_divide_the_cores(local_size, said, threads, monkeypatch):
    """On 8 cores; None = left as it is. torchrun sets OMP_NUM_THREADS=1 where nothing is said."""
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    Workers(local_size=local_size).share_threads()
    assert chosen == ([threads] if threads else [])
    Workers(local_size=local_size).share_threads(1)
    assert chosen[-1] == 1, "--threads is the user's word, whatever the launcher sets"


def test_a_worker_alone_stops_by_sigterm_as_by_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Workers().stopped_by_signal():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


# --- the bar -------------------------------------------------------------------------------------------------------


def test_the_leaders_bar_counts_the_images_of_all_and_the_models_on_disk():
    leader, other = workers(2)
    on_disk = 1
    shown = ProgressBars(
        n_models=4, n_done=1, images_per_model=100, quiet=False, workers=leader, count_done=lambda: on_disk
    )
    theirs = bars(other, n_models=4)
    theirs._per_model = 100
    shown.start_model("shadow_00")
    theirs.start_model("shadow_01")
    shown.images(30)
    theirs.resume_model(0.5)
    theirs.images(20)
    theirs.tell()
    shown.tell()
    assert (shown._fleet.n, shown._fleet.total) == (50, 50 + 300 - 30 - 70)
    theirs.images(30)
    on_disk = 2
    theirs.end_model(trained=True)
    shown.end_model(trained=False)
    assert (shown._fleet.n, shown._fleet.total) == (80, 80 + 100)
    assert shown._fleet.desc.startswith("2/4 models")
    shown.close()


# --- the forecast --------------------------------------------------------------------------------------------------


def test_forecast_of_workers_that_share_models_out():
    assert wall_clock_seconds([10] * 21, 1, 1.0) == 210
    assert wall_clock_seconds([10] * 21, 4, 1.0) == 60  # six rounds, the last for one model
    assert wall_clock_seconds([10] * 21, 4, 2.0) == 120
    assert wall_clock_seconds([], 4, 1.0) == 0


def test_cost_of_a_model():
    cost = Cost(train_rate=100.0, query_rate=1000.0, weights=0, state=0, memory=0)
    assert cost.seconds(500, 2000, epochs=10, evaluations=3) == pytest.approx(10 * 5 + 3 * 2)


def test_plan_of_two_workers(tmp_path):
    """Both measure; the leader says what one and what two will need, and nothing is written."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(common.__file__).parent
    flags = [
        "--dataset",
        "digits",
        "--network",
        "tests.helpers.networks:tiny",
        "--disable-dp",
        "--plan",
        "--device",
        "cpu",
        "--quiet",
    ]
    done = subprocess.run(
        [*torchrun, f"{root}/train_model.py", *flags], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(root)}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {"1 worker", "2 workers", "there is"} <= set(rows), done.stdout
    assert not list(tmp_path.iterdir())
