"""The flags of both scripts, their defaults and checks. Each default exists once, in the dataclass of its group.

Imports neither torch nor NumPy, so that --help and a mistyped flag respond at once."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lira.attacks.registry import CONVENTIONS, MIN_SHADOWS, attack_name
from lira.errors import CorruptedFile, InputError, ModelError, guarded_output, log, one_line, out_of_memory, warn
from lira.flags import Parser, add_argument, check_range, flag, flag_name, names, shard
from lira.storage.config import find_run, n_on_disk

# Initial learning rates without DP, for batches of 256 and the x0.1 step. Chosen with
# `python benchmarks/learning_rates.py` on CIFAR-10 for both networks (benchmarks/RESULTS.md): the most accurate
# on ConvNet of the rates tried, and well below the rate at which either network stops training.
LEARNING_RATES = {"SGD": 0.1, "MSGD": 0.05, "adam": 1e-3, "RMSprop": 3e-4}
# The same for DP-SGD with C 0.1 and no step: on digits at epsilon 8, 60 steps, below the rates that diverge.
LEARNING_RATES_DP = {"SGD": 10.0, "MSGD": 1.0, "adam": 2e-3, "RMSprop": 1e-3}
LR_STEP, SIGMA = 80, 1.0  # without DP and with DP respectively, where no flag sets them
_DEFAULT_RATES = "; with DP ".join(
    ", ".join(f"{name} {rate:g}" for name, rate in rates.items()) for rates in (LEARNING_RATES, LEARNING_RATES_DP)
)


@dataclass(frozen=True)
class DataConfig:
    """data"""

    dataset: str = flag(
        "cifar10", help="cifar10, cifar100, mnist, digits, or your own .npz, or folder of train/, test/"
    )
    data_root: str = flag("data", changes_models=False, help="folder of downloads and decoded images", metavar="DIR")
    n_train: int | None = flag(
        None,
        type=int,
        low=0,
        help="images drawn from a half; 0 trains on target samples alone (default: 20000, or 80 %% of the half)",
    )
    augment: bool = flag(True, "--no-augment", help="train without random shifts and flips")
    target_inclusion: str | None = flag(  # None until the default is filled in, and for models trained elsewhere
        None,
        choices=("half", "coin"),
        help="a target's samples: exactly half, or each with probability 1/2 (default: half; with DP coin, except for "
        "--scores; with --target-weights and --target-outputs none, and no audit)",
    )


@dataclass(frozen=True)
class ModelConfig:
    """model"""

    network: str = flag(
        "ResNet18", help="ResNet18, ResNet34, ResNet50, WRN28-2, ConvNet, or module:factory for your own"
    )
    exp_idx: int = flag(0, low=0, high=2**31 - 1, help="index of the experiment, the root of all random draws")


@dataclass(frozen=True)
class TrainConfig:
    """training"""

    epochs: int = flag(100, "-n", "--epochs", low=1, help="passes over the training set")
    lr: float | None = flag(None, type=float, low=0.0, help=f"learning rate (default: {_DEFAULT_RATES})")
    optimizer: str = flag("MSGD", choices=tuple(LEARNING_RATES), help="MSGD is SGD with momentum 0.9")
    train_batch_size: int = flag(256, low=1, help="images per step")
    weight_decay: float = flag(1e-4, low=0, help="this times each weight is added to its gradient, biases included")
    lr_schedule: str = flag(
        "step",
        choices=("step", "cosine"),
        help="step: see --lr-step; cosine: half a cosine from the rate towards 0, epoch by epoch; with DP constant",
    )
    lr_step: int | None = flag(
        None, type=int, low=1, help=f"epochs before the rate is multiplied by 0.1, without DP (default: {LR_STEP})"
    )
    precision: str = flag(
        "auto", choices=("auto", "fp32", "bf16"), help="auto: bf16 autocast where the hardware supports it, else fp32"
    )
    eval_every: int = flag(10, changes_models=False, low=1, help="epochs between two measurements of the test accuracy")
    checkpoint_every: int | None = flag(
        None, changes_models=False, type=int, low=1, help="epochs between checkpoints (default: every minute)"
    )


@dataclass(frozen=True)
class DPConfig:
    """privacy"""

    disabled: bool = flag(False, "--disable-dp", help="train without differential privacy")
    sigma: float | None = flag(
        None, type=float, low=0.0, help=f"noise multiplier: standard deviation / clipping norm (default: {SIGMA:g})"
    )
    max_grad_norm: float = flag(
        0.1, "-c", "--max-per-sample-grad_norm", "--max-per-sample-grad-norm", low=0.0, help="per-sample clipping norm"
    )
    delta: float = flag(1e-5, low=0.0, high=1.0, help="the delta of (epsilon, delta)-DP")
    target_epsilon: float | None = flag(None, type=float, low=0.0, help="instead of --sigma: the least noise for it")
    noise_seed: int | None = flag(
        None, type=int, low=0, help="draw noise and samples from a seed, for tests: the guarantee is nominal then"
    )
    canaries: int | None = flag(
        None,
        type=int,
        low=0,
        help="gradient canaries of each target, for the audit (default: 5000, or a tenth of the weights)",
    )
    max_physical_batch: int = flag(64, changes_models=False, low=1, help="per-sample gradients that fit in memory")


@dataclass(frozen=True)
class AttackConfig:
    """attack"""

    attacks: tuple[str, ...] = flag((), type=names, metavar="NAME,…", help="attacks to run, by commas (default: all)")
    n_queries: int = flag(1, low=1, help="fixed augmentations under which each sample is queried, the identity first")
    leave_one_out: bool = flag(False, help="also attack each shadow, with its pair held out")
    curve: bool = flag(False, help="also run the attacks with 4, 8, 16, … of the shadows")
    convention: str = flag("lira", choices=CONVENTIONS, help="official: LiRA as in the plotting script of its authors")
    fdr: float = flag(
        0.05, low=0.0, high=1.0, help="false discovery rate at which exposed.csv lists samples as members"
    )
    scores: str | None = flag(
        None,
        type=str,
        metavar="FILE.npz",
        help="attack the models of this file, the first --n-runs of them as targets: member, and phi, or logits or "
        "probabilities with label",
    )
    target_weights: tuple[str, ...] = flag(
        (),
        many=True,
        metavar="FILE.pt",
        help="attack your own models of --network, not the run's targets: a state_dict, or a checkpoint with one; "
        "the array `member` of --dataset says which of x_test they were trained on",
    )
    target_outputs: tuple[str, ...] = flag(
        (),
        many=True,
        metavar="FILE.npz",
        help="the same by their outputs on x_test: logits or probabilities (N, K), or phi (N,)",
    )
    report_only: bool = flag(False, help="write the page and figures of --run or --scores again, from its tables")
    compare: tuple[str, ...] = flag((), many=True, metavar="RUN", help="write a page that compares these attacked runs")

    @property
    def own_targets(self) -> tuple[str, ...]:
        """The files of models trained elsewhere, which are attacked instead of the run's targets."""
        return self.target_weights + self.target_outputs


@dataclass(frozen=True)
class RunConfig:
    """run"""

    run: str | None = flag(None, type=str, metavar="RUN", help="name or path of a run's folder: stands for its flags")
    n_runs: int = flag(
        1,
        "-r",
        "--n-runs",
        low=0,
        high=100,
        help="target models; 0: none, to attack your own (default: 1, or those of --run)",
    )
    n_shadows: int = flag(20, low=4, high=9998, help="shadow models, an even number (default: 20, or those of --run)")
    device: str = flag("auto", help="auto, cuda, cuda:N, mps, cpu")
    test_batch_size: int = flag(1024, low=1, help="images per batch when a model is only queried")
    model_dir: str = flag("model", help="folder of the weights", metavar="DIR")
    result_dir: str = flag("result", help="folder of logs, scores, tables and figures", metavar="DIR")
    shard: tuple[int, int] | None = flag(
        None, type=shard, metavar="I/N", help="train only part I of N, from 1 to N: one part per job of a job array"
    )
    threads: int | None = flag(
        None, type=int, low=1, help="CPU threads per worker (default: all cores, divided among a machine's workers)"
    )
    compile: bool = flag(False, help="train with torch.compile: the first step takes minutes, later ones may be faster")
    plan: bool = flag(False, help="train nothing: list the missing models and estimate what they will cost")
    quiet: bool = flag(False, help="no progress bars, lines or forecast")


@dataclass(frozen=True)
class Config:
    """The flags of one run. Both scripts take the same ones."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dp: DPConfig | None = field(default_factory=DPConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def flags(self, *, precision: str) -> dict[str, Any]:
        """What config.json stores for --run: flag -> value, of all that differ from "off". precision: as resolved."""
        data = replace(self.data, data_root=str(Path(self.data.data_root).resolve()))
        train = replace(self.train, precision=precision)
        flags: dict[str, Any] = {} if self.dp else {"--disable-dp": True}
        groups: list[Any] = [data, self.model, train, *([self.dp] if self.dp else []), self.run]
        for group in groups:
            for item in fields(group):
                value = getattr(group, item.name)
                given = value != item.default if isinstance(value, bool) else value is not None
                if given and (group is not self.run or item.name in ("n_runs", "n_shadows")):
                    flags[flag_name(item)] = True if isinstance(value, bool) else value
        return flags

    def identity(self, *, precision: str, n_train: int, n_train_is_default: bool, fingerprint: str) -> dict[str, Any]:
        """All settings that change the models' weights. The arguments depend on the data and the hardware.

        The keys in `name` make the run's name; the others must agree with the run's config.json."""
        train = self.train
        name = {
            "dataset": Path(self.data.dataset).resolve().name,  # the fingerprint says whether it is the same data
            "network": self.model.network,
            "optimizer": train.optimizer,
            "lr": train.lr,
            "batch_size": train.train_batch_size,
            "epochs": train.epochs,
            "precision": precision,
            "augment": self.data.augment,
            "n_train": n_train,
            "exp_idx": self.model.exp_idx,
        }
        for key in ("weight_decay", "lr_schedule"):  # added later: runs of before have neither, and these defaults
            if (value := getattr(train, key)) != getattr(TrainConfig, key):
                name[key] = value
        if self.dp:
            name |= {key: getattr(self.dp, key) for key in ("sigma", "target_epsilon", "max_grad_norm")}
            name |= {"noise_seed": self.dp.noise_seed} if self.dp.noise_seed is not None else {}
        return {
            **name,
            **({"delta": self.dp.delta} if self.dp else {}),
            **({"lr_step": train.lr_step} if train.lr_step else {}),
            "target_inclusion": self.data.target_inclusion,
            "data_fingerprint": fingerprint,
            "n_train_is_default": n_train_is_default,
        }


# Field of Config -> its dataclass, whose docstring is the heading in --help.
GROUPS: dict[str, Any] = {item.name: item.default_factory for item in fields(Config)}
RESTORED = ("data", "model", "train", "dp")  # the groups that config.json stores, for --run
HIDDEN = {  # script -> groups and flags of the other script, which only --help-all lists
    "train_model.py": ("attack",),
    "attack_lira.py": (*RESTORED, "run.shard", "run.compile", "run.plan"),
}
ONE_SCRIPT = {  # flags that the other script would ignore, although they change what is done -> the script
    **dict.fromkeys(
        [f"attack.{name}" for name in ("scores", "target_weights", "target_outputs", "report_only", "compare")],
        "attack_lira.py",
    ),
    "run.plan": "train_model.py",
}
_ITEMS = {f"{name}.{item.name}": item for name, group in GROUPS.items() for item in fields(group)}


def build_parser(description: str, *, hidden: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of both scripts, from the dataclasses above. hidden: groups and flags that --help leaves out."""
    parser = Parser(
        usage="python %(prog)s [flags]",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if hidden:
        text = "also list the flags that the other script reads"
        parser.add_argument("--help-all", action="store_true", default=argparse.SUPPRESS, help=text)
    for name, group in GROUPS.items():
        section = parser.add_argument_group(group.__doc__)
        for item in fields(group):
            dest = f"{name}.{item.name}"
            add_argument(section, item, dest=dest, show=not {name, dest} & set(hidden))
    return parser


def parse_args(argv: Sequence[str], *, description: str, script: str = "") -> Config:
    """The flags as a checked Config; with --run those of its config.json, then those given. script: whose flags --help
    lists and which are accepted, by default all. Raises InputError with one line; --help exits with 0."""
    if "--help-all" in argv:
        build_parser(description).parse_args(["--help"])
    values = vars(build_parser(description, hidden=HIDDEN.get(script, ())).parse_args(argv))
    values = {dest: tuple(value) if isinstance(value, list) else value for dest, value in values.items()}
    for dest, owner in ONE_SCRIPT.items():
        if dest in values and script not in ("", owner):
            raise InputError(f"{flag_name(_ITEMS[dest])} is a flag of {owner}: give it there, or leave it out")
    return make_config(_restore(values, training=script == "train_model.py") if "run.run" in values else values)


def make_config(values: Mapping[str, Any]) -> Config:
    """A checked Config. values: "group.field" -> value of the flags that are set. Raises InputError."""
    groups = {
        name: group(**{item.name: values.get(f"{name}.{item.name}", item.default) for item in fields(group)})
        for name, group in GROUPS.items()
    }
    _check_values(groups)
    _check_contradictions(groups)
    return _with_defaults(Config(**groups | ({"dp": None} if groups["dp"].disabled else {})))


def _restore(given: dict[str, Any], *, training: bool) -> dict[str, Any]:
    """The flags given with those that --run stands for. The numbers of models are by default those on disk; training
    completes the models that the run was started with. Raises InputError where a given flag contradicts the run."""
    run: str = given["run.run"]
    model_dir, result_dir = (given.get(f"run.{name}", getattr(RunConfig, name)) for name in ("model_dir", "result_dir"))
    models, results, config = find_run(run, model_dir, result_dir)
    if "shadows_of" in config and "attack.report_only" not in given:
        again = f"--run {config['shadows_of']} --target-weights FILE.pt, or --target-outputs FILE.npz"
        raise InputError(f"--run {run} is an attack on models from elsewhere, not a run: to attack again, give {again}")
    try:
        arguments = [name if value is True else f"{name}={value}" for name, value in config["flags"].items()]
        stored = vars(build_parser("").parse_args(arguments))
        make_config(stored)
        planned = {"run.n_runs": stored["run.n_runs"], "run.n_shadows": stored["run.n_shadows"]}
    except (KeyError, AttributeError, InputError) as error:
        remedy = "give the flags that the run was made with instead of --run"
        raise CorruptedFile(models / "config.json", f"its flags cannot be read: {one_line(error)}", remedy) from error
    fixed = [dest for dest in given if dest.partition(".")[0] in RESTORED and _ITEMS[dest].metadata["changes_models"]]
    not_compared = {"attack.report_only"} & given.keys()
    if given.keys() & {"attack.target_weights", "attack.target_outputs"}:  # theirs is stated, the run's is another's
        stored.pop("data.target_inclusion", None)
        fixed = [dest for dest in fixed if dest != "data.target_inclusion"]
        not_compared.add("run.n_runs")
    for dest in fixed:
        value, stored_value, name = given[dest], stored.get(dest, _ITEMS[dest].default), flag_name(_ITEMS[dest])
        if _comparable(dest, value) != _comparable(dest, stored_value):
            flag_given = name if isinstance(value, bool) else f"{name} {value}"
            made = f"with {name} {stored_value}" if dest in stored else "without it"
            raise InputError(f"{flag_given} contradicts --run {run}, which was made {made}: leave it out")
    n_targets, n_shadows = n_on_disk(models)
    on_disk = {"run.n_runs": n_targets, "run.n_shadows": n_shadows if n_shadows >= MIN_SHADOWS else 0}
    for dest, n in on_disk.items():
        stored[dest] = max(n, planned[dest]) if training else n or planned[dest]
        if stored[dest] < planned[dest] and not (dest in given or not_compared & {dest, "attack.report_only"}):
            name = flag_name(_ITEMS[dest])
            warn(f"{name} is {n}, the models on disk, of {planned[dest]}; train_model.py --run {run} trains the others")
    free = {dest: value for dest, value in given.items() if dest not in fixed or dest == "data.dataset"}  # it may move
    folders = {"run.run": results.name, "run.model_dir": str(models.parent), "run.result_dir": str(results.parent)}
    return stored | free | folders


def _comparable(dest: str, value: Any) -> str:
    """Equal for values that agree: names in any case, and paths of a data set whose last parts agree."""
    return (os.path.basename(os.path.abspath(value)) if dest == "data.dataset" else str(value)).casefold()  # noqa: PTH100, PTH119


def _check_values(groups: dict[str, Any]) -> None:
    for group in groups.values():
        for item in fields(group):
            check_range(item, value := getattr(group, item.name))
            if value == "" or value == ("",):  # of an unset variable of the shell; it would be taken for no flag at all
                raise InputError(f"{flag_name(item)} is empty: give a value, or leave the flag out")
    n_shadows, threads = groups["run"].n_shadows, groups["run"].threads
    if n_shadows % 2:
        raise InputError(f"--n-shadows must be even, shadows come in pairs: got {n_shadows}, use {n_shadows + 1}")
    if threads:
        from joblib import cpu_count  # here: slow to import. It counts by affinity and by the container's quota

        if threads > 2 * (cores := cpu_count()):
            raise InputError(f"--threads must be at most {2 * cores}, twice the {cores} cores here: got {threads}")


def _check_contradictions(groups: dict[str, Any]) -> None:
    dp, train = groups["dp"], groups["train"]
    if train.lr_step is not None and train.lr_schedule != "step":
        raise InputError(
            f"--lr-step {train.lr_step} has no meaning with --lr-schedule {train.lr_schedule}: leave one out"
        )
    if dp.disabled:
        for item in fields(dp)[1:]:
            if (setting := getattr(dp, item.name)) != item.default:
                raise InputError(f"{flag_name(item)} {setting:g} has no meaning with --disable-dp: leave one out")
    elif train.lr_step is not None:
        raise InputError(f"--lr-step {train.lr_step} has no meaning with DP: leave it out, or add --disable-dp")
    elif train.lr_schedule != "step":
        raise InputError(f"--lr-schedule {train.lr_schedule} has no meaning with DP: leave it out, or add --disable-dp")
    elif groups["run"].compile:
        raise InputError("--compile does not support DP's per-sample gradients: leave it out, or add --disable-dp")
    attack, run = groups["attack"], groups["run"].run
    if attack.report_only and attack.compare:
        raise InputError("--report-only and --compare cannot be combined: give one")
    if attack.report_only and not (run or attack.scores):
        raise InputError("--report-only needs --run RUN or --scores FILE.npz, which says whose results: give one")
    if attack.scores and run:
        raise InputError(f"--scores {attack.scores} and --run {run} both say what to attack: give one")
    sources = [
        f"--{name.replace('_', '-')}"
        for name in ("scores", "target_weights", "target_outputs")
        if getattr(attack, name)
    ]
    if len(sources) > 1:
        raise InputError(f"{' and '.join(sources)} both say what to attack: give one")
    if attack.target_outputs and attack.n_queries > 1:
        raise InputError(f"--target-outputs hold one query of each sample: leave out --n-queries {attack.n_queries}")
    if dp.sigma is not None and dp.target_epsilon is not None:
        raise InputError(
            f"--sigma {dp.sigma:g} and --target-epsilon {dp.target_epsilon:g} both set the noise: give one"
        )


def _with_defaults(config: Config) -> Config:
    """The config with the defaults that depend on other flags filled in."""
    attacks = tuple(dict.fromkeys(map(attack_name, config.attack.attacks)))
    config = replace(config, attack=replace(config.attack, attacks=attacks))
    train, dp, data = config.train, config.dp, config.data
    if not config.attack.own_targets:
        # With exact halves and a delta the audit can show little; how the targets of --scores were trained is not known
        inclusion = data.target_inclusion or ("coin" if dp and not config.attack.scores else "half")
        config = replace(config, data=replace(data, target_inclusion=inclusion))
    rates = LEARNING_RATES_DP if dp else LEARNING_RATES
    train = replace(train, lr=rates[train.optimizer] if train.lr is None else train.lr)
    if not dp:
        lr_step = (train.lr_step or LR_STEP) if train.lr_schedule == "step" else None
        return replace(config, train=replace(train, lr_step=lr_step))
    if dp.sigma is None and dp.target_epsilon is None:
        dp = replace(dp, sigma=SIGMA)
    return replace(config, train=train, dp=dp)


def run_script(
    body: Callable[[Config], int | None], argv: Sequence[str], *, script: str, description: str | None
) -> int:
    """Parse the flags and run body(config). Returns its exit status; 1 after a ModelError, a lack of memory or of space
    for stdout, 2 after an InputError or a path that cannot be used, 130 after Ctrl-C."""
    with guarded_output() as output_status:
        try:
            return body(parse_args(argv, script=script, description=description or "")) or output_status()
        except (InputError, ModelError) as error:
            log(f"error: {error}")
            return 1 if isinstance(error, ModelError) else 2
        except KeyboardInterrupt:
            print("\nstopped: complete models are kept; run the same command again to resume", file=sys.stderr)
            return 130
        except Exception as error:
            if reason := out_of_memory(error):
                log(f"error: out of memory ({reason}); free some of it, or use less data, and run the command again")
                return 1
            if isinstance(error, OSError) and error.filename:  # too long a name, no permission, a disk that fails
                log(f"error: {error.filename}: {error.strerror}; give another path, or make this one accessible")
                return 2
            raise
