"""The order of the models, and a failure that does not hold up the others."""

import io
import sys
import warnings

import pytest

from lira.errors import InputError, ModelError
from lira.training import schedule
from lira.training.progress import progress_bars


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bars(n_models=4, n_done=1, images_per_model=100, quiet=False) as bars:
        yield bars


def test_targets_come_first_each_by_its_name():
    jobs = schedule.plan(2, 3)
    assert jobs == [("target", 0), ("target", 1), ("shadow", 0), ("shadow", 1), ("shadow", 2)]
    assert [schedule.job_name(job) for job in [*jobs[:3], ("shadow", 12), ("shadow", 123)]] == [
        "target_00", "target_01", "shadow_00", "shadow_12", "shadow_123",
    ]  # fmt: skip


def test_every_job_is_trained_in_turn_and_failures_are_collected(shown):
    done = []

    def train_one(job):
        done.append(job)
        if job == ("shadow", 0):
            raise ModelError("shadow_00: the loss is nan")
        shown.images(100)

    jobs = schedule.plan(1, 2)
    assert schedule.train_all(jobs, train_one, shown) == {"shadow_00": "shadow_00: the loss is nan"}
    assert done == jobs


@pytest.mark.parametrize("error", [InputError("disk"), KeyboardInterrupt(), ZeroDivisionError()])
def test_what_is_not_one_models_failure_stops_the_fleet(shown, error):
    done = []

    def train_one(job):
        done.append(job)
        raise error

    with pytest.raises(type(error)):
        schedule.train_all(schedule.plan(1, 2), train_one, shown)
    assert done == [("target", 0)]


def test_no_jobs_is_no_work(shown):
    assert schedule.train_all([], lambda job: pytest.fail("nothing to train"), shown) == {}


def bars_after(quiet):
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", err)
        with progress_bars(n_models=4, n_done=1, images_per_model=100, quiet=quiet) as bars:

            def train_one(job):
                if job == ("shadow", 1):
                    raise ModelError("no")
                bars.images(60)
                bars.epoch({"epoch": 3, "train_loss": 0.25, "train_accuracy": 0.5})
                bars.images(40)

            schedule.train_all(schedule.plan(1, 2), train_one, bars)
    return err.getvalue()


def test_bars_count_complete_models_and_forget_the_images_of_a_failed_one():
    last = bars_after(quiet=False).replace("\r", "\n")
    assert "3/4 models: 100%" in last
    assert "200/200" in last


def test_quiet_bars_say_nothing():
    assert bars_after(quiet=True) == ""


def test_warnings_are_written_above_the_bars(monkeypatch):
    """One line each, through tqdm, without the two lines of source that Python prints."""
    said = []
    monkeypatch.setattr(schedule, "say", said.append)
    with progress_bars(n_models=1, n_done=0, images_per_model=1, quiet=True), warnings.catch_warnings():
        warnings.simplefilter("always")
        showing = warnings.showwarning
        showing(UserWarning("a library grumbles"), UserWarning, "file.py", 3)
    assert said == ["UserWarning: a library grumbles"]
    assert warnings.showwarning is not showing
