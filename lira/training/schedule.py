"""Which models a run consists of, which worker trains which, and what is still missing."""

import shlex
from collections.abc import Iterator, Sequence

from lira.errors import InputError, log, plural
from lira.storage.names import ROLES, Job, model_name
from lira.storage.runs import Run
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


def turns(jobs: Sequence[Job], workers: Workers) -> Iterator[Job]:
    """The models that this worker is to look at, one after the other, until all workers together have seen all.

    All workers go through the same list: the next value of a shared counter is the model to look at, so no worker waits
    for a slow one."""
    while (turn := workers.add("turn") - 1) < len(jobs):
        yield jobs[turn]


def count_complete(n: int, n_models: int) -> str:
    """3 of 24 models are complete."""
    return f"{n} of {plural(n_models, 'model')} {'is' if n == 1 else 'are'} complete"


def progress_so_far(jobs: Sequence[Job], run: Run) -> str:
    """How far training had come when it was stopped."""
    epochs = {model_name(*job): run.epochs_completed(*job) for job in jobs if not run.has_weights(*job)}
    saved = "".join(f", {name} is saved up to epoch {epoch}" for name, epoch in epochs.items() if epoch)
    return f"{count_complete(run.n_complete(jobs), len(jobs))}{saved}"


def print_summary(jobs: Sequence[Job], all_jobs: Sequence[Job], run: Run, *, next_command: str) -> None:
    """Print the summary that ends train_model.py, from the files on disk.

    jobs: the models that were to be trained; all_jobs: those of the run; next_command: attacks it."""
    for role, rows in run.save_models_table().groupby("role", sort=False):
        print(f"{role}: {plural(len(rows), 'model')}, test accuracy {rows.test_accuracy.mean():.1%} on average")
    failed = [job for job in jobs if not run.has_weights(*job)]
    for job in failed:
        log(f"failed: {run.failure(*job) or model_name(*job) + ' was not trained'}")
    if failed:
        log(f"{len(failed)} of {plural(len(jobs), 'model')} failed: {format_models(failed)}")
    elif (n_complete := run.n_complete(all_jobs)) < len(all_jobs):
        print(f"this shard is complete; of the run, {count_complete(n_complete, len(all_jobs))}")
    else:
        print(f"next: {next_command}")


def require_models(jobs: Sequence[Job], run: Run, argv: Sequence[str], *, instead: str = "") -> None:
    """Raises InputError if models are missing: names the first, why it failed, and the command that trains them.

    instead: what to do if the run that was meant is another one."""
    missing = [job for job in jobs if not run.has_weights(*job)]
    if missing:
        first, reason = run.weights_path(*missing[0]), run.failure(*missing[0])
        runs = ", ".join(sorted(path.parent.name for path in run.models.parent.glob("*/config.json")))
        raise InputError(
            f"{len(missing)} of {plural(len(jobs), 'model')} missing, the first is {first}; {instead}train them with: "
            f"python train_model.py {shlex.join(argv)}"
            + (f" (training failed: {reason})" if reason else "")
            + (f" (runs there: {runs})" if runs else "")
        )
