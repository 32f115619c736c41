"""Which models a run has, in which order they are trained and by which worker."""

import threading
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from lira.training.schedule import format_models, planned_models, shard, turns
from lira.training.workers import Workers
from tests.helpers.workers import in_threads, workers_of_a_run


def test_targets_come_first():
    assert planned_models(2, 3) == [("target", 0), ("target", 1), ("shadow", 0), ("shadow", 1), ("shadow", 2)]


# --- turns ---------------------------------------------------------------------------------------------------------


def test_a_single_worker_takes_every_model_in_order():
    jobs = planned_models(2, 4)
    assert list(turns(jobs, Workers())) == jobs
    assert list(turns([], Workers())) == []


def test_a_model_is_taken_when_its_turn_comes_and_not_before():
    """Otherwise a model that another worker could train would wait for this one."""
    jobs = planned_models(1, 4)
    first, second = (turns(jobs, worker) for worker in workers_of_a_run(2))
    assert [next(first), next(second), next(second), next(second), next(first)] == jobs
    assert [*first, *second] == []


def test_each_model_is_taken_once_and_no_worker_waits_for_a_slow_one():
    workers, jobs, taken = workers_of_a_run(3), planned_models(1, 20), [[], [], []]
    all_taken = threading.Event()

    def train(worker):
        for job in turns(jobs, worker):
            taken[worker.rank].append(job)
            if sum(map(len, taken)) == len(jobs):
                all_taken.set()
            if worker.rank == 0:
                assert all_taken.wait(60)  # slow: until the others have taken all other models

    in_threads(*(partial(train, worker) for worker in workers))
    assert sorted(taken[0] + taken[1] + taken[2]) == sorted(jobs)
    assert len(taken[0]) <= 1


# --- names and shards ----------------------------------------------------------------------------------------------


def test_models_are_printed_as_ranges():
    assert format_models(planned_models(2, 20)) == "target_00 to target_01, shadow_00 to shadow_19"
    jobs = [("shadow", 3), ("shadow", 5), ("shadow", 4), ("target", 0), ("shadow", 123)]
    assert format_models(jobs) == "target_00, shadow_03 to shadow_05, shadow_123"
    assert format_models([]) == "none"


@given(st.integers(1, 9), st.integers(2, 60), st.integers(1, 70))
def test_shards_hold_every_model_once(n_targets, half_shadows, parts):
    jobs = planned_models(n_targets, 2 * half_shadows)
    shards = [shard(jobs, part, parts) for part in range(1, parts + 1)]
    assert sorted(job for part in shards for job in part) == sorted(jobs)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
