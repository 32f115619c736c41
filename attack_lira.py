"""Attack the targets of a run with its shadows, and report how often the attack is right.

python attack_lira.py --dataset cifar100 --network ResNet18 --disable-dp
"""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common import Setup, prepare
from lira import fleet, report
from lira.attacks import attack_targets
from lira.errors import InputError
from lira.memory import keep_freed_memory
from lira.query import IDENTITY, query_model
from lira.runs import Run, open_run
from lira.split import ROLES
from util import Config, run_script

QUERIES = (IDENTITY,)
SAVE_EVERY = 60  # seconds between two writes of scores.npz while models are asked


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: attack(config, argv), argv, description=__doc__)


def attack(config: Config, argv: Sequence[str]) -> None:
    """Ask the models that were not asked yet, run the attacks, write everything under result/<run>/."""
    keep_freed_memory()
    setup = prepare(config)
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity)
    jobs = fleet.plan(config.model.n_runs, config.model.n_shadows)
    _require_models(jobs, run, argv)
    phi = _scores(jobs, config, setup, run)
    member = np.stack([setup.split.member(*job) for job in jobs])

    with tqdm(desc="attacking", unit="step", disable=config.run.quiet, leave=False) as bar:
        scored = attack_targets(
            phi, member, n_targets=config.model.n_runs, attacks=config.attack.attacks or None,
            progress=lambda done, total: (bar.reset(total), bar.update(done)),
        )  # fmt: skip
    table = report.attack_table(scored, member, queries=phi.shape[2], shadows=config.model.n_shadows)
    run.save_table("attack.csv", table)
    label = setup.pictures.y_test.numpy()
    run.save_table("samples.csv", report.samples_table(scored, phi, member, label, n_targets=config.model.n_runs))
    models = run.save_models_table()
    for name, figure in report.figures(scored, member, run.load_logs(), title=run.name).items():
        run.save_figure(name, figure)

    print(f"\n{run.results}/: attack.csv, samples.csv, models.csv, scores.npz, ROC and histograms as PNG")
    print(setup.describe())
    print()
    print(report.terminal_summary(table, models, n_targets=config.model.n_runs))


def _require_models(jobs: Sequence[fleet.Job], run: Run, argv: Sequence[str]) -> None:
    missing = [job for job in jobs if not run.has_weights(*job)]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reason = run.failure(*missing[0])
        near = ", ".join(run.neighbours())
        raise InputError(
            f"{run.weights_path(*missing[0])}{others} of {len(jobs)} models missing; make them with: "
            f"python train_model.py {shlex.join(argv)}"
            + (f" (it failed: {reason})" if reason else "")
            + (f" (there are also the runs {near})" if near else "")
        )


def _scores(jobs: Sequence[fleet.Job], config: Config, setup: Setup, run: Run) -> np.ndarray:
    """phi of every model, float32 (M, N, A), as scores.npz holds it. Only models whose weights it does not know yet
    are asked; what was asked is saved every minute, so that little is lost."""
    label = setup.pictures.y_test
    known = run.load_scores() or {}
    fits = known and np.array_equal(known["label"], label) and np.array_equal(known["queries"], QUERIES)
    phi_of = dict(zip(known["weights"].tolist(), known["phi"], strict=True)) if fits else {}
    weights = [run.record(*job)["sha256"] for job in jobs]
    missing = [(job, digest) for job, digest in zip(jobs, weights, strict=True) if digest not in phi_of]
    if not missing and known["weights"].tolist() == weights:
        return known["phi"]

    def save() -> None:
        rows = [row for row, digest in enumerate(weights) if digest in phi_of]
        run.save_scores(
            phi=np.stack([phi_of[weights[row]] for row in rows]),
            member=np.stack([setup.split.member(*jobs[row]) for row in rows]),
            label=label.numpy(),
            role=np.array([ROLES.index(jobs[row][0]) for row in rows], dtype=np.int8),
            index=np.array([jobs[row][1] for row in rows], dtype=np.int32),
            weights=np.array([weights[row] for row in rows]),
            queries=np.array(QUERIES, dtype=np.int32),
        )

    samples = torch.arange(len(label), device=setup.device) + setup.pool.first_sample
    model, saved = setup.build().to(setup.device, memory_format=torch.channels_last), time.monotonic()
    for job, digest in tqdm(missing, desc="asking", unit="model", disable=config.run.quiet):
        _load(model, run.load_weights(*job), run.weights_path(*job), setup.network)
        phi_of[digest] = query_model(
            model, setup.pool.plain, samples, label, queries=QUERIES, batch_size=config.run.test_batch_size
        )
        if time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()
    save()
    return np.stack([phi_of[digest] for digest in weights])


def _load(model: nn.Module, weights: dict, path: Path, network: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # the user's factory was edited since
        raise InputError(
            f"{path} holds the weights of another network than {network} makes now: restore the factory, "
            "or give the changed one a name or an --exp-idx of its own"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
