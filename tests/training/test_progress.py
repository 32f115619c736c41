"""The progress bars: images of all workers, models on disk, nothing of a failed model."""

import io
import sys
import warnings

import pytest
import torch.distributed as dist

from lira.errors import ModelError
from lira.training import progress
from lira.training.progress import ProgressBars, progress_bars
from lira.training.schedule import planned_models, train_all
from lira.training.workers import Workers


def bars_after(*, quiet):
    """What is written while a target and a shadow are trained, and a second shadow fails."""
    stderr, complete = io.StringIO(), {("target", 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        settings = dict(n_models=4, n_done=1, images_per_model=100, quiet=quiet)
        workers = Workers()
        with progress_bars(**settings, workers=workers, count_done=lambda: len(complete)) as bars:

            def train_one(job):
                if job == ("shadow", 1):
                    raise ModelError("no")
                bars.images(60)
                bars.epoch({"epoch": 3, "train_loss": 0.25, "train_accuracy": 0.5})
                bars.images(40)
                complete.add(job)

            train_all(planned_models(1, 2), train_one, bars, workers=workers, is_done=lambda job: False)
    return stderr.getvalue()


def test_bars_count_complete_models_and_forget_the_images_of_a_failed_one():
    lines = bars_after(quiet=False).replace("\r", "\n")
    assert "3/4 models: 100%" in lines
    assert "200/200" in lines


def test_quiet_bars_write_nothing():
    assert bars_after(quiet=True) == ""


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


def test_the_leaders_bar_counts_the_images_of_all_workers_and_the_models_on_disk():
    store, n_done = dist.HashStore(), 1
    leader, other = (
        ProgressBars(
            n_models=4,
            n_done=1,
            images_per_model=100,
            quiet=False,
            workers=Workers(rank, 2, rank, 2, store=store),
            count_done=lambda: n_done,
        )
        for rank in range(2)
    )
    leader.start_model("shadow_00")
    other.start_model("shadow_01")
    leader.images(30)
    other.resume_model(0.5)
    other.images(20)
    other.publish()
    leader.publish()
    assert (leader._run_bar.n, leader._run_bar.total) == (50, 50 + 300 - 30 - 70)
    other.images(30)
    n_done = 2
    other.end_model(trained=True)
    leader.end_model(trained=False)
    assert (leader._run_bar.n, leader._run_bar.total) == (80, 80 + 100)
    assert leader._run_bar.desc.startswith("2/4 models")
    leader.close()
