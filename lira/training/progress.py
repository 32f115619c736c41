"""The progress bars of a run that is being trained: images/s, models done, time left."""

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager

from tqdm import tqdm

from lira.errors import warn
from lira.training.workers import Workers

TELL_EVERY = 1.0  # seconds between two looks at what the other workers and the disk say


class ProgressBars:
    """One bar for the fleet (models done, images/s, time left) and one for the leader's model.

    Images are counted over all workers; models by count_done(), which counts what is complete on disk, whoever made
    it. Only the leader draws."""

    def __init__(
        self,
        *,
        n_models: int,
        n_done: int,
        images_per_model: int,
        quiet: bool,
        workers: Workers | None = None,
        count_done: Callable[[], int] | None = None,
    ):
        self._workers, self._count_done = workers or Workers(), count_done
        self._n_models, self._n_done, self._per_model = n_models, n_done, images_per_model
        self._news, self._told = dict.fromkeys(("images", "under way", "failed"), 0), time.monotonic()
        self._of_model = 0  # images that the model at work has behind it
        quiet = quiet or not self._workers.leader
        common = dict(unit=" images", unit_scale=True, disable=quiet, file=sys.stderr, dynamic_ncols=True)
        self._fleet = tqdm(total=(n_models - n_done) * images_per_model, position=0, smoothing=0.02, **common)
        self._model = tqdm(total=images_per_model, position=1, leave=False, **common)
        self._name_fleet()

    def _name_fleet(self) -> None:
        self._fleet.set_description(f"{self._n_done}/{self._n_models} models", refresh=False)

    def start_model(self, name: str) -> None:
        self._of_model = 0
        self._model.reset(self._per_model)
        self._model.set_postfix(refresh=False)
        self._model.set_description(name)

    def resume_model(self, part_done: float) -> None:
        """part_done: from 0 to 1, what a resume file already holds of the model."""
        self._add(round(part_done * self._per_model))

    def images(self, n: int) -> None:
        self._news["images"] += n
        self._add(n)
        if time.monotonic() - self._told > TELL_EVERY:
            self.tell()

    def _add(self, n: int) -> None:
        self._of_model += n
        self._news["under way"] += n
        self._model.update(n)

    def tell(self) -> None:
        """Tell the other workers what was done here, and draw what all of them have done."""
        total = {name: self._workers.add(name, amount) for name, amount in self._news.items()}
        self._news, self._told = dict.fromkeys(self._news, 0), time.monotonic()
        if self._fleet.disable:
            return
        if self._count_done:
            self._n_done = self._count_done()
        ahead = (self._n_models - self._n_done - total["failed"]) * self._per_model - total["under way"]
        self._fleet.total = total["images"] + max(ahead, 0)
        self._name_fleet()
        self._fleet.update(total["images"] - self._fleet.n)

    def epoch(self, row: dict) -> None:
        shown = {"epoch": row["epoch"]}
        if row["train_loss"] is not None:  # without a image there is none
            shown |= {"loss": f"{row['train_loss']:.3f}", "accuracy": f"{row['train_accuracy']:.1%}"}
        if row.get("epsilon") is not None:
            shown["epsilon"] = f"{row['epsilon']:.2f}"
        self._model.set_postfix(shown, refresh=False)

    def end_model(self, *, trained: bool) -> None:
        self._news["under way"] -= self._of_model
        self._news["failed"] += not trained
        self._n_done += trained
        self.tell()

    def close(self) -> None:
        self._model.close()
        self._fleet.close()


@contextmanager
def progress_bars(**settings):
    """Warnings of libraries are written above the bars, not through them."""
    shown, usual = ProgressBars(**settings), warnings.showwarning
    warnings.showwarning = lambda message, category, *where, **how: warn(f"{category.__name__}: {message}")
    try:
        yield shown
    finally:
        warnings.showwarning = usual
        shown.close()
