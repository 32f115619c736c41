"""The flags of both scripts, their defaults and checks. Each default exists once, in the dataclass of its group.

Imports no torch, so that --help and a mistyped flag respond at once."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lira.attacks.registry import ATTACKS
from lira.errors import InputError
from lira.flags import Parser, add_argument, as_arguments, check_range, flag, flag_name, names, shard

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
        "cifar10", help="cifar10, cifar100, mnist, digits, or your own: a .npz, or a folder of train/, test/"
    )
    data_root: str = flag("data", help="folder of downloads and decoded images", metavar="DIR")
    n_train: int | None = flag(
        None, type=int, low=1, help="images drawn from a half (default: the smaller of 20000 and 80 %% of a half)"
    )
    augment: bool = flag(True, "--no-augment", help="train without random shifts and flips")
    target_inclusion: str = flag(
        "half", choices=("half", "coin"), help="a target's samples: exactly half, or each with probability 1/2"
    )


@dataclass(frozen=True)
class ModelConfig:
    """model"""

    network: str = flag("ResNet18", help="ResNet18, ResNet34, ResNet50, ConvNet, or module:factory for your own")
    n_runs: int = flag(1, "-r", "--n-runs", low=1, high=100, help="target models, each attacked separately")
    n_shadows: int = flag(20, low=4, high=9998, help="shadow models, an even number")
    exp_idx: int = flag(0, low=0, high=2**31 - 1, help="index of the experiment, the root of all random draws")


@dataclass(frozen=True)
class TrainConfig:
    """training"""

    epochs: int = flag(100, "-n", "--epochs", low=1, help="passes over the training set")
    lr: float | None = flag(None, type=float, low=0.0, help=f"learning rate (default: {_DEFAULT_RATES})")
    optimizer: str = flag("MSGD", choices=tuple(LEARNING_RATES), help="MSGD is SGD with momentum 0.9")
    train_batch_size: int = flag(256, low=1, help="images per step")
    lr_step: int | None = flag(
        None, type=int, low=1, help=f"epochs before the rate is multiplied by 0.1, without DP (default: {LR_STEP})"
    )
    precision: str = flag(
        "auto", choices=("auto", "fp32", "bf16"), help="auto: bf16 autocast where the hardware supports it, else fp32"
    )
    eval_every: int = flag(10, low=1, help="epochs between two measurements of the test accuracy")
    checkpoint_every: int | None = flag(
        None, type=int, low=1, help="epochs between checkpoints (default: so that they cost below 2 %% of the time)"
    )


@dataclass(frozen=True)
class DPConfig:
    """privacy"""

    sigma: float | None = flag(
        None, type=float, low=0.0, help=f"noise multiplier: standard deviation / clipping norm (default: {SIGMA:g})"
    )
    max_grad_norm: float = flag(
        0.1, "-c", "--max-per-sample-grad_norm", "--max-per-sample-grad-norm", low=0.0, help="per-sample clipping norm"
    )
    delta: float = flag(1e-5, low=0.0, high=1.0, help="the delta of (epsilon, delta)-DP")
    target_epsilon: float | None = flag(
        None, type=float, low=0.0, help="instead of --sigma: the smallest noise with at most this epsilon"
    )
    max_physical_batch: int = flag(64, low=1, help="per-sample gradients that are in memory at the same time")


@dataclass(frozen=True)
class AttackConfig:
    """attack"""

    attacks: tuple[str, ...] = flag((), type=names, metavar="NAME,…", help="attacks to run, by commas (default: all)")
    n_queries: int = flag(1, low=1, help="fixed augmentations under which each sample is queried, the identity first")
    leave_one_out: bool = flag(False, help="also attack each shadow, with its pair held out")
    curve: bool = flag(False, help="also run the attacks with 4, 8, 16, … of the shadows")
    convention: str = flag(
        "lira", choices=("lira", "official"), help="official: LiRA as in the plotting script of its authors"
    )
    scores: str | None = flag(
        None, type=str, metavar="FILE.npz", help="attack phi and member from this file; needs no model"
    )
    report_only: bool = flag(False, help="write report.html and the figures again, from the tables on disk")
    compare: tuple[str, ...] = flag(
        (), many=True, metavar="RUN", help="write a page that compares these attacked runs, given by name or path"
    )


@dataclass(frozen=True)
class RunConfig:
    """run"""

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
    quiet: bool = flag(False, help="no progress bars")


@dataclass(frozen=True)
class Config:
    """The flags of one run. Both scripts take the same ones."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dp: DPConfig | None = field(default_factory=DPConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def identity(
        self, *, precision: str | None, n_train: int | None, n_train_is_default: bool, fingerprint: str | None
    ) -> dict[str, Any]:
        """All settings that change the models' weights. The arguments depend on the data and the hardware; None where
        those have not been read yet.

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
        if self.dp:
            name |= {key: getattr(self.dp, key) for key in ("sigma", "target_epsilon", "max_grad_norm")}
        return {
            **name,
            **({"delta": self.dp.delta} if self.dp else {"lr_step": train.lr_step}),
            "target_inclusion": self.data.target_inclusion,
            "data_fingerprint": fingerprint,
            "n_train_is_default": n_train_is_default,
        }


# Field of Config -> its dataclass, whose docstring is the heading in --help.
GROUPS: dict[str, Any] = {item.name: item.default_factory for item in fields(Config)}


def build_parser(description: str) -> argparse.ArgumentParser:
    """The parser that both scripts share, made from the dataclasses above."""
    parser = Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    for group_name, group in GROUPS.items():
        section = parser.add_argument_group(group.__doc__)
        if group is DPConfig:
            section.add_argument(
                "--disable-dp", action="store_true", help="train without differential privacy (default: off)"
            )
        for item in fields(group):
            add_argument(section, item, dest=f"{group_name}.{item.name}")
    return parser


def parse_args(argv: Sequence[str] | None, *, description: str) -> Config:
    """The flags as a checked Config. Raises InputError with one line; `--help` exits with 0."""
    values = vars(build_parser(description).parse_args(argv))
    disable_dp = values.pop("disable_dp")
    values = {dest: tuple(value) if isinstance(value, list) else value for dest, value in values.items()}
    groups = {
        name: group(**{item.name: values[f"{name}.{item.name}"] for item in fields(group)})
        for name, group in GROUPS.items()
    }
    _check_values(groups)
    _check_contradictions(groups, disable_dp=disable_dp)
    return _with_defaults(Config(**groups | ({"dp": None} if disable_dp else {})))


def _check_values(groups: dict[str, Any]) -> None:
    for group in groups.values():
        for item in fields(group):
            check_range(item, getattr(group, item.name))
    n_shadows = groups["model"].n_shadows
    if n_shadows % 2:
        raise InputError(f"--n-shadows must be even, shadows come in pairs: got {n_shadows}, use {n_shadows + 1}")
    for name in groups["attack"].attacks:
        if name not in ATTACKS:
            raise InputError(f"--attacks: no attack is called {name!r}, choose from {', '.join(ATTACKS)}")


def _check_contradictions(groups: dict[str, Any], *, disable_dp: bool) -> None:
    dp, lr_step = groups["dp"], groups["train"].lr_step
    if disable_dp:
        for item in fields(dp):
            if (setting := getattr(dp, item.name)) != item.default:
                raise InputError(f"{flag_name(item)} {setting:g} has no meaning with --disable-dp: leave one out")
    elif lr_step is not None:
        raise InputError(f"--lr-step {lr_step} has no meaning with DP: leave it out, or add --disable-dp")
    elif groups["run"].compile:
        raise InputError("--compile does not support DP's per-sample gradients: leave it out, or add --disable-dp")
    if groups["attack"].report_only and groups["attack"].compare:
        raise InputError("--report-only and --compare cannot be combined: give one")
    if dp.sigma is not None and dp.target_epsilon is not None:
        raise InputError(
            f"--sigma {dp.sigma:g} and --target-epsilon {dp.target_epsilon:g} both set the noise: give one"
        )


def _with_defaults(config: Config) -> Config:
    """The config with the defaults that depend on other flags filled in."""
    train, dp = config.train, config.dp
    rates = LEARNING_RATES_DP if dp else LEARNING_RATES
    train = replace(train, lr=rates[train.optimizer] if train.lr is None else train.lr)
    if not dp:
        return replace(config, train=replace(train, lr_step=train.lr_step or LR_STEP))
    if dp.sigma is None and dp.target_epsilon is None:
        dp = replace(dp, sigma=SIGMA)
    return replace(config, train=train, dp=dp)


def attack_command(config: Config, *, beside: str) -> str:
    """The shell command that attacks the run of this config; only flags that differ from their defaults.

    beside: the path by which train_model.py was called."""
    folder = Path(beside).parent if Path(beside).name == "train_model.py" else Path()
    return shlex.join(["python", str(folder / "attack_lira.py"), *_flags(config)])


def _flags(config: Config) -> list[str]:
    """The shortest list of flags that parse_args() turns into this config, except --shard and --plan.

    Fields without a default of their own come last, because they may follow from the others, as --lr does."""
    arguments = [] if config.dp else ["--disable-dp"]
    items = [(name, item) for name, group in GROUPS.items() if getattr(config, name) for item in fields(group)]
    for name, item in sorted(items, key=lambda pair: pair[1].default is None):
        setting = getattr(getattr(config, name), item.name)
        default = getattr(getattr(parse_args(arguments, description=""), name), item.name)
        if setting != default and item.name not in ("shard", "plan"):
            arguments += as_arguments(item, setting)
    return arguments


def run_script(body: Callable[[Config], int | None], argv: Sequence[str] | None, *, description: str) -> int:
    """Parse the flags and run body(config). Returns its exit status, 2 after an InputError, 130 after Ctrl-C."""
    try:
        return body(parse_args(argv, description=description)) or 0
    except InputError as error:
        print("error:", " ".join(str(error).split("\n")), file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        progress = str(interrupt) or "complete models are kept"
        print(f"\nstopped: {progress}; run the same command again to resume", file=sys.stderr)
        return 130
