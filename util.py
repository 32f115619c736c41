"""Flags, their defaults and their checks. Each default exists once, in the dataclass that its flag is made from.

No torch here: what a run is called and how it is set needs no network and no data."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from lira.errors import InputError
from lira.flags import Parser, add_argument, check_range, flag, flag_name, names, shard, spelled, value

# Starting learning rates for batches of 256 with the x0.1 step, without DP. Chosen with
# `python benchmarks/learning_rates.py` on CIFAR-10 images for both networks (benchmarks/RESULTS.md): the most
# accurate on ConvNet of the rates tried, and well below the rate at which either network stops training.
LEARNING_RATES = {"SGD": 0.1, "MSGD": 0.05, "adam": 1e-3, "RMSprop": 3e-4}
# The same for DP-SGD with C 0.1 and no step: on digits at epsilon 8, 60 steps, below the rates where training breaks.
LEARNING_RATES_DP = {"SGD": 10.0, "MSGD": 1.0, "adam": 2e-3, "RMSprop": 1e-3}
LR_STEP, SIGMA = 80, 1.0  # where the flags leave them open and they have a meaning


@dataclass(frozen=True)
class DataConfig:
    """data"""

    dataset: str = flag(
        "cifar10", help="cifar10, cifar100, mnist, digits, or your own: a .npz, or a folder of train/, test/"
    )
    data_root: str = flag("data", help="where downloads and decoded images are kept", metavar="DIR")
    n_train: int | None = flag(
        None, type=int, low=1, help="images drawn from a half, beside the target samples (default: the"
        " smaller of 20000 and 80 %% of a half)"
    )  # fmt: skip
    augment: bool = flag(True, "--no-augment", help="no shift and no flip while training")
    target_inclusion: str = flag(
        "half",
        choices=("half", "coin"),
        help="a target trains on exactly half of the target samples, or on each by an independent coin",
    )


@dataclass(frozen=True)
class ModelConfig:
    """model"""

    network: str = flag("ResNet18", help="ResNet18, ResNet34, ResNet50, ConvNet, or module:factory for your own")
    n_runs: int = flag(1, "-r", "--n-runs", low=1, high=100, help="target models, each its own run")
    n_shadows: int = flag(20, low=4, high=9998, help="shadow models, an even number")
    exp_idx: int = flag(0, low=0, high=2**31 - 1, help="number of the experiment, the root of every random draw")


@dataclass(frozen=True)
class TrainConfig:
    """training"""

    epochs: int = flag(100, "-n", "--epochs", low=1, help="passes over a model's training set")
    lr: float | None = flag(
        None, type=float, low=0.0, help="learning rate (default by optimizer: "
        + ", ".join(f"{name} {lr:g}" for name, lr in LEARNING_RATES.items()) + "; with DP "
        + ", ".join(f"{name} {lr:g}" for name, lr in LEARNING_RATES_DP.items()) + ")"
    )  # fmt: skip
    optimizer: str = flag("MSGD", choices=tuple(LEARNING_RATES), help="MSGD is SGD with momentum 0.9")
    train_batch_size: int = flag(256, low=1, help="images a step")
    lr_step: int | None = flag(
        None, type=int, low=1, help=f"epochs after which the learning rate falls to a tenth (default: {LR_STEP};"
        " without DP only)"
    )  # fmt: skip
    precision: str = flag(
        "auto", choices=("auto", "fp32", "bf16"), help="bf16 autocast where the hardware has it, or fp32"
    )
    eval_every: int = flag(10, low=1, help="epochs between two test accuracies in the log")
    checkpoint_every: int | None = flag(
        None, type=int, low=1, help="epochs between two checkpoints of an unfinished model (default: as often as"
        " keeps their cost below 2 %% of the training time)"
    )  # fmt: skip


@dataclass(frozen=True)
class DPConfig:
    """privacy"""

    sigma: float | None = flag(
        None, type=float, low=0.0, help=f"noise multiplier: standard deviation in clipping norms (default: {SIGMA:g})"
    )
    max_grad_norm: float = flag(
        0.1, "-c", "--max-per-sample-grad_norm", "--max-per-sample-grad-norm", low=0.0,
        help="clipping norm of a image's gradient"
    )  # fmt: skip
    delta: float = flag(1e-5, low=0.0, high=1.0, help="the delta of (epsilon, delta), a probability")
    target_epsilon: float | None = flag(
        None, type=float, low=0.0, help="instead of --sigma: the least noise that ends at or just below this epsilon"
    )
    max_physical_batch: int = flag(
        64, low=1, help="images whose gradients are in memory at once; a step's are worked off in parts of this size"
    )


@dataclass(frozen=True)
class AttackConfig:
    """attack"""

    attacks: tuple[str, ...] = flag(
        (), type=names, metavar="NAME,…", help="the attacks to run, comma-separated (default: all)"
    )
    n_queries: int = flag(1, low=1, help="fixed augmentations that every sample is asked under, the plain one first")
    leave_one_out: bool = flag(False, help="every shadow in turn plays the target as well")
    curve: bool = flag(False, help="the strength of every attack at 4, 8, 16, … of the shadows")
    convention: str = flag(
        "lira",
        choices=("lira", "official"),
        help="official: LiRA as the authors' published plotting script computes it",
    )
    scores: str | None = flag(
        None, type=str, metavar="FILE.npz", help="attack phi and member from elsewhere; no model is needed"
    )
    report_only: bool = flag(False, help="write report.html and the figures anew from what lies in the result folder")
    compare: tuple[str, ...] = flag(
        (), many=True, metavar="RUN", help="a page that shows these attacked runs side by side; a RUN is the name of a"
        " folder of the result folder, or its path"
    )  # fmt: skip


@dataclass(frozen=True)
class RunConfig:
    """run"""

    device: str = flag("auto", help="auto, cuda, cuda:N, mps, cpu")
    test_batch_size: int = flag(1024, low=1, help="images at once when a model is only asked")
    model_dir: str = flag("model", help="where weights are kept", metavar="DIR")
    result_dir: str = flag("result", help="where logs, scores and images go", metavar="DIR")
    shard: tuple[int, int] | None = flag(
        None, type=shard, metavar="I/N", help="train part I of N only, I from 1 to N: a part for each job of an array"
    )  # fmt: skip
    threads: int | None = flag(
        None, type=int, low=1, help="CPU threads of a worker (default: all cores, divided among a machine's workers)"
    )
    compile: bool = flag(False, help="train through torch.compile: a first step of minutes, then perhaps faster ones")
    plan: bool = flag(False, help="train nothing: list what is missing, and time what it will cost")
    quiet: bool = flag(False, help="no progress bars")


@dataclass(frozen=True)
class Config:
    """One run, as the flags describe it; the same flags for both scripts."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dp: DPConfig | None = field(default_factory=DPConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def identity(self, *, precision: str, n_train: int, n_train_is_default: bool, fingerprint: str) -> dict:
        """Everything that changes the models' weights, with what only the data and the hardware could tell.

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
        rest = {"delta": self.dp.delta} if self.dp else {"lr_step": train.lr_step}
        rest["target_inclusion"] = self.data.target_inclusion
        return {
            **name,
            **rest,
            "data_fingerprint": fingerprint,
            "n_train_is_default": n_train_is_default,
        }


GROUPS = {
    "data": DataConfig, "model": ModelConfig, "train": TrainConfig,
    "dp": DPConfig, "attack": AttackConfig, "run": RunConfig,
}  # fmt: skip


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
    groups = {
        name: group(**{item.name: value(item, values[f"{name}.{item.name}"]) for item in fields(group)})
        for name, group in GROUPS.items()
    }
    _check(Config(**groups))
    _refuse_what_nothing_reads(groups, disable_dp=disable_dp)
    return _resolved(Config(**groups | ({"dp": None} if disable_dp else {})))


def _refuse_what_nothing_reads(groups: dict, *, disable_dp: bool) -> None:
    """Raises InputError for flags that contradict each other."""
    dp, lr_step = groups["dp"], groups["train"].lr_step
    if disable_dp:
        for item in fields(dp):
            if (given := getattr(dp, item.name)) != item.default:
                raise InputError(f"{flag_name(item)} {given:g} has no meaning with --disable-dp: leave one of them out")
    elif lr_step is not None:
        raise InputError(f"--lr-step {lr_step} has no meaning with DP: leave it out, or add --disable-dp")
    elif groups["run"].compile:
        raise InputError("--compile does not see DP's gradients of single images: leave it out, or add --disable-dp")
    if groups["attack"].report_only and groups["attack"].compare:
        raise InputError("--report-only and --compare are two pages: ask for one after the other")
    if dp.sigma is not None and dp.target_epsilon is not None:
        raise InputError(
            f"--sigma {dp.sigma:g} and --target-epsilon {dp.target_epsilon:g} say the same thing twice: "
            "give the noise or the epsilon"
        )


def _resolved(config: Config) -> Config:
    """The defaults that depend on other flags."""
    train, dp = config.train, config.dp
    rates = LEARNING_RATES_DP if dp else LEARNING_RATES
    train = replace(train, lr=rates[train.optimizer] if train.lr is None else train.lr)
    if not dp:
        return replace(config, train=replace(train, lr_step=train.lr_step or LR_STEP))
    if dp.sigma is None and dp.target_epsilon is None:
        dp = replace(dp, sigma=SIGMA)
    return replace(config, train=train, dp=dp)


def attack_command(config: Config, *, beside: str) -> str:
    """The shell command that attacks the run of this config: only the flags that differ from their defaults.

    beside: the path under which train_model.py was called."""
    folder = Path(beside).parent if Path(beside).name == "train_model.py" else Path()
    return shlex.join(["python", str(folder / "attack_lira.py"), *_flags(config)])


def _flags(config: Config) -> list[str]:
    """The fewest flags that parse_args() makes this config of, less those that only say how to train.

    What has no default of its own comes last: as --lr, it may follow from the others."""
    words = [] if config.dp else ["--disable-dp"]
    named = [(name, item) for name, group in GROUPS.items() if getattr(config, name) for item in fields(group)]
    for name, item in sorted(named, key=lambda pair: pair[1].default is None):
        wanted = getattr(getattr(config, name), item.name)
        follows = getattr(getattr(parse_args(words, description=""), name), item.name)
        if wanted != follows and item.name not in ("shard", "plan"):
            words += spelled(item, wanted)
    return words


def _check(config: Config) -> None:
    for group in filter(None, (getattr(config, name) for name in GROUPS)):
        for item in fields(group):
            check_range(item, getattr(group, item.name))
    if config.model.n_shadows % 2:
        raise InputError(
            f"--n-shadows must be even, because shadows come in complementary pairs: got "
            f"{config.model.n_shadows}, use {config.model.n_shadows + 1}"
        )
    if config.attack.attacks:
        from lira.attacks.registry import ATTACKS  # here: it takes a second that a run of all attacks need not wait for

        for name in config.attack.attacks:
            if name not in ATTACKS:
                raise InputError(f"--attacks: no attack is called {name!r}, choose from {', '.join(ATTACKS)}")


def run_script(body: Callable[[Config], int | None], argv: Sequence[str] | None, *, description: str) -> int:
    """Parse, run `body(config)`, and turn the user's mistakes into one line and exit status 2."""
    try:
        return body(parse_args(argv, description=description)) or 0
    except InputError as error:
        print("error:", " ".join(str(error).split("\n")), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        so_far = str(stop) or "what was complete is kept"
        print(f"\nstopped: {so_far}; run the same command again to go on", file=sys.stderr)
        return 130
