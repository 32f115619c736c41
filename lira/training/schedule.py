"""Which model is trained when, and the bars that show it."""

import shlex
import sys
from collections.abc import Callable, Sequence

from lira.errors import InputError, ModelError
from lira.storage.names import ROLES, model_name
from lira.storage.runs import Run
from lira.training.progress import ProgressBars
from lira.training.workers import Workers

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


def train_all(
    jobs: Sequence[Job],
    train_one: Callable[[Job], None],
    shown: ProgressBars,
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
    begun = [(job_name(job), run.epochs_completed(*job)) for job in jobs if not run.has_weights(*job)]
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
        reason, near = run.failure(*missing[0]), ", ".join(run.similar_runs())
        raise InputError(
            f"{run.weights_path(*missing[0])}{others} of {len(jobs)} models missing; make them with: "
            f"python train_model.py {shlex.join(argv)}"
            + (f" (it failed: {reason})" if reason else "")
            + (f" (there are also the runs {near})" if near else "")
        )
