"""Attack the targets of a run with its shadows, and report how often the attack is right.

python attack_lira.py --dataset cifar100 --network ResNet18 --disable-dp
python attack_lira.py --scores scores-from-elsewhere.npz
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import prepare
from lira import answers, attacks, figures, fleet, tables
from lira.attacking import run_attacks
from lira.errors import InputError, say
from lira.evidence import Evidence, read_scores
from lira.memory import keep_freed_memory
from lira.query import Query, declared_queries, query_model
from lira.runs import Run, open_run, results_only
from lira.terminal import terminal_table
from lira.verdict import verdict
from lira.workers import Workers
from util import AttackConfig, Config, run_script


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_script(lambda config: attack(config, argv), argv, description=__doc__)


def attack(config: Config, argv: Sequence[str]) -> None:
    """Ask the models that were not asked yet, run the attacks, write everything under result/<run>/."""
    keep_freed_memory()
    Workers().share_threads(config.run.threads)
    if config.attack.scores:
        path = Path(config.attack.scores)
        run, evidence = results_only(config.run.result_dir, path), _scores(config, path)
        headline = f"{path}: {evidence.describe()}"
    else:
        run, evidence, headline = _ask_models(config, argv)
    summary, strongest, audit = _run_attacks(config.attack, evidence, run, quiet=config.run.quiet)
    print(f"{run.results}/: tables, scores, ROC and histograms\n\n{headline}")
    print(terminal_table(summary, strongest))
    if audit is not None:
        print(f"\n{verdict(audit)}")


def _scores(config: Config, path: Path) -> Evidence:
    return read_scores(path, n_targets=config.model.n_runs, inclusion=config.data.target_inclusion)


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
    models = run.save_models_table()
    targets = models[models.role == "target"].test_accuracy.iloc[: config.model.n_runs]
    print(setup.describe())
    return run, evidence, f"test accuracy {targets.mean():.1%}" + f" over {len(targets)} targets" * (len(targets) > 1)


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


# --- the attacks ---------------------------------------------------------------------------------------------------


def _run_attacks(config: AttackConfig, evidence: Evidence, run: Run, *, quiet: bool):
    """Write every table and figure. Returns the summary, a row an attack, the name of the strongest attack, and the
    audit, a row a target, or None."""
    scored, made = run_attacks(
        evidence, names=config.attacks or None, convention=config.convention, leave_one_out=config.leave_one_out,
        curve=config.curve, quiet=quiet,
    )  # fmt: skip
    for name, table in made.items():
        run.save_table(name, table)
    drawn = figures.figures(scored, evidence, run.load_logs(), strongest := attacks.strongest(scored), title=run.name)
    if config.curve:
        drawn["curve.png"] = figures.curve_figure(made["curve.csv"], title=run.name)
    for name, figure in drawn.items():
        run.save_figure(name, figure)
    for name in ("leave_one_out.csv", "curve.csv"):
        if name not in made and (run.results / name).exists():
            say(f"{run.results / name} is from an earlier run with --{name[:-4].replace('_', '-')}, not from this one")
    return tables.summary_table(made["attack.csv"]), strongest, made.get("audit.csv")


if __name__ == "__main__":
    sys.exit(main())
