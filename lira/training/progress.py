"""The progress bars of a run: images/s, models done, time left."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from lira.errors import ModelError, warn
from lira.training.workers import Workers

PUBLISH_EVERY = 1.0  # seconds between two exchanges with the other workers, each of which also reads the disk


class ProgressBars:
    """One bar for all models (models done, images/s, time left) and one for the model that the leader trains.

    Images are counted over all workers; count_done() counts the models that are complete on disk, whichever process
    trained them. n_done: their number at the start. Only the leader draws."""

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
        self._n_models, self._images_per_model = n_models, images_per_model
        # "images": trained on by this launch; "images of unfinished models": those of earlier launches included
        self._unpublished = dict.fromkeys(("images", "images of unfinished models", "trained", "failed"), 0)
        self._last_publish = time.monotonic()
        self._images_of_model = 0
        disable = quiet or not workers.leader
        common = dict(unit=" images", unit_scale=True, disable=disable, file=sys.stderr, dynamic_ncols=True)
        self._run_bar = tqdm(total=(n_models - n_done) * images_per_model, position=0, smoothing=0.02, **common)
        self._model_bar = tqdm(total=images_per_model, position=1, leave=False, **common)
        self._describe_run(n_done)

    def _describe_run(self, n_done: int) -> None:
        self._run_bar.set_description(f"{n_done}/{self._n_models} models", refresh=False)

    @contextmanager
    def model(self, name: str) -> Iterator[None]:
        """Inside, the model of this name is trained; a ModelError says that it failed."""
        self._images_of_model = 0
        self._model_bar.reset(self._images_per_model)
        self._model_bar.set_postfix(refresh=False)
        self._model_bar.set_description(name)
        try:
            yield
        except ModelError:
            self._end_model("failed")
            raise
        else:
            self._end_model("trained")

    def _end_model(self, outcome: str) -> None:
        self._unpublished["images of unfinished models"] -= self._images_of_model
        self._unpublished[outcome] += 1
        self.publish()

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

    def publish(self) -> None:
        """Add this worker's counts to those of all workers, and draw the sums."""
        self._workers.sign_of_life()
        total = {name: self._workers.add(name, amount) for name, amount in self._unpublished.items()}
        self._unpublished, self._last_publish = dict.fromkeys(self._unpublished, 0), time.monotonic()
        if self._run_bar.disable:
            return
        n_done = self._count_done()
        n_left = self._n_models - n_done - total["failed"]
        images_left = n_left * self._images_per_model - total["images of unfinished models"]
        self._run_bar.total = total["images"] + max(images_left, 0)
        self._describe_run(n_done)
        self._run_bar.update(total["images"] - self._run_bar.n)

    def epoch(self, row: dict[str, Any]) -> None:
        """Show one row of a training log beside the model's bar."""
        postfix = {"epoch": row["epoch"]}
        if row["train_loss"] is not None:  # None if all Poisson samples were empty
            postfix |= {"loss": f"{row['train_loss']:.3f}", "accuracy": f"{row['train_accuracy']:.1%}"}
        if row.get("epsilon") is not None:
            postfix["epsilon"] = f"{row['epsilon']:.2f}"
        self._model_bar.set_postfix(postfix, refresh=False)

    def close(self) -> None:
        self._model_bar.close()
        self._run_bar.close()


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
