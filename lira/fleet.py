"""Which model is trained when, and the bars that show it."""

import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from lira.errors import InputError, ModelError, say
from lira.runs import Run
from lira.split import ROLES, model_name
from lira.workers import Workers

TELL_EVERY = 1.0  # seconds between two looks at what the other workers and the disk say

Job = tuple[str, int]  # (role, index)


def plan(n_targets: int, n_shadows: int) -> list[Job]:
    """All models of a run, targets first."""
    return [("target", i) for i in range(n_targets)] + [("shadow", i) for i in range(n_shadows)]


def job_name(job: Job) -> str:
    return model_name(*job)


def shard(jobs: Sequence[Job], part: int, parts: int) -> list[Job]:
    """Part 1, 2, … of `parts`: every parts-th model, so that each part has its share of the targets."""
    return list(jobs[part - 1 :: parts])


def spell(jobs: Sequence[Job]) -> str:
    """target_00, shadow_03 to shadow_19: runs of numbers as their ends."""
    spans: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: (ROLES.index(job[0]), job[1])):
        if spans and (spans[-1][-1][0], spans[-1][-1][1] + 1) == job:
            spans[-1].append(job)
        else:
            spans.append([job])
    return ", ".join(" to ".join(dict.fromkeys(map(job_name, (span[0], span[-1])))) for span in spans) or "none"


class Bars:
    """One bar for the fleet (models done, pictures a second, time left) and one for the leader's model.

    Pictures are counted over all workers; models by count_done(), which counts what is complete on disk, whoever made
    it. Only the leader draws."""

    def __init__(
        self,
        *,
        n_models: int,
        n_done: int,
        pictures_per_model: int,
        quiet: bool,
        workers: Workers | None = None,
        count_done: Callable[[], int] | None = None,
    ):
        self._workers, self._count_done = workers or Workers(), count_done
        self._n_models, self._n_done, self._per_model = n_models, n_done, pictures_per_model
        self._news, self._told = dict.fromkeys(("pictures", "under way", "failed"), 0), time.monotonic()
        self._of_model = 0  # pictures that the model at work has behind it
        quiet = quiet or not self._workers.leader
        common = dict(unit=" pictures", unit_scale=True, disable=quiet, file=sys.stderr, dynamic_ncols=True)
        self._fleet = tqdm(total=(n_models - n_done) * pictures_per_model, position=0, smoothing=0.02, **common)
        self._model = tqdm(total=pictures_per_model, position=1, leave=False, **common)
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

    def pictures(self, n: int) -> None:
        self._news["pictures"] += n
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
        self._fleet.total = total["pictures"] + max(ahead, 0)
        self._name_fleet()
        self._fleet.update(total["pictures"] - self._fleet.n)

    def epoch(self, row: dict) -> None:
        shown = {"epoch": row["epoch"]}
        if row["train_loss"] is not None:  # without a picture there is none
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
def bars(**settings):
    """Warnings of libraries are written above the bars, not through them."""
    shown, usual = Bars(**settings), warnings.showwarning
    warnings.showwarning = lambda message, category, *where, **how: say(f"{category.__name__}: {message}")
    try:
        yield shown
    finally:
        warnings.showwarning = usual
        shown.close()


def train_all(
    jobs: Sequence[Job],
    train_one: Callable[[Job], None],
    shown: Bars,
    *,
    workers: Workers | None = None,
    settled: Callable[[Job], bool] = lambda job: False,
) -> dict[str, str]:
    """Train what is not settled(job) yet, one after another. Returns name -> reason of those that failed here; the
    others are not held up by them.

    All workers walk the same list: the next number of a shared counter is the model to look at, so a slow worker holds
    nobody up, and whether a model still needs training is asked when its turn comes. Returns when all have finished."""
    workers, failed = workers or Workers(), {}
    while (turn := workers.add("turn") - 1) < len(jobs):
        job = jobs[turn]
        if settled(job):
            continue
        shown.start_model(job_name(job))
        try:
            train_one(job)
            workers.add("trained")
        except ModelError as error:
            failed[job_name(job)] = str(error)
        shown.end_model(trained=job_name(job) not in failed)
    workers.finish(shown.tell)
    return failed


def so_far(jobs: Sequence[Job], run: Run) -> str:
    """How far a fleet that is stopped has got."""
    begun = [(job_name(job), run.epochs_kept(*job)) for job in jobs if not run.has_weights(*job)]
    kept = "".join(f", {name} is kept up to epoch {epochs}" for name, epochs in begun if epochs)
    return f"{run.count(jobs)} of {len(jobs)} models are complete{kept}"


def summary(jobs: Sequence[Job], everything: Sequence[Job], run: Run, command: str) -> None:
    """Print the last lines, from what lies on disk, whoever made it.

    jobs: the models of this fleet; everything: those of the run, of which jobs are a part; command: attacks the run."""
    for role, rows in run.save_models_table().groupby("role", sort=False):
        print(f"{role}: {len(rows)} models, test accuracy {rows.test_accuracy.mean():.1%} on average")
    failed = [job for job in jobs if not run.has_weights(*job)]
    for job in failed:
        print(f"failed: {run.failure(*job) or job_name(job) + ' was not trained'}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} models failed: {spell(failed)}", file=sys.stderr)
    elif (done := run.count(everything)) < len(everything):
        print(f"this part is complete; of the whole run {done} of {len(everything)} models are")
    else:
        print(f"now: {command}")


def require_models(jobs: Sequence[Job], run: Run, argv: Sequence[str]) -> None:
    """Raises InputError that names the first missing model, why it failed if it did, and the command that makes it."""
    missing = [job for job in jobs if not run.has_weights(*job)]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reason, near = run.failure(*missing[0]), ", ".join(run.neighbours())
        raise InputError(
            f"{run.weights_path(*missing[0])}{others} of {len(jobs)} models missing; make them with: "
            f"python train_model.py {shlex.join(argv)}"
            + (f" (it failed: {reason})" if reason else "")
            + (f" (there are also the runs {near})" if near else "")
        )
