"""Train the target and shadow models of a run that are still missing.

python train_model.py --dataset cifar100 --network ResNet18 --disable-dp
torchrun --nproc-per-node 4 train_model.py --dataset cifar100 --network ResNet18 --disable-dp
"""

import sys
import time
from collections.abc import Sequence

from common import Setup, prepare
from lira.errors import ModelError, warn
from lira.flags import reject_flags
from lira.storage.runs import Run, open_run
from lira.training import schedule
from lira.training.checkpoints import Checkpoints
from lira.training.cost import describe_cost, measure_cost
from lira.training.kernels import keep_freed_memory
from lira.training.loop import train_model
from lira.training.progress import progress_bars
from lira.training.workers import Workers, join_workers
from util import Config, attack_command, run_script


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: train_fleet(config, argv), argv, description=__doc__)


def train_fleet(config: Config, argv: Sequence[str]) -> int:
    """Train what is missing on disk. Returns the exit status: 0, or 1 where a model failed."""
    reject_flags(config.attack, "scores", "report_only", "compare", script="attack_lira.py")
    keep_freed_memory()
    workers = join_workers()
    workers.share_threads(config.run.threads)
    with workers.run_first(workers.local_rank == 0, f"data of machine {workers.node}"):
        setup = prepare(config, local_rank=workers.local_rank)
    jobs = schedule.shard(schedule.plan(config.model.n_runs, config.model.n_shadows), *config.run.shard or (1, 1))
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
            raise KeyboardInterrupt(schedule.so_far(jobs, run)) from None
        return 130
    if workers.leader:
        everything = schedule.plan(config.model.n_runs, config.model.n_shadows)
        schedule.summary(jobs, everything, run, attack_command(config, beside=sys.argv[0]))
    return 0 if run.count(jobs) == len(jobs) else 1  # the same for all workers: torchrun takes a lone failure amiss


def _train_missing(jobs: Sequence[schedule.Job], config: Config, setup: Setup, run: Run, workers: Workers) -> None:
    sound = {job for job in jobs if run.is_complete(*job)} if workers.leader else set()  # damaged ones are moved aside
    done, start = len(sound), time.perf_counter()
    if workers.leader:
        several = f" with {workers.size} workers" if workers.size > 1 else ""
        print(f"run {run.name}: {done} of {len(jobs)} models are complete, training {len(jobs) - done}{several}")
        print(setup.describe_training(), flush=True)
    checkpoints = Checkpoints(config.train.checkpoint_every)
    with progress_bars(
        n_models=len(jobs),
        n_done=done,
        images_per_model=config.train.epochs * (setup.split.n_train + setup.split.n_samples // 2),
        quiet=config.run.quiet,
        workers=workers,
        count_done=lambda: run.count(jobs),
    ) as shown:
        schedule.train_all(
            jobs,
            lambda job: _train_one(job, config, setup, run, shown, checkpoints),
            shown,
            workers=workers,
            settled=lambda job: job in sound or run.is_complete(*job) or run.failure(*job) is not None,
        )
    images, seconds = workers.add("images", 0), time.perf_counter() - start
    if workers.leader and images:
        trained, rate = workers.add("trained", 0), images / seconds
        print(f"trained {trained} models in {seconds / 60:.1f} min, {rate:,.0f} images/s")


def _train_one(
    job: schedule.Job, config: Config, setup: Setup, run: Run, shown: schedule.ProgressBars, checkpoints: Checkpoints
):
    name, epochs = schedule.job_name(job), config.train.epochs
    resume = run.load_resume(*job)
    if resume:
        warn(f"{name} goes on after epoch {len(resume['history'])} of {epochs}")
        shown.resume_model(len(resume["history"]) / epochs)
    checkpoints.start_model()

    def on_epoch(history: list[dict]) -> None:
        shown.epoch(history[-1])
        run.save_log(name, history)

    def on_state(epoch: int, state) -> None:
        if checkpoints.due(epoch):
            checkpoints.save(lambda: run.save_resume(*job, state()))

    try:
        model, history = train_model(
            name,
            setup.build,
            setup.store,
            setup.split.training_set(*job, setup.store.first_sample),
            setup.split.test_set(job[0]),
            seed=setup.split.seed(*job),
            epochs=epochs,
            lr=config.train.lr,
            lr_step=config.train.lr_step,
            eval_every=config.train.eval_every,
            on_epoch=on_epoch,
            progress=shown.images,
            resume=resume,
            on_state=on_state,
            **_settings(job, config, setup),
        )
    except ModelError as error:
        run.save_failure(*job, str(error))
        raise
    record = setup.privacy.record() if setup.privacy else {}
    record |= {key: history[-1][key] for key in ("test_accuracy", "train_accuracy", "epsilon", "seconds")}
    run.save_weights(*job, model.state_dict(), record | {"device": setup.device_name, "history": history})


def _settings(job: schedule.Job, config: Config, setup: Setup) -> dict:
    """What training and its forecast share."""
    return {
        "make_private": setup.make_private(*job),
        "optimizer": config.train.optimizer,
        "batch_size": config.train.train_batch_size,
        "test_batch_size": config.run.test_batch_size,
        "augment": config.data.augment,
        "precision": setup.precision,
        "compiled": config.run.compile,
    }


def _plan(jobs: Sequence[schedule.Job], config: Config, setup: Setup, workers: Workers) -> int:
    """Print what is there, what is missing and what that will cost; train nothing, write nothing."""
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity)
    sets = setup.split.training_set("target", 0, setup.store.first_sample), setup.split.test_set("target")
    cost = measure_cost(workers, setup.build, setup.store, *sets, **_settings(("target", 0), config, setup))
    if not workers.leader:
        return 0
    missing = [job for job in jobs if not run.has_weights(*job)]
    epochs = [config.train.epochs - run.epochs_completed(*job) for job in missing]
    seconds = [cost.seconds(*map(len, sets), epochs=n, evaluations=-(-n // config.train.eval_every)) for n in epochs]
    print(f"run {run.name}\n{setup.describe_training()}")
    print(
        f"complete: {schedule.spell([job for job in jobs if job not in missing])}\nmissing: {schedule.spell(missing)}"
    )
    print(describe_cost(cost, seconds, workers, folder=run.models, device=setup.device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
