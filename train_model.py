"""Train the target and shadow models of a run that are still missing.

python train_model.py --dataset cifar100 --network ResNet18 --disable-dp --plan
python train_model.py --dataset cifar100 --network ResNet18 --disable-dp
torchrun --nproc-per-node 4 train_model.py --run cifar100_ResNet18_MSGD_lr0.05_b256_e100_bf16_exp0 --n-shadows 64
"""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lira.errors import DeviceError, ModelError, log, plural
from lira.storage.names import Job, model_name
from util import Config, RunConfig, run_script

if TYPE_CHECKING:
    from common import Trainer
    from lira.storage.runs import Run
    from lira.training.progress import ProgressBars

CHECKPOINT_SECONDS = 60.0  # of training between two checkpoints: a kill loses about as much, or one epoch


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: train(config, argv), argv, script="train_model.py", description=__doc__)


def train(config: Config, argv: Sequence[str]) -> int:
    """Train the models that are missing on disk. Returns the exit status: 0, or 1 if a model failed."""
    from common import Trainer, prepare  # here: torch takes seconds, and the flags are checked by now
    from lira.storage.runs import open_run
    from lira.training import schedule
    from lira.training.cost import describe_cost, measure_cost
    from lira.training.failures import as_model_error
    from lira.training.kernels import keep_freed_memory
    from lira.training.progress import progress_bars
    from lira.training.workers import join_workers

    keep_freed_memory()
    workers = join_workers()
    workers.set_threads(config.run.threads)
    with workers.run_first(workers.rank - workers.local_rank, f"data of machine {workers.node}"):
        setup = prepare(config, local_rank=workers.local_rank)
    all_jobs = schedule.planned_models(config.run.n_runs, config.run.n_shadows)
    jobs = schedule.shard(all_jobs, *config.run.shard or (1, 1))
    folders = config.run.model_dir, config.run.result_dir
    memory_flag = "--max-physical-batch" if config.dp else "--train-batch-size"

    if config.run.plan:
        trainer, run = Trainer(setup, "target", 0), open_run(*folders, setup.identity, name=config.run.run)
        with as_model_error(trainer.name, setup.device, memory_flag=memory_flag):
            steps, evaluate, state_dict = trainer.take_steps, trainer.evaluate_part, trainer.state.state_dict
            cost = measure_cost(workers, steps, evaluate, state_dict, setup.device)
        if cost:  # the leader's
            missing = [job for job in jobs if not run.has_weights(*job)]
            n_epochs = [trainer.n_epochs - run.epochs_completed(*job) for job in missing]
            sizes = len(trainer.training_set), len(trainer.test_set)
            seconds = [cost.seconds(*sizes, epochs=n, eval_every=config.train.eval_every) for n in n_epochs]
            print(f"run {run.name}\n{setup.describe_training()}")
            print(f"complete: {schedule.format_models([job for job in jobs if job not in missing])}")
            print(f"missing: {schedule.format_models(missing)}")
            print(describe_cost(cost, seconds, workers, folder=run.models, device=setup.device))
        return 0

    with workers.run_first(0, "folders"):
        run = open_run(*folders, setup.identity, name=config.run.run, record=setup.record(argv))
        complete: set[Job] = set()
        if workers.leader:
            run.remove_temporary_files()
            # Corrupted weights are renamed, and their models count as missing. Weights of a network whose code has
            # changed are an error; a shard without models of its own looks at one of another shard.
            network, others = setup.build(), [job for job in run.models_on_disk() if job not in jobs]
            complete = {job for job in (*jobs, *others[:1]) if run.is_complete(*job, network)} & {*jobs}
            if not workers.restarts:
                run.clear_failures(jobs)
        setup = setup.with_canaries_of(run.n_canaries())
    if workers.leader:
        n_missing, suffix = len(jobs) - len(complete), f" with {workers.size} workers" if workers.size > 1 else ""
        print(f"run {run.name}: {schedule.count_complete(len(complete), len(jobs))}, training {n_missing}{suffix}")
        print(setup.describe_training(), flush=True)

    start = time.perf_counter()
    bars = progress_bars(
        n_models=len(jobs),
        n_done=len(complete),
        images_per_model=config.train.epochs * (setup.split.n_train + setup.split.n_samples // 2),
        quiet=config.run.quiet,
        workers=workers,
        count_done=lambda: run.n_complete(jobs),
    )
    try:
        with workers.stopped_by_signal(), bars as progress:
            for job in schedule.turns(jobs, workers):
                if job in complete or run.is_complete(*job) or run.failure(*job):
                    continue
                name = model_name(*job)
                try:
                    with progress.model(name), as_model_error(name, setup.device, memory_flag=memory_flag):
                        train_model(Trainer(setup, *job), job, run, progress)
                except ModelError as error:  # the other models are still trained
                    run.save_failure(*job, error, remove_resume=bool(config.dp) and error.final)
                    if isinstance(error, DeviceError):  # by the other workers, or by the next launch
                        break
            workers.finish(progress.publish)
    except KeyboardInterrupt:
        if workers.leader:
            so_far = schedule.progress_so_far(jobs, run)
            print(f"\nstopped: {so_far}; run the same command again to resume", file=sys.stderr)
        return 130
    if workers.leader:
        n_images, elapsed = workers.add("images", 0), time.perf_counter() - start
        if n_images:
            n_trained = workers.add("trained", 0)
            print(f"trained {plural(n_trained, 'model')} in {elapsed / 60:.1f} min, {n_images / elapsed:,.0f} images/s")
        schedule.print_summary(jobs, all_jobs, run, next_command=_attack_command(config, run))
    # The same status from all workers: torchrun stops the others when one fails.
    return 0 if run.n_complete(jobs) == len(jobs) else 1


def train_model(trainer: "Trainer", job: Job, run: "Run", progress: "ProgressBars") -> None:
    """Train one model, from its resume file if there is one, and save its weights."""
    setup, every = trainer.setup, trainer.setup.config.train.checkpoint_every
    if state := run.load_resume(*job):
        trainer.state.load_state_dict(state)
        log(f"{trainer.name} resumes after epoch {len(trainer.history)} of {trainer.n_epochs}")
        progress.resume_model(len(trainer.history) / trainer.n_epochs)
    last_checkpoint = time.monotonic()
    for row in trainer.epochs(progress.images):
        progress.epoch(row)
        run.save_log(trainer.name, trainer.history)
        due = row["epoch"] % every == 0 if every else time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS
        if due and row["epoch"] < trainer.n_epochs:
            run.save_resume(*job, trainer.state.state_dict())
            last_checkpoint = time.monotonic()
    weights = trainer.model.state_dict()
    record: dict[str, Any] = {"seconds": trainer.history[-1]["seconds"], "device": setup.device_name}
    if setup.privacy and trainer.private:  # what is published holds nothing else that follows from the training images
        trainer.private.check_weights()
        record |= setup.privacy.guarantee(trainer.private.mechanism())
        if canaries := trainer.private.canaries:
            run.save_canaries(*job, weights, canaries.results())
            record["canaries"] = len(canaries)
    else:
        record |= {key: trainer.history[-1][key] for key in ("test_accuracy", "train_accuracy", "epsilon")}
        record["history"] = trainer.history
    run.save_weights(*job, weights, record | {"probe": setup.probe(weights)})


def _attack_command(config: Config, run: "Run") -> str:
    """The shell command that attacks the run, with the script beside this one."""
    script = Path(sys.argv[0])
    script = script.with_name("attack_lira.py") if script.name == "train_model.py" else Path("attack_lira.py")
    arguments = ["python", str(script), "--run", run.name]
    arguments += [] if config.run.n_runs else ["--target-weights", "FILE.pt"]
    if config.run.model_dir != RunConfig.model_dir:
        arguments += ["--model-dir", config.run.model_dir]
    if config.run.result_dir != RunConfig.result_dir:
        arguments += ["--result-dir", config.run.result_dir]
    return shlex.join(arguments)


if __name__ == "__main__":
    sys.exit(main())
