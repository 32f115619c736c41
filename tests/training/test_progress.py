"""Progress: bars on a terminal, lines elsewhere; images of all workers, models on disk, nothing of a failed model."""

import contextlib
import io
import re
import sys
import warnings

import pytest

from lira.errors import InputError, ModelError
from lira.training import progress
from lira.training.progress import ProgressBars, progress_bars
from lira.training.workers import Workers
from tests.helpers.workers import workers_of_a_run


def written(*, quiet=False, terminal=False, n_done=1):
    """What is written while a target and a shadow are trained, and a second shadow fails."""
    stderr, complete = io.StringIO(), {"target_01"}
    stderr.isatty = lambda: terminal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        settings = dict(n_models=4, n_done=1, images_per_model=100, quiet=quiet)
        with progress_bars(**settings, workers=Workers(), count_done=lambda: len(complete)) as bars:
            for name in ("target_00", "shadow_00", "shadow_01"):
                with contextlib.suppress(ModelError), bars.model(name):
                    if name == "shadow_01":
                        raise ModelError("shadow_01: no")
                    bars.images(60)
                    bars.epoch({"epoch": 3, "train_loss": 0.25, "train_accuracy": 0.5, "seconds": 90.0})
                    bars.images(40)
                    complete.add(name)
    return stderr.getvalue()


def test_bars_count_complete_models_and_forget_the_images_of_a_failed_one():
    lines = written(terminal=True).replace("\r", "\n")
    assert "3/4 models: 100%" in lines
    assert "200/200" in lines


def test_elsewhere_each_model_is_one_line():
    assert written().splitlines() == [
        "target_00: 1.5 min, training accuracy 50.0% (2 of 4 models complete)",
        "shadow_00: 1.5 min, training accuracy 50.0% (3 of 4 models complete)",
        "shadow_01: no (3 of 4 models complete)",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_and_finished_runs_write_nothing(terminal, monkeypatch):
    assert written(quiet=True, terminal=terminal) == ""
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bars(n_models=4, n_done=4, images_per_model=9, quiet=False, workers=Workers(), count_done=lambda: 4):
        pass
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(("n_workers", "expected"), [(1, "16 min left for 5 models"), (2, "10 min left for 5 models")])
def test_one_forecast_of_the_whole_run_from_what_follows_the_first_epoch(monkeypatch, n_workers, expected):
    """After 100 + 80 images of a model, at 4 images/s per worker; 5 models of 800 are left. One worker: (5 x 800 - 180)
    / 4 s. Two: 620 / 4 s to the end of two models, then 200 s for two more and 200 s for the last, alone."""
    lines, now = [], 0.0
    monkeypatch.setattr(progress, "log", lines.append)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    workers = [bars_of(worker, n_models=6, images_per_model=800, quiet=False) for worker in workers_of_a_run(n_workers)]
    with contextlib.ExitStack() as training:
        for name, bars in zip(("shadow_00", "shadow_01"), workers, strict=False):
            training.enter_context(bars.model(name))
        for seconds in (100, 20, 30, 50):  # the first epoch is slow
            now += seconds
            for bars in reversed(workers):
                bars.images(100 if seconds == 100 else 4 * seconds)
                bars.epoch({"epoch": 1, "train_loss": None})
        (line,) = lines
    assert line.startswith(f"about {expected} on {n_workers} worker{'s' if n_workers > 1 else ''} at {4 * n_workers} ")
    assert re.fullmatch(r".* images/s: done about \w{3} \d\d:\d\d", line)


def test_a_run_of_seconds_is_not_forecast(monkeypatch):
    monkeypatch.setattr(progress, "log", pytest.fail)
    bars = bars_of(Workers(), quiet=False)
    bars._logs = False
    with bars.model("shadow_00"):
        for _ in range(20):
            bars.images(5)
            bars.epoch({"epoch": 1, "train_loss": None})


def test_warnings_are_written_above_the_bars(monkeypatch):
    """One line each, through tqdm, without the two source lines that Python prints."""
    written = []
    monkeypatch.setattr(progress, "warn", written.append)
    settings = dict(n_models=1, n_done=0, images_per_model=1, quiet=True, workers=Workers(), count_done=lambda: 0)
    with progress_bars(**settings), warnings.catch_warnings():
        warnings.simplefilter("always")
        inside = warnings.showwarning
        inside(UserWarning("deprecated"), UserWarning, "file.py", 3)
    assert written == ["UserWarning: deprecated"]
    assert warnings.showwarning is not inside


def bars_of(workers, **changed):
    settings = dict(n_models=4, n_done=1, images_per_model=100, quiet=True, count_done=lambda: 1)
    return ProgressBars(**settings | changed, workers=workers)


@pytest.mark.parametrize(
    ("error", "trained", "failed"),
    [
        (None, 1, 0),
        (ModelError("the loss is nan"), 0, 1),
        *[(error, 0, 0) for error in (InputError("disk"), KeyboardInterrupt(), ZeroDivisionError())],
    ],
)
def test_a_model_is_trained_or_failed_or_the_run_stops(error, trained, failed):
    """Every error is passed on: what it means for the other models is decided outside."""
    workers = Workers()
    bars = bars_of(workers)
    caught = None
    try:
        with bars.model("shadow_00"):
            bars.images(30)
            if error:
                raise error
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert (workers.add("trained", 0), workers.add("failed", 0)) == (trained, failed)
    if trained or failed:
        assert workers.add("images", 0) == 30
        assert workers.add("images of unfinished models", 0) == 0


def test_the_leaders_bar_counts_the_images_of_all_workers_and_the_models_on_disk(monkeypatch):
    n_done = 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    leader, other = (bars_of(worker, quiet=False, count_done=lambda: n_done) for worker in workers_of_a_run(2))
    with contextlib.suppress(ModelError), leader.model("shadow_00"):
        with other.model("shadow_01"):
            leader.images(30)
            other.resume_model(0.5)
            other.images(20)
            other.publish()
            leader.publish()
            assert (leader._run_bar.n, leader._run_bar.total) == (50, 50 + 300 - 30 - 70)
            other.images(30)
            n_done = 2
        raise ModelError("no")
    assert (leader._run_bar.n, leader._run_bar.total) == (80, 80 + 100)
    assert leader._run_bar.desc.startswith("2/4 models")
    leader.close()
