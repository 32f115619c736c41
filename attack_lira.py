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
from lira import answers, fleet, report, terminal
from lira.attacking import run_attacks
from lira.errors import InputError, say
from lira.evidence import Evidence, read_scores
from lira.flags import refuse
from lira.memory import keep_freed_memory
from lira.query import Query, declared_queries, query_model
from lira.results import exposed_pictures
from lira.runs import Run, find_results, open_run, results_only
from lira.verdict import verdict
from lira.workers import Workers
from util import Config, run_script

EXTRA = {"leave_one_out.csv": " with --leave-one-out", "curve.csv": " with --curve", "audit.csv": ""}  # not always made


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: attack(config, argv), argv, description=__doc__)


def attack(config: Config, argv: Sequence[str]) -> None:
    """Ask the models that were not asked yet, run the attacks, write everything under result/<run>/."""
    refuse(config.run, "plan", script="train_model.py")
    if config.attack.compare:
        print(report.compare(config.run.result_dir, config.attack.compare))
        return
    if config.attack.report_only:
        _report(_results_of(config))
        return
    started, stamp = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    keep_freed_memory()
    Workers().share_threads(config.run.threads)
    if config.attack.scores:
        path = Path(config.attack.scores)
        run, evidence = results_only(config.run.result_dir, path), _scores(config, path)
        data = f"{path}: {evidence.describe()}"
    else:
        run, evidence, data = _ask_models(config, argv)
    wanted = config.attack
    made = run_attacks(
        evidence, names=wanted.attacks or None, convention=wanted.convention, leave_one_out=wanted.leave_one_out,
        curve=wanted.curve, quiet=config.run.quiet,
    )  # fmt: skip
    for name, table in made.items():
        run.save_table(name, table)
    earlier = [name for name in EXTRA if name not in made and (run.results / name).exists()]
    for name in earlier:
        say(f"{run.results / name} is from an earlier run{EXTRA[name]}, not from this one")
    run.save_json("attack.json", {
        "command": shlex.join(["python", "attack_lira.py", *argv]), "started": stamp, "data": data,
        "seconds": time.monotonic() - started, "versions": versions(), "earlier": earlier,
    })  # fmt: skip
    if evidence.pictures is not None:
        run.save_arrays("pictures.npz", exposed_pictures(made, evidence.pictures))
    _report(run)


def _scores(config: Config, path: Path) -> Evidence:
    return read_scores(path, n_targets=config.model.n_runs, inclusion=config.data.target_inclusion)


def _report(run: Run) -> None:
    found, page = report.write(run)
    print(f"{page}: the report; tables, scores and figures lie beside it\n")
    print(terminal.headline(found))
    print(terminal.terminal_table(found.summary, found.strongest, colour=terminal.has_colours()))
    if "audit.csv" in found.tables:
        print(f"\n{verdict(found.tables['audit.csv'])}")


def _results_of(config: Config) -> Run:
    """The results of the run that the flags describe, found without its data and models."""
    if config.attack.scores:
        return results_only(config.run.result_dir, Path(config.attack.scores))
    return find_results(config.run.result_dir, unread_identities(config))


# --- the models' answers -------------------------------------------------------------------------------------------


def _ask_models(config: Config, argv: Sequence[str]) -> tuple[Run, Evidence, str]:
    setup = prepare(config)
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity)
    jobs = fleet.plan(config.model.n_runs, config.model.n_shadows)
    fleet.require_models(jobs, run, argv)
    queries = declared_queries(config.attack.n_queries, flip=setup.flip, margin=setup.pool.margin)
    member = np.stack([setup.split.member(*job) for job in jobs])
    label = setup.pictures.y_test
    samples = torch.arange(len(label), device=setup.device) + setup.pool.first_sample
    model = setup.build().to(setup.device, memory_format=torch.channels_last)

    def ask(job: fleet.Job, queries: tuple[Query, ...]) -> np.ndarray:
        _load(model, run.load_weights(*job), run.weights_path(*job), setup.network)
        batch_size = config.run.test_batch_size
        return query_model(model, setup.pool.plain, samples, label, queries=queries, batch_size=batch_size)

    evidence = Evidence(
        phi=answers.gather(run, jobs, member, label.numpy(), queries, ask, quiet=config.run.quiet),
        member=member,
        n_targets=config.model.n_runs,
        label=label.numpy(),
        class_names=setup.pictures.class_names,
        names=tuple(map(fleet.job_name, jobs)),
        pictures=setup.pictures.x_test.numpy(),
        inclusion=config.data.target_inclusion,
        promised=_promises(run, jobs) if config.dp else None,
    )
    run.save_models_table()
    data = setup.describe()  # compares all pictures with each other: once
    print(data)
    return run, evidence, data


def _promises(run: Run, jobs: Sequence[fleet.Job]) -> np.ndarray:
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
