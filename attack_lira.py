"""Attack the targets of a run with its shadows, and report how often the attack is right.

python attack_lira.py --dataset cifar100 --network ResNet18 --disable-dp
python attack_lira.py --scores scores-from-elsewhere.npz
"""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import prepare, unread_identities, versions
from lira.attacks.inputs import AttackInputs
from lira.attacks.run import run_attacks
from lira.data.store import Query
from lira.errors import InputError, warn
from lira.flags import reject_flags
from lira.report import html, text
from lira.report.results import exposed_images
from lira.report.text import verdict
from lira.storage import scores
from lira.storage.runs import Run, find_results, open_run, results_only
from lira.storage.scores import read_scores
from lira.training import schedule
from lira.training.kernels import keep_freed_memory
from lira.training.query import declared_queries, query_model
from lira.training.workers import Workers
from util import Config, run_script

EXTRA = {"leave_one_out.csv": " with --leave-one-out", "curve.csv": " with --curve", "audit.csv": ""}  # not always made


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: attack(config, argv), argv, description=__doc__)


def attack(config: Config, argv: Sequence[str]) -> None:
    """Ask the models that were not asked yet, run the attacks, write everything under result/<run>/."""
    reject_flags(config.run, "plan", script="train_model.py")
    if config.attack.compare:
        print(html.compare(config.run.result_dir, config.attack.compare))
        return
    if config.attack.report_only:
        _report(_results_of(config))
        return
    started, stamp = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    keep_freed_memory()
    Workers().share_threads(config.run.threads)
    if config.attack.scores:
        path = Path(config.attack.scores)
        run, inputs = results_only(config.run.result_dir, path), _scores(config, path)
        data = f"{path}: {inputs.describe()}"
    else:
        run, inputs, data = _ask_models(config, argv)
    wanted = config.attack
    made = run_attacks(
        inputs, names=wanted.attacks or None, convention=wanted.convention, with_leave_one_out=wanted.leave_one_out,
        with_curve=wanted.curve, quiet=config.run.quiet,
    )  # fmt: skip
    for name, table in made.items():
        run.save_table(name, table)
    earlier = [name for name in EXTRA if name not in made and (run.results / name).exists()]
    for name in earlier:
        warn(f"{run.results / name} is from an earlier run{EXTRA[name]}, not from this one")
    run.save_json("attack.json", {
        "command": shlex.join(["python", "attack_lira.py", *argv]), "started": stamp, "data": data,
        "seconds": time.monotonic() - started, "versions": versions(), "earlier": earlier,
    })  # fmt: skip
    if inputs.images is not None:
        run.save_arrays("images.npz", exposed_images(made, inputs.images))
    _report(run)


def _scores(config: Config, path: Path) -> AttackInputs:
    return read_scores(path, n_targets=config.model.n_runs, inclusion=config.data.target_inclusion)


def _report(run: Run) -> None:
    found, page = html.write(run)
    print(f"{page}: the report; tables, scores and figures lie beside it\n")
    print(text.headline(found))
    print(text.terminal_table(found.summary, found.strongest, colour=text.has_colours()))
    if "audit.csv" in found.tables:
        print(f"\n{verdict(found.tables['audit.csv'])}")


def _results_of(config: Config) -> Run:
    """The results of the run that the flags describe, found without its data and models."""
    if config.attack.scores:
        return results_only(config.run.result_dir, Path(config.attack.scores))
    return find_results(config.run.result_dir, unread_identities(config))


# --- the models' answers -------------------------------------------------------------------------------------------


def _ask_models(config: Config, argv: Sequence[str]) -> tuple[Run, AttackInputs, str]:
    setup = prepare(config)
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity)
    jobs = schedule.plan(config.model.n_runs, config.model.n_shadows)
    schedule.require_models(jobs, run, argv)
    queries = declared_queries(config.attack.n_queries, flip=setup.flip, margin=setup.store.margin)
    member = np.stack([setup.split.member(*job) for job in jobs])
    label = setup.images.y_test
    samples = torch.arange(len(label), device=setup.device) + setup.store.first_sample
    model = setup.build().to(setup.device, memory_format=torch.channels_last)

    def ask(job: schedule.Job, queries: tuple[Query, ...]) -> np.ndarray:
        _load(model, run.load_weights(*job), run.weights_path(*job), setup.network)
        batch_size = config.run.test_batch_size
        return query_model(model, setup.store.unaugmented, samples, label, queries=queries, batch_size=batch_size)

    inputs = AttackInputs(
        phi=scores.gather(run, jobs, member, label.numpy(), queries, ask, quiet=config.run.quiet),
        member=member,
        n_targets=config.model.n_runs,
        label=label.numpy(),
        class_names=setup.images.class_names,
        names=tuple(map(schedule.job_name, jobs)),
        images=setup.images.x_test.numpy(),
        inclusion=config.data.target_inclusion,
        guarantees=_promises(run, jobs) if config.dp else None,
    )
    run.save_models_table()
    data = setup.describe()  # compares all images with each other: once
    print(data)
    return run, inputs, data


def _promises(run: Run, jobs: Sequence[schedule.Job]) -> np.ndarray:
    """(epsilon, delta) of each target, float64 (T, 2)."""
    return np.array([[run.record(*job)[key] for key in ("epsilon", "delta")] for job in jobs if job[0] == "target"])


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
