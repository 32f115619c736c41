"""Train the target and shadow models of a run that are still missing.

python train_model.py --dataset cifar100 --network ResNet18 --disable-dp
"""

import platform
import shlex
import sys
import time
from collections.abc import Sequence

import torch

from common import Setup, prepare
from lira import fleet
from lira.errors import InputError
from lira.memory import keep_freed_memory
from lira.runs import Run, open_run
from lira.training import train_model
from util import Config, run_script


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: train_fleet(config, argv), argv, description=__doc__)


def train_fleet(config: Config, argv: Sequence[str]) -> int:
    """Train what is missing on disk. Returns the exit status: 0, or 1 where a model failed."""
    if config.dp:
        raise InputError("training with differential privacy is not there yet: add --disable-dp to train without it")
    keep_freed_memory()
    setup = prepare(config)
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity, provenance=_provenance(setup, argv))
    jobs = fleet.plan(config.model.n_runs, config.model.n_shadows)
    missing = [job for job in jobs if not run.has_weights(*job)]
    print(f"run {run.name}: {len(jobs) - len(missing)} of {len(jobs)} models are complete, training {len(missing)}")
    print(setup.describe())

    start = time.perf_counter()
    pictures = config.train.epochs * (setup.split.n_train + setup.split.n_samples // 2)
    with fleet.bars(
        n_models=len(jobs),
        n_done=len(jobs) - len(missing),
        pictures_per_model=pictures,
        quiet=config.run.quiet,
    ) as shown:
        failed = fleet.train_all(missing, lambda job: _train_one(job, config, setup, run, shown), shown)
    seconds = time.perf_counter() - start

    records = run.save_models_table()
    if len(missing) > len(failed):
        trained = len(missing) - len(failed)
        print(
            f"trained {trained} models in {seconds / 60:.1f} min, {trained * pictures / seconds:,.0f} pictures a second"
        )
    for role, rows in records.groupby("role", sort=False):
        print(f"{role}: {len(rows)} models, test accuracy {rows.test_accuracy.mean():.1%} on average")
    for reason in failed.values():
        print(f"failed: {reason}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} models failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(f"now: python attack_lira.py {shlex.join(argv)}")
    return 0


def _train_one(job: fleet.Job, config: Config, setup: Setup, run: Run, shown: fleet.Bars) -> None:
    name = fleet.job_name(job)
    role, index = job

    def on_epoch(history: list[dict]) -> None:
        shown.epoch(history[-1])
        run.save_log(name, history)

    model, history = train_model(
        name,
        setup.build,
        setup.pool,
        setup.split.training_set(role, index, setup.pool.first_sample),
        setup.split.test_set(role),
        seed=setup.split.seed(role, index),
        epochs=config.train.epochs,
        lr=config.train.lr,
        lr_step=config.train.lr_step,
        optimizer=config.train.optimizer,
        batch_size=config.train.train_batch_size,
        augment=config.data.augment,
        precision=setup.precision,
        eval_every=config.train.eval_every,
        test_batch_size=config.run.test_batch_size,
        on_epoch=on_epoch,
        progress=shown.pictures,
    )
    last = history[-1]
    record = {key: last[key] for key in ("test_accuracy", "train_accuracy", "epsilon", "seconds")}
    run.save_weights(role, index, model.state_dict(), record | {"device": setup.device_name})


def _provenance(setup: Setup, argv: Sequence[str]) -> dict:
    return {
        "command": shlex.join(["python", "train_model.py", *argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": setup.device_name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
