"""The progress of a run: bars on a terminal, elsewhere one line per model; after the first epochs a forecast."""

import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from lira.errors import ModelError, log, plural, warn
from lira.storage.names import Job, model_name
from lira.training.cost import duration, wall_clock_seconds
from lira.training.workers import Workers

PUBLISH_EVERY = 1.0  # seconds between two exchanges with the other workers, each of which also reads the disk
FORECAST_SECONDS = 10.0  # of training after the first epoch, which is slower, for a forecast; shorter ones are not made


class ProgressBars:
    """One bar for all models (models done, images/s, time left) and one for the model that the leader trains; where
    stderr is no terminal, a line for each model when it ends.

    Images are counted over all workers; count_done() counts the models that are complete on disk, whichever process
    trained them. n_done: their number at the start. Only the leader draws and forecasts."""

    def __init__(
        self,
        *,
        n_models: int,
        n_done: int,
        images_per_model: int,
        quiet: bool,
        workers: Workers,
        count_done: Callable[[], int],
    ):
        self._workers, self._count_done = workers, count_done
        self._logs, self._forecasts = not (quiet or sys.stderr.isatty()), workers.leader and not quiet
        self._row: dict[str, Any] = {}  # the last of the training log of the model that is trained
        self._first_epoch_end: tuple[float, int] | None = None  # seconds, images of all workers
        self._n_models, self._images_per_model = n_models, images_per_model
        # "images": trained on by this launch; "images of unfinished models": those of earlier launches included
        self._unpublished = dict.fromkeys(("images", "images of unfinished models", "trained", "failed"), 0)
        self._last_publish = time.monotonic()
        self._images_of_model = 0
        disable = quiet or self._logs or not workers.leader or n_done == n_models
        common = dict(unit=" images", unit_scale=True, disable=disable, file=sys.stderr, dynamic_ncols=True)
        self._run_bar = tqdm(total=(n_models - n_done) * images_per_model, position=0, smoothing=0.02, **common)
        self._model_bar = tqdm(total=images_per_model, position=1, leave=False, **common)
        self._describe_run(n_done)

    def _describe_run(self, n_done: int) -> None:
        self._run_bar.set_description(f"{n_done}/{self._n_models} models", refresh=False)

    @contextmanager
    def model(self, name: str) -> Iterator[None]:
        """Inside, the model of this name is trained; a ModelError says that it failed."""
        self._images_of_model, self._row = 0, {}
        self._model_bar.reset(self._images_per_model)
        self._model_bar.set_postfix(refresh=False)
        self._model_bar.set_description(name)
        try:
            yield
        except ModelError as error:
            self._end_model("failed", str(error))
            raise
        else:
            self._end_model("trained", f"{name}: {', '.join(_figures(self._row))}")

    def _end_model(self, outcome: str, line: str) -> None:
        self._unpublished["images of unfinished models"] -= self._images_of_model
        self._unpublished[outcome] += 1
        self.publish()
        if self._logs:
            log(f"{line} ({self._count_done()} of {plural(self._n_models, 'model')} complete)")

    def resume_model(self, part_done: float) -> None:
        """part_done: the part of the model's training that its resume file holds, from 0 to 1."""
        self._add(round(part_done * self._images_per_model))

    def images(self, n: int) -> None:
        """n more images were trained on."""
        self._unpublished["images"] += n
        self._add(n)
        if time.monotonic() - self._last_publish > PUBLISH_EVERY:
            self.publish()

    def _add(self, n: int) -> None:
        self._images_of_model += n
        self._unpublished["images of unfinished models"] += n
        self._model_bar.update(n)

    def publish(self) -> dict[str, int]:
        """Add this worker's counts to those of all workers, and draw the sums, which are returned."""
        self._workers.sign_of_life()
        total = {name: self._workers.add(name, amount) for name, amount in self._unpublished.items()}
        self._unpublished, self._last_publish = dict.fromkeys(self._unpublished, 0), time.monotonic()
        if not self._run_bar.disable:
            n_done = self._count_done()
            images_left = self._n_left(n_done, total) * self._images_per_model - total["images of unfinished models"]
            self._run_bar.total = total["images"] + max(images_left, 0)
            self._describe_run(n_done)
            self._run_bar.update(total["images"] - self._run_bar.n)
        return total

    def _n_left(self, n_done: int, total: dict[str, int]) -> int:
        return self._n_models - n_done - total["failed"]

    def epoch(self, row: dict[str, Any]) -> None:
        """Show one row of a training log beside the model's bar; at one of the first epochs' ends, forecast the run."""
        self._row = row
        if self._forecasts:
            self._forecast()
        postfix = {"epoch": row["epoch"]}
        if row["train_loss"] is not None:  # None if all Poisson samples were empty
            postfix |= {"loss": f"{row['train_loss']:.3f}", "accuracy": f"{row['train_accuracy']:.1%}"}
        if row.get("epsilon") is not None:
            postfix["epsilon"] = f"{row['epsilon']:.2f}"
        self._model_bar.set_postfix(postfix, refresh=False)

    def _forecast(self) -> None:
        """One line on the rest of the run, from the images/s of all workers after this one's first epoch. Models that
        are in training count as equally far; evaluation, some percent of the time, is left out."""
        total, now = self.publish(), time.monotonic()
        if self._first_epoch_end is None:
            self._first_epoch_end = now, total["images"]
        start, images_before = self._first_epoch_end
        if now - start < FORECAST_SECONDS:
            return
        self._forecasts, n_workers = False, self._workers.size
        rate = (total["images"] - images_before) / (now - start)
        n_left = max(1, self._n_left(self._count_done(), total))
        in_training = min(n_workers, n_left)
        images = [self._images_per_model - total["images of unfinished models"] / in_training] * in_training
        images += [self._images_per_model] * (n_left - in_training)
        seconds = wall_clock_seconds([n * n_workers / rate for n in images], n_workers, 1.0)
        if seconds >= FORECAST_SECONDS:
            end = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
            log(
                f"about {duration(seconds)} left for {plural(n_left, 'model')} on {plural(n_workers, 'worker')} at "
                f"{rate:,.0f} images/s: done about {end}"
            )

    def close(self) -> None:
        self._model_bar.close()
        self._run_bar.close()


def to_query(jobs: Sequence[Job], missing: Collection[Job], *, quiet: bool) -> Iterator[Job]:
    """The jobs one after the other, with a bar on a terminal, elsewhere a line after each of those that are missing."""
    bar = tqdm(jobs, desc="querying", unit="model", disable=quiet or None)
    for job in bar:
        yield job
        if bar.disable and not quiet and job in missing:
            log(f"{model_name(*job)}: queried")


def _figures(row: dict[str, Any]) -> Iterator[str]:
    """The last row of a training log in words; accuracies are None where every Poisson sample was empty."""
    figures = (
        ("seconds", lambda seconds: f"{seconds / 60:.1f} min"),
        ("train_accuracy", "training accuracy {:.1%}".format),
        ("test_accuracy", "test accuracy {:.1%}".format),
        ("epsilon", "epsilon {:.2f}".format),
    )
    return (words(row[name]) for name, words in figures if row.get(name) is not None)


@contextmanager
def progress_bars(**settings: Any) -> Iterator[ProgressBars]:
    """ProgressBars(**settings), closed at the end. Inside, warnings of libraries are written above the bars."""
    bars, show_before = ProgressBars(**settings), warnings.showwarning
    warnings.showwarning = lambda message, category, *location, **options: warn(f"{category.__name__}: {message}")
    try:
        yield bars
    finally:
        warnings.showwarning = show_before
        bars.close()
