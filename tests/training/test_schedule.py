"""Which models a run has and in which order they are trained; a failed one does not stop the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lira.errors import InputError, ModelError
from lira.training.progress import ProgressBars
from lira.training.schedule import format_models, planned_models, shard, train_all
from lira.training.workers import Workers

JOBS = [("target", 0), ("shadow", 0), ("shadow", 1)]


def train(jobs, train_one, *, is_done=lambda job: False):
    """train_all() by one worker. Returns (models trained, models failed)."""
    workers = Workers()
    bars = ProgressBars(
        n_models=len(jobs), n_done=0, images_per_model=100, quiet=True, workers=workers, count_done=lambda: 0
    )
    train_all(jobs, train_one, bars, workers=workers, is_done=is_done)
    return workers.add("trained", 0), workers.add("failed", 0)


def test_targets_come_first():
    assert planned_models(2, 3) == [("target", 0), ("target", 1), ("shadow", 0), ("shadow", 1), ("shadow", 2)]


def test_every_model_is_trained_in_turn_and_the_others_continue_after_a_failure():
    started = []

    def train_one(job):
        started.append(job)
        if job == ("shadow", 0):
            raise ModelError("shadow_00: the loss is nan")

    assert train(JOBS, train_one) == (2, 1)
    assert started == JOBS


@pytest.mark.parametrize("error", [InputError("disk"), KeyboardInterrupt(), ZeroDivisionError()])
def test_other_errors_stop_the_run(error):
    started = []

    def train_one(job):
        started.append(job)
        raise error

    with pytest.raises(type(error)):
        train(JOBS, train_one)
    assert started == [("target", 0)]


def test_without_missing_models_nothing_is_trained():
    assert train([], lambda job: pytest.fail("nothing to train")) == (0, 0)


def test_whether_a_model_is_done_is_looked_up_when_its_turn_comes():
    """Another process completes shadow_02 while this one trains shadow_00."""
    on_disk, started = {("target", 0)}, []

    def train_one(job):
        started.append(job)
        on_disk.update({job, ("shadow", 2)})

    assert train(planned_models(1, 4), train_one, is_done=on_disk.__contains__) == (3, 0)
    assert started == [("shadow", 0), ("shadow", 1), ("shadow", 3)]


def test_models_are_printed_as_ranges():
    assert format_models(planned_models(2, 20)) == "target_00 to target_01, shadow_00 to shadow_19"
    jobs = [("shadow", 3), ("shadow", 5), ("shadow", 4), ("target", 0), ("shadow", 123)]
    assert format_models(jobs) == "target_00, shadow_03 to shadow_05, shadow_123"
    assert format_models([]) == "none"


# --- shards --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(2, 60), st.integers(1, 70))
def test_shards_hold_every_model_once(n_targets, half_shadows, parts):
    jobs = planned_models(n_targets, 2 * half_shadows)
    shards = [shard(jobs, part, parts) for part in range(1, parts + 1)]
    assert sorted(job for part in shards for job in part) == sorted(jobs)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
