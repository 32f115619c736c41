"""Hostile command lines: odd values of every flag end in one line at most, in time, and overwrite nothing.

`PYTHONPATH=. python tests/test_command_lines.py 1000` runs 1,000 of them, with all figures."""

import contextlib
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import attack_lira
import train_model
from lira.errors import CONTROL
from lira.flags import flag_name
from lira.training import cost
from tests.helpers.attack_inputs import inputs
from tests.helpers.report import skip_figures
from tests.helpers.scripts import call, stamps
from tests.helpers.tiny_images import images
from util import GROUPS

N_CASES = 40
MAX_SECONDS = 10  # of computing; a case that waits longer for something hangs
TINY = shlex.split(
    "--dataset own.npz --network tests.helpers.networks:tiny --epochs 1 --n-shadows 4 --n-train 12 --precision fp32 "
    "--device cpu --quiet --threads 1"
)
PLAIN, DP = [*TINY, "--disable-dp"], [*TINY, "--noise-seed", "3", "--network", "tests.helpers.networks:mlp"]
NAMES = ("$x^2$_{.npz", "-n.npz", "猫 %s {0}.npz", "\x1b]0;title\x07.npz", "a\nb.npz", os.fsdecode(b"\xff.npz"))

ODD = [
    *[
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "3",
        "+3",
        "1_0",
        "0x10",
        "٣",
        "1.5",
        "-0.0",
        "1e-320",
        "1e308",
        "1e400",
    ],
    *["nan", "inf", "-inf", "9" * 20, "9" * 400, "-" + "9" * 400, "9" * 5000, str(2**31), str(2**63 - 1), str(2**63)],
    *["none", "True", "null", "%s%n", "{0}", "$(id)", "`id`", "'", '"', "a,b", ",", "a=b", "猫", "é" * 150, "x" * 300],
    *["\x1b[2J\x1b]0;title\x07", "a\rb", "a\nb", "\u202egnp", "\udcff", ".", "..", "../up", "a/b/c", "~", "*", "[a]"],
    *["/dev/null", "/dev/null/x", "a file", "a file/x", "pipe", "link", "own.npz", "folder", "model", "result"],
]
PLAUSIBLE = {  # odd ones are often rejected at once: these go deeper
    "data.dataset": ["digits", "OWN.npz", "./own.npz", "mnist", "scores.npz", "empty.npz", *NAMES],
    "model.network": [
        *["ConvNet", "convnet", "mlp", ":", "a:", ":b", "util:f", "random:random", "os:getcwd", "sys:path", "lira:x"],
        *[f"tests.helpers.networks:{name}" for name in ("mlp", "normed", "fails", "raising", "diverging", "mixing")],
        *[
            f"tests.helpers.networks:{name}"
            for name in ("no_module", "wrong_shape", "lazy", "one_logit_too_many", "a.b")
        ],
    ],
    "run.device": ["cpu", "CPU", "cuda", "cuda:0", "cuda:99", "cuda:-1", "cuda:٣", "cpu:0", "meta", "mps"],
    "run.shard": ["1/2", "2/2", "1/9", "٣/٤", f"1/{'9' * 30}"],
    "run.n_runs": ["2", "5"],
    "run.n_shadows": ["4", "6", "5", "02"],
    "attack.attacks": ["lira", "rmia,loss", "lira,lira", "lira,,", "lira-bayes,learned", "magic"],
    "attack.n_queries": ["2", "5", "99", "1000000"],
    "attack.scores": [*NAMES, "scores.npz", "empty.npz", "./scores.npz", "SCORES.npz", "gone.npz"],
    "attack.compare": ["scores", "gone", "result/scores"],
    "dp.sigma": ["0.5", "1e-9", "1e9"],
    "dp.target_epsilon": ["8", "1e-9", "1e9"],
    "dp.delta": ["1e-5", "1e-300", "0.999"],
    "dp.max_grad_norm": ["1e-300", "1e300"],
    "train.lr": ["1e30", "1e-30", "5"],
}
ENDLESS = {"train.epochs", "run.n_runs", "run.n_shadows"}  # large valid numbers take for ever, as they should
ITEMS = {
    f"{group}.{item.name}": item for group, dataclass in GROUPS.items() for item in fields(dataclass)
    if item.name not in ("compile", "threads")  # a compiler, and a setting of this whole process
}  # fmt: skip


def is_endless(dest: str, value: str) -> bool:
    with contextlib.suppress(ValueError):
        return dest in ENDLESS and 9 < int(value) < 2**63
    return False


def odd_flag(rng: random.Random) -> list[str]:
    """One flag, in any of its spellings, with an odd value; sometimes misspelled, or without its value."""
    dest = rng.choice(list(ITEMS))
    item = ITEMS[dest]
    name = rng.choice(item.metadata["names"] or (flag_name(item),))
    if rng.random() < 0.04:
        name = rng.choice([name.upper(), name[:-1], name + "s", name.replace("--", "-"), "–" + name[2:]])
    if isinstance(item.default, bool):
        return [name if rng.random() < 0.9 else f"{name}={rng.choice(ODD)}"]
    values = PLAUSIBLE.get(dest, item.metadata["choices"] or ("1", "2", "7")) if rng.random() < 0.6 else ODD
    value = rng.choice([value for value in values if not is_endless(dest, value)])
    return rng.choice([*[[name, value]] * 6, *[[f"{name}={value}"]] * 6, [name]])


def odd_command(rng: random.Random, run: str) -> tuple[str, list[str]]:
    """(script, flags). run: a finished run."""
    script, base = rng.choice(
        [
            *[("train", PLAIN), ("train", [*PLAIN, "--plan"]), ("train", DP), ("train", ["--run", run, "--quiet"])],
            *[("attack", PLAIN), ("attack", ["--run", run]), ("attack", ["--scores", rng.choice(NAMES)])],
            *[("attack", ["--report-only", "--run", run]), ("attack", ["--compare", run, "scores"]), ("attack", [])],
        ]
    )
    flags = list(base)
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = rng.randrange(len(flags) + 1)
        flags[place:place] = odd_flag(rng)
    return script, flags


class Hangs(BaseException):
    """Not an Exception: the scripts must not catch it."""


def hang(*signal_and_frame):
    raise Hangs


@contextlib.contextmanager
def workplace(folder: Path):
    """Inside, the current folder holds data, scores under odd names, and a finished run, whose name it gives."""
    before, handler = Path.cwd(), signal.signal(signal.SIGALRM, hang)
    (folder / "up").mkdir()
    os.chdir(folder / "up")
    try:
        data = images(n_train=40, n_test=16, size=(8, 8), channels=1)
        arrays = {f"x_{part}": getattr(data, f"x_{part}").permute(0, 2, 3, 1).numpy() for part in ("train", "test")}
        np.savez("own.npz", **arrays, y_train=data.y_train, y_test=data.y_test)
        scores = inputs(n_targets=1, n_shadows=4)
        for name in ("scores.npz", *NAMES):
            np.savez(name, phi=scores.phi, member=scores.member)
        np.savez("empty.npz")
        Path("a file").write_text("text")
        Path("folder").mkdir()
        os.mkfifo("pipe")
        Path("link").symlink_to("gone")
        for main, argv in ((train_model.main, PLAIN), (attack_lira.main, PLAIN)):
            assert call(main, argv).status == 0
        assert call(attack_lira.main, ["--scores", "scores.npz"]).status == 0
        yield next(Path("model").iterdir()).name
    finally:
        os.chdir(before)
        signal.signal(signal.SIGALRM, handler)


def check_case(script: str, argv: list[str], run: str) -> int:
    """Run one command line. Returns its exit status."""
    mains = {"train": train_model.main, "attack": attack_lira.main}
    before, start, status = stamps(Path.cwd().parent), time.process_time(), 0
    signal.alarm(12 * MAX_SECONDS)  # other processes may take the cores
    try:
        called = call(mains[script], argv)
        status, printed = called.status, called.out + called.err
    except SystemExit as stop:  # of --help
        return int(stop.code or 0)
    finally:
        signal.alarm(0)
        torch.set_num_threads(1)
    assert time.process_time() - start < MAX_SECONDS, "hangs"
    assert status in (0, 1, 2)
    assert "Traceback" not in printed
    assert not CONTROL.search(printed.replace("\r", "").replace("\033[A", "")), "a name reaches the terminal as it is"
    after = stamps(Path.cwd().parent)
    changed = {path for path, stamp in before.items() if after.get(path) != stamp}
    if status == 2:
        assert called.err.splitlines()[-1].startswith("error: "), called.err
        assert [line.startswith("error: ") for line in called.err.splitlines()].count(True) == 1, called.err
        assert not changed, f"a rejected command changed {changed}"
    written = {path for path in changed if not path.startswith("up/result/")}
    assert not written, f"weights or input files changed: {written}"
    assert len({Path(path).parts[2] for path in changed}) <= 1, f"results of several runs changed: {changed}"
    return status


def fuzz(folder: Path, *, cases: int, seed: int) -> dict[int, int]:
    """Returns exit status -> how many command lines ended with it."""
    rng, statuses = random.Random(seed), {0: 0, 1: 0, 2: 0}
    with workplace(folder) as run:
        table = Path("result", run, "attack.csv").read_bytes()
        for case in range(cases):
            script, argv = odd_command(rng, run)
            try:
                statuses[check_case(script, argv, run)] += 1
            except BaseException as error:
                raise AssertionError(f"seed {seed}, case {case}: {script} {argv}: {error!r}") from error
        for main in (train_model.main, attack_lira.main):
            assert call(main, PLAIN).status == 0
        assert Path("result", run, "attack.csv").read_bytes() == table, "the results of the run are others now"
    return statuses


def test_hostile_command_lines(tmp_path, monkeypatch):
    skip_figures(monkeypatch)  # they do not depend on flags
    monkeypatch.setattr(cost, "MEASURE_SECONDS", 0.01)
    statuses = fuzz(tmp_path, cases=N_CASES, seed=20261124)  # a long run draws a new seed, which it prints
    assert statuses[0] > 0
    assert statuses[2] > N_CASES / 3


if __name__ == "__main__":
    cost.MEASURE_SECONDS = 0.01
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    print(f"seed {chosen}")
    with pytest.MonkeyPatch.context() as patch:
        if "--no-figures" in sys.argv:
            skip_figures(patch)
        print(fuzz(Path(tempfile.mkdtemp()), cases=int(sys.argv[1]), seed=chosen))
