"""Attack the target models of a run with its shadow models, and report how accurate the attacks are.

python attack_lira.py --dataset cifar100 --network ResNet18 --disable-dp
python attack_lira.py --run cifar100_ResNet18_MSGD_lr0.05_b256_e100_bf16_exp0 --target-weights mine.pt
python attack_lira.py --scores scores-from-elsewhere.npz --n-runs 2
"""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lira.errors import InputError
from lira.storage.names import model_name, run_name
from util import Config, parse_args, run_script

if TYPE_CHECKING:
    from common import Setup


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    with ExitStack() as locks:
        return run_script(
            lambda config: attack(config, argv, locks), argv, script="attack_lira.py", description=__doc__
        )


def attack(config: Config, argv: Sequence[str], locks: ExitStack) -> None:
    """Query the models whose scores are not cached, run the attacks, write tables and report to result/<run>/.

    locks: released at the end of the script, where the folder of the results is locked."""
    import numpy as np  # here: these imports take seconds, and the flags are checked by now
    import torch

    from common import prepare
    from lira.attacks.inputs import AttackInputs
    from lira.attacks.run import run_attacks
    from lira.report import html, terminal
    from lira.report.results import exposed_images
    from lira.storage.attack_set import complete_attack, one_attack
    from lira.storage.canaries import load_canaries
    from lira.storage.checkpoints import Checkpoint, load_into
    from lira.storage.owner import source_of_file
    from lira.storage.provenance import provenance
    from lira.storage.runs import open_run, results_of_scores, results_only
    from lira.storage.scores import ScoreCache, read_scores
    from lira.storage.targets import check_no_shadow, own_targets, results_beside
    from lira.training import schedule
    from lira.training.failures import as_model_error
    from lira.training.kernels import keep_freed_memory
    from lira.training.progress import to_query
    from lira.training.query import declared_queries, query_logits, query_model
    from lira.training.workers import Workers

    flags, result_dir, name = config.attack, config.run.result_dir, config.run.run
    if flags.compare:
        print(html.compare(result_dir, flags.compare))
        return
    if flags.report_only:
        run = results_of_scores(result_dir, flags.scores) if flags.scores else results_only(result_dir, name or "")
        run = results_beside(run, flags.own_targets) if flags.own_targets else run
        given = flags.scores if flags.scores and Path(flags.scores).is_file() else None
        with complete_attack(run.results, source_of_file("--scores", given) if given else None):
            print(terminal.report(*html.write(run)))
        return

    if not (config.run.n_runs or flags.own_targets):
        raise InputError("--n-runs 0 leaves no target: give your own model by --target-weights or --target-outputs")
    start, attacked_by = time.monotonic(), provenance("attack_lira.py", argv)
    keep_freed_memory()
    Workers().set_threads(config.run.threads)
    canaries = None
    if flags.scores:
        run = results_of_scores(result_dir, flags.scores)
        inputs = read_scores(Path(flags.scores), n_targets=config.run.n_runs, inclusion=config.data.target_inclusion)
        attack_set = locks.enter_context(one_attack(run.results, source_of_file("--scores", flags.scores)))
        description = f"{flags.scores}: {inputs.describe()}"
    else:
        setup, own = prepare(config), flags.own_targets
        # How the members of the run's own targets were drawn says nothing of models trained elsewhere.
        not_compared = ("target_inclusion",) if own else ()
        run = open_run(config.run.model_dir, result_dir, setup.identity, name=name, not_compared=not_compared)
        jobs = schedule.planned_models(0 if own else config.run.n_runs, config.run.n_shadows)
        instead = "" if run.models.is_dir() else _forgotten_flag(config, argv, setup)
        schedule.require_models(jobs, run, _training_flags(argv) if own else argv, instead=instead)
        if not own:
            attack_set = locks.enter_context(one_attack(run.results, run.source))
        member, label = np.stack([setup.split.member(*job) for job in jobs]), setup.images.y_test
        queries = declared_queries(flags.n_queries, flip=setup.flip, margin=setup.store.margin)
        cache = ScoreCache(run, jobs, member, label.numpy(), queries)
        model = setup.build().to(setup.device).to(memory_format=torch.channels_last)
        samples = torch.arange(len(label), device=setup.device) + setup.store.first_sample
        missing, images, size = dict(cache.missing()), setup.store.unaugmented, config.run.test_batch_size
        for job in to_query(jobs, missing, quiet=config.run.quiet):
            with as_model_error(model_name(*job), setup.device, memory_flag="--test-batch-size"):
                run.load_into(model, *job)  # all: cached scores may be those of a network before its code changed
                if job in missing:
                    scores = query_model(model, images, samples, label, queries=missing[job], batch_size=size)
                    cache.add(job, missing[job], scores)
        if missing or not own:
            cache.save()
        models, phi, n_targets = run.models_table(), cache.phi, config.run.n_runs
        guarantees = mechanisms = canaries = None
        description = setup.describe()
        if not own:
            run.save_table("models.csv", models)
            canaries = load_canaries(run, n_targets)
            if config.dp:
                guarantees, mechanisms = run.guarantees(n_targets), run.mechanisms(n_targets)
        else:

            def query_own(checkpoint: Checkpoint) -> np.ndarray:
                check_no_shadow(checkpoint, run, jobs)
                with as_model_error(str(checkpoint.path), setup.device, memory_flag="--test-batch-size"):
                    load_into(model, checkpoint)
                    return query_logits(model, images, samples, queries=queries, batch_size=size)

            targets = own_targets(
                flags.target_weights,
                flags.target_outputs,
                setup.images,
                query=query_own,
                member_of=setup.member_of,
                delta=config.dp.delta if config.dp else 0.0,
            )
            shadows, run = models[models.role == "shadow"], results_beside(run, own)
            description += f"\n{targets.describe(shadows)}"
            jobs, n_targets, guarantees = [*targets.jobs, *jobs], len(own), targets.guarantees
            phi, member = np.concatenate([targets.phi, phi]), np.concatenate([targets.member, member])
            attacked_by |= {"targets": targets.provenance}
            attack_set = locks.enter_context(one_attack(run.results, targets.source(run)))
            targets.save(run, phi=phi, member=member, label=label.numpy(), shadows=shadows)
        inputs = AttackInputs(
            phi=phi,
            member=member,
            n_targets=n_targets,
            label=label.numpy(),
            class_names=setup.images.class_names,
            model_names=tuple(model_name(*job) for job in jobs),
            images=setup.images.x_test.numpy(),
            inclusion=config.data.target_inclusion,
            guarantees=guarantees,
            mechanisms=mechanisms,
            canaries=canaries.scores if canaries else None,
        )
        print(description)

    tables = run_attacks(
        inputs,
        names=flags.attacks or None,
        convention=flags.convention,
        fdr=flags.fdr,
        with_leave_one_out=flags.leave_one_out,
        with_curve=flags.curve,
        quiet=config.run.quiet,
    )
    arrays = {} if inputs.images is None else {"images.npz": exposed_images(tables, inputs.images)}
    if inputs.mechanisms and canaries:
        tables["mechanism.csv"] = canaries.mechanism_table(inputs.mechanisms)
        arrays["canaries.npz"] = canaries.arrays
    seconds = time.monotonic() - start
    info = {"data": description, "seconds": seconds, "fdr": flags.fdr}
    attack_set.save(tables, arrays, attacked_by | info)
    print(terminal.report(*html.write(run)))


def _training_flags(argv: Sequence[str]) -> list[str]:
    """The flags by which train_model.py trains the shadows alone of the run that is attacked by these."""
    kept, left_out = [], False
    for argument in argv:
        if argument.startswith("-"):
            left_out = argument.partition("=")[0] in ("--target-weights", "--target-outputs", "--n-runs", "-r")
        kept += [] if left_out else [argument]
    return [*kept, "--n-runs", "0"]


def _forgotten_flag(config: Config, argv: Sequence[str], setup: "Setup") -> str:
    """What to do where the run that is missing exists with, or without, --disable-dp; empty where it does not."""
    others = [*argv, "--disable-dp"] if config.dp else [argument for argument in argv if argument != "--disable-dp"]
    try:
        name = run_name(setup.identity_of(parse_args(others, description="")))
    except InputError:  # another flag has no meaning then
        return ""
    if not Path(config.run.model_dir, name).is_dir():
        return ""
    return f"{'add' if config.dp else 'leave out'} --disable-dp to attack {name}, or "


if __name__ == "__main__":
    sys.exit(main())
