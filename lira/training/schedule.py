"""Which models a run consists of, which worker trains which, and what is still missing."""

import shlex
from collections.abc import Callable, Sequence

from lira.errors import InputError, ModelError, log
from lira.storage.names import ROLES, Job, model_name
from lira.storage.runs import Run
from lira.training.progress import ProgressBars
from lira.training.workers import Workers


def planned_models(n_targets: int, n_shadows: int) -> list[Job]:
    """All models of a run, targets first."""
    return [("target", i) for i in range(n_targets)] + [("shadow", i) for i in range(n_shadows)]


def shard(jobs: Sequence[Job], part: int, parts: int) -> list[Job]:
    """Part 1, 2, … of `parts`: every parts-th model, so that targets are spread over the parts."""
    return list(jobs[part - 1 :: parts])


def format_models(jobs: Sequence[Job]) -> str:
    """target_00, shadow_03 to shadow_19: first and last of consecutive models."""
    spans: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: (ROLES.index(job[0]), job[1])):
        if spans and (spans[-1][-1][0], spans[-1][-1][1] + 1) == job:
            spans[-1].append(job)
        else:
            spans.append([job])
    ends = [dict.fromkeys(model_name(*job) for job in (span[0], span[-1])) for span in spans]
    return ", ".join(map(" to ".join, ends)) or "none"


def train_all(
    jobs: Sequence[Job],
    train_one: Callable[[Job], None],
    progress: ProgressBars,
    *,
    workers: Workers,
    is_done: Callable[[Job], bool],
) -> None:
    """Train the models that are not done. A ModelError of one does not stop the others.

    All workers go through the same list: the next value of a shared counter is the model to look at, so no worker waits
    for a slow one, and is_done(job) is evaluated when its turn comes. Returns when all workers have finished."""
    while (turn := workers.add("turn") - 1) < len(jobs):
        job = jobs[turn]
        if is_done(job):
            continue
        progress.start_model(model_name(*job))
        try:
            train_one(job)
        except ModelError:  # train_one has saved the reason
            progress.end_model(trained=False)
        else:
            workers.add("trained")
            progress.end_model(trained=True)
    workers.finish(progress.publish)


def progress_so_far(jobs: Sequence[Job], run: Run) -> str:
    """How far training had come when it was stopped."""
    epochs = {model_name(*job): run.epochs_completed(*job) for job in jobs if not run.has_weights(*job)}
    saved = "".join(f", {name} is saved up to epoch {epoch}" for name, epoch in epochs.items() if epoch)
    return f"{run.n_complete(jobs)} of {len(jobs)} models are complete{saved}"


def print_summary(jobs: Sequence[Job], all_jobs: Sequence[Job], run: Run, command: str) -> None:
    """Print the summary that ends train_model.py, from the files on disk.

    jobs: the models that were to be trained; all_jobs: those of the run; command: attacks the run."""
    for role, rows in run.save_models_table().groupby("role", sort=False):
        print(f"{role}: {len(rows)} models, test accuracy {rows.test_accuracy.mean():.1%} on average")
    failed = [job for job in jobs if not run.has_weights(*job)]
    for job in failed:
        log(f"failed: {run.failure(*job) or model_name(*job) + ' was not trained'}")
    if failed:
        log(f"{len(failed)} of {len(jobs)} models failed: {format_models(failed)}")
    elif (n_complete := run.n_complete(all_jobs)) < len(all_jobs):
        print(f"this shard is complete; of the run, {n_complete} of {len(all_jobs)} models are")
    else:
        print(f"now: {command}")


def require_models(jobs: Sequence[Job], run: Run, argv: Sequence[str]) -> None:
    """Raises InputError if models are missing: names the first, why it failed, and the command that trains them."""
    missing = [job for job in jobs if not run.has_weights(*job)]
    if missing:
        first, reason = run.weights_path(*missing[0]), run.failure(*missing[0])
        similar = ", ".join(run.similar_runs())
        raise InputError(
            f"{len(missing)} of {len(jobs)} models missing, the first is {first}; train them with: "
            f"python train_model.py {shlex.join(argv)}"
            + (f" (training failed: {reason})" if reason else "")
            + (f" (other runs: {similar})" if similar else "")
        )
