"""Which model is trained when, and the bars that show it."""

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from lira.errors import ModelError

Job = tuple[str, int]  # (role, index)


def plan(n_targets: int, n_shadows: int) -> list[Job]:
    """All models of a run, targets first."""
    return [("target", i) for i in range(n_targets)] + [("shadow", i) for i in range(n_shadows)]


def job_name(job: Job) -> str:
    return f"{job[0]}_{job[1]:02d}"


class Bars:
    """One bar for the fleet (models done, pictures a second, time left) and one for the model at work."""

    def __init__(self, *, n_models: int, n_done: int, pictures_per_model: int, quiet: bool):
        missing = n_models - n_done
        self._n_models, self._n_done, self._per_model = n_models, n_done, pictures_per_model
        common = dict(unit=" pictures", unit_scale=True, disable=quiet, file=sys.stderr, dynamic_ncols=True)
        self._fleet = tqdm(total=missing * pictures_per_model, position=0, smoothing=0.02, **common)
        self._model = tqdm(total=pictures_per_model, position=1, leave=False, **common)
        self._name_fleet()

    def _name_fleet(self) -> None:
        self._fleet.set_description(f"{self._n_done}/{self._n_models} models", refresh=False)

    def start_model(self, name: str) -> None:
        self._model.reset(self._per_model)
        self._model.set_postfix(refresh=False)
        self._model.set_description(name)

    def pictures(self, n: int) -> None:
        self._fleet.update(n)
        self._model.update(n)

    def epoch(self, row: dict) -> None:
        self._model.set_postfix(
            epoch=row["epoch"],
            loss=f"{row['train_loss']:.3f}",
            accuracy=f"{row['train_accuracy']:.1%}",
            refresh=False,
        )

    def end_model(self, *, trained: bool) -> None:
        """A model that failed gives back the pictures it did not see, so that the time left stays right."""
        self._fleet.total -= self._model.total - self._model.n
        self._n_done += trained
        self._name_fleet()

    def close(self) -> None:
        self._model.close()
        self._fleet.close()


@contextmanager
def bars(**settings):
    shown = Bars(**settings)
    try:
        yield shown
    finally:
        shown.close()


def train_all(jobs: Sequence[Job], train_one: Callable[[Job], None], shown: Bars) -> dict[str, str]:
    """Train each job in turn. Returns name -> reason of those that failed; the others are not held up by them."""
    failed = {}
    for job in jobs:
        shown.start_model(job_name(job))
        try:
            train_one(job)
        except ModelError as error:
            failed[job_name(job)] = str(error)
        shown.end_model(trained=job_name(job) not in failed)
    return failed
