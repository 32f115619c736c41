"""Attack the target models of a run with its shadow models, and report how accurate the attacks are.

python attack_lira.py --dataset cifar100 --network ResNet18 --disable-dp
python attack_lira.py --scores scores-from-elsewhere.npz
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from common import prepare, unread_identities
from lira.attacks.inputs import AttackInputs
from lira.attacks.run import run_attacks
from lira.data.store import Query
from lira.errors import InputError, warn
from lira.flags import reject_flags
from lira.report import html, text
from lira.report.results import exposed_images
from lira.storage.names import Job, model_name
from lira.storage.provenance import command, timestamp, versions
from lira.storage.runs import Run, find_results, open_run, results_only
from lira.storage.scores import cached_scores, read_scores
from lira.training import schedule
from lira.training.kernels import keep_freed_memory
from lira.training.query import declared_queries, query_model
from lira.training.workers import Workers
from util import Config, run_script

# Tables that only some runs of this script write -> the flag that adds them, as worded in the warning below.
OPTIONAL_TABLES = {"leave_one_out.csv": " with --leave-one-out", "curve.csv": " with --curve", "audit.csv": ""}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: attack(config, argv), argv, description=__doc__)


def attack(config: Config, argv: Sequence[str]) -> None:
    """Query the models whose scores are not cached, run the attacks, write tables and report to result/<run>/."""
    reject_flags(config.run, "plan", script="train_model.py")
    flags = config.attack
    if flags.compare:
        print(html.compare(config.run.result_dir, flags.compare))
        return
    if flags.report_only:
        _report(_find_results(config))
        return
    start, started = time.monotonic(), timestamp()
    keep_freed_memory()
    Workers().set_threads(config.run.threads)
    if flags.scores:
        path = Path(flags.scores)
        inputs = read_scores(path, n_targets=config.model.n_runs, inclusion=config.data.target_inclusion)
        run, description = results_only(config.run.result_dir, path), f"{path}: {inputs.describe()}"
    else:
        run, inputs, description = _query_models(config, argv)
    tables = run_attacks(
        inputs,
        names=flags.attacks or None,
        convention=flags.convention,
        with_leave_one_out=flags.leave_one_out,
        with_curve=flags.curve,
        quiet=config.run.quiet,
    )
    for name, table in tables.items():
        run.save_table(name, table)
    earlier = [name for name in OPTIONAL_TABLES if name not in tables and (run.results / name).exists()]
    for name in earlier:
        warn(f"{run.results / name} is from an earlier run{OPTIONAL_TABLES[name]}, not from this one")
    attack_info = {
        "command": command("attack_lira.py", argv),
        "started": started,
        "data": description,
        "seconds": time.monotonic() - start,
        "versions": versions(),
        "earlier": earlier,
    }
    run.save_json("attack.json", attack_info)
    if inputs.images is not None:
        run.save_arrays("images.npz", exposed_images(tables, inputs.images))
    _report(run)


def _report(run: Run) -> None:
    results, page = html.write(run)
    print(f"{page}: the report; tables, scores and figures lie beside it\n")
    print(text.headline(results))
    print(text.terminal_table(results.summary, results.strongest, colour=text.has_colours()))
    if "audit.csv" in results.tables:
        print(f"\n{text.audit_summary(results.tables['audit.csv'])}")


def _find_results(config: Config) -> Run:
    """The results of the run that the flags describe; reads neither its data nor its models."""
    if config.attack.scores:
        return results_only(config.run.result_dir, Path(config.attack.scores))
    return find_results(config.run.result_dir, unread_identities(config))


def _query_models(config: Config, argv: Sequence[str]) -> tuple[Run, AttackInputs, str]:
    """The run of trained models, its attack inputs and their description. Queries the models that are not cached."""
    setup = prepare(config)
    run = open_run(config.run.model_dir, config.run.result_dir, setup.identity)
    jobs = schedule.planned_models(config.model.n_runs, config.model.n_shadows)
    schedule.require_models(jobs, run, argv)
    member = np.stack([setup.split.member(*job) for job in jobs])
    label = setup.images.y_test
    samples = torch.arange(len(label), device=setup.device) + setup.store.first_sample
    model = setup.build().to(setup.device).to(memory_format=torch.channels_last)

    def query(job: Job, queries: tuple[Query, ...]) -> np.ndarray:
        weights = run.load_weights(*job)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(
                f"{run.weights_path(*job)} holds the weights of another network than {setup.network} makes now: "
                "restore the factory, or give the changed one a name or an --exp-idx of its own"
            ) from error
        batch_size = config.run.test_batch_size
        return query_model(model, setup.store.unaugmented, samples, label, queries=queries, batch_size=batch_size)

    queries = declared_queries(config.attack.n_queries, flip=setup.flip, margin=setup.store.margin)
    inputs = AttackInputs(
        phi=cached_scores(run, jobs, member, label.numpy(), queries, query, quiet=config.run.quiet),
        member=member,
        n_targets=config.model.n_runs,
        label=label.numpy(),
        class_names=setup.images.class_names,
        model_names=tuple(model_name(*job) for job in jobs),
        images=setup.images.x_test.numpy(),
        inclusion=config.data.target_inclusion,
        guarantees=_guarantees(run, jobs) if config.dp else None,
    )
    run.save_models_table()
    description = setup.describe()
    print(description)
    return run, inputs, description


def _guarantees(run: Run, jobs: Sequence[Job]) -> np.ndarray:
    """(epsilon, delta) of each target, float64 (T, 2)."""
    records = [run.record(role, index) for role, index in jobs if role == "target"]
    return np.array([[record["epsilon"], record["delta"]] for record in records])


if __name__ == "__main__":
    sys.exit(main())
