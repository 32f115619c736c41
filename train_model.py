"""Train the target and shadow models of a run that are still missing.

python train_model.py --dataset cifar100 --network ResNet18 --disable-dp
torchrun --nproc-per-node 4 train_model.py --dataset cifar100 --network ResNet18 --disable-dp
"""

import sys
import time
from collections.abc import Callable, Sequence

from common import Setup, prepare
from lira.errors import ModelError, log
from lira.flags import reject_flags
from lira.storage.names import Job, model_name
from lira.storage.runs import Run, open_run
from lira.training import schedule
from lira.training.checkpoints import Checkpoints
from lira.training.cost import describe_cost, measure_cost
from lira.training.kernels import keep_freed_memory
from lira.training.loop import train_model
from lira.training.progress import ProgressBars, progress_bars
from lira.training.workers import Workers, join_workers
from util import Config, attack_command, run_script


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: train_run(config, argv), argv, description=__doc__)


def train_run(config: Config, argv: Sequence[str]) -> int:
    """Train the models that are missing on disk. Returns the exit status: 0, or 1 if a model failed."""
    reject_flags(config.attack, "scores", "report_only", "compare", script="attack_lira.py")
    keep_freed_memory()
    workers = join_workers()
    workers.set_threads(config.run.threads)
    with workers.run_first(workers.local_rank == 0, f"data of machine {workers.node}"):
        setup = prepare(config, local_rank=workers.local_rank)
    all_jobs = schedule.planned_models(config.model.n_runs, config.model.n_shadows)
    jobs = schedule.shard(all_jobs, *config.run.shard or (1, 1))
    if config.run.plan:
        return _plan(jobs, config, setup, workers)
    with workers.run_first(workers.leader, "folders"):
        run = open_run(config.run.model_dir, config.run.result_dir, setup.identity, provenance=setup.provenance(argv))
        if workers.leader:
            run.remove_temporary_files()
            if not workers.restarts:
                run.clear_failures(jobs)
    try:
        with workers.stopped_by_signal():
            _train_missing(jobs, config, setup, run, workers)
    except KeyboardInterrupt:
        if workers.leader:
            raise KeyboardInterrupt(schedule.progress_so_far(jobs, run)) from None
        return 130
    if workers.leader:
        schedule.print_summary(jobs, all_jobs, run, attack_command(config, beside=sys.argv[0]))
    # The same status from all workers: torchrun stops the others when one fails.
    return 0 if run.n_complete(jobs) == len(jobs) else 1


def _train_missing(jobs: Sequence[Job], config: Config, setup: Setup, run: Run, workers: Workers) -> None:
    # The leader checks all weights first: is_complete() renames corrupted ones, whose models then count as missing.
    complete = {job for job in jobs if run.is_complete(*job)} if workers.leader else set()
    start = time.perf_counter()
    if workers.leader:
        n_missing, suffix = len(jobs) - len(complete), f" with {workers.size} workers" if workers.size > 1 else ""
        print(f"run {run.name}: {len(complete)} of {len(jobs)} models are complete, training {n_missing}{suffix}")
        print(setup.describe_training(), flush=True)
    checkpoints = Checkpoints(config.train.checkpoint_every)
    with progress_bars(
        n_models=len(jobs),
        n_done=len(complete),
        images_per_model=config.train.epochs * (setup.split.n_train + setup.split.n_samples // 2),
        quiet=config.run.quiet,
        workers=workers,
        count_done=lambda: run.n_complete(jobs),
    ) as progress:
        schedule.train_all(
            jobs,
            lambda job: _train_one(job, setup, run, progress, checkpoints),
            progress,
            workers=workers,
            is_done=lambda job: job in complete or run.is_complete(*job) or run.failure(*job) is not None,
        )
    n_images, seconds = workers.add("images", 0), time.perf_counter() - start
    if workers.leader and n_images:
        n_trained = workers.add("trained", 0)
        print(f"trained {n_trained} models in {seconds / 60:.1f} min, {n_images / seconds:,.0f} images/s")


def _train_one(job: Job, setup: Setup, run: Run, progress: ProgressBars, checkpoints: Checkpoints) -> None:
    name, epochs = model_name(*job), setup.training.epochs
    resume = run.load_resume(*job)
    if resume:
        log(f"{name} resumes after epoch {len(resume['history'])} of {epochs}")
        progress.resume_model(len(resume["history"]) / epochs)
    checkpoints.start_model()

    def on_epoch(history: list[dict]) -> None:
        progress.epoch(history[-1])
        run.save_log(name, history)

    def on_checkpoint(epoch: int, state_dict: Callable[[], dict]) -> None:
        if checkpoints.due(epoch):
            checkpoints.save(lambda: run.save_resume(*job, state_dict()))

    try:
        model, history = train_model(
            name,
            setup.build,
            setup.store,
            setup.split.training_set(*job, setup.store.first_sample),
            setup.split.test_set(job[0]),
            setup.training,
            seed=setup.split.seed(*job),
            make_private=setup.make_private(*job),
            on_epoch=on_epoch,
            progress=progress.images,
            resume=resume,
            on_checkpoint=on_checkpoint,
        )
    except ModelError as error:
        run.save_failure(*job, str(error))
        raise
    record = setup.privacy.guarantee() if setup.privacy else {}
    record |= {key: history[-1][key] for key in ("test_accuracy", "train_accuracy", "epsilon", "seconds")}
    run.save_weights(*job, model.state_dict(), record | {"device": setup.device_name, "history": history})


def _plan(jobs: Sequence[Job], config: Config, setup: Setup, workers: Workers) -> int:
    """Print which models are complete, which are missing and what these will cost. Writes nothing."""
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity)
    target = ("target", 0)
    sets = setup.split.training_set(*target, setup.store.first_sample), setup.split.test_set(target[0])
    cost = measure_cost(
        workers, setup.build, setup.store, *sets, setup.training, make_private=setup.make_private(*target)
    )
    if cost is None:  # not the leader
        return 0
    missing = [job for job in jobs if not run.has_weights(*job)]
    epochs = [config.train.epochs - run.epochs_completed(*job) for job in missing]
    seconds = [cost.seconds(*map(len, sets), epochs=n, evaluations=-(-n // config.train.eval_every)) for n in epochs]
    print(f"run {run.name}\n{setup.describe_training()}")
    print(f"complete: {schedule.format_models([job for job in jobs if job not in missing])}")
    print(f"missing: {schedule.format_models(missing)}")
    print(describe_cost(cost, seconds, workers, folder=run.models, device=setup.device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
