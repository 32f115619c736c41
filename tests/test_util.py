"""The flags, their defaults, checks and help; the identity of a run; the exit status of a script."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

import util
from lira.atomic import write_json
from lira.errors import InputError, ModelError
from lira.storage.names import run_name
from tests.helpers.scripts import ENVIRONMENT
from util import GROUPS, LEARNING_RATES, LEARNING_RATES_DP, parse_args, run_script


def parse(*flags):
    return parse_args(list(flags), description="test")


def test_defaults_are_those_of_the_design():
    config = parse()
    assert (config.data.dataset, config.model.network, config.data.data_root) == ("cifar10", "ResNet18", "data")
    assert (config.run.model_dir, config.run.result_dir, config.run.device) == ("model", "result", "auto")
    assert (config.train.epochs, config.train.optimizer, config.train.lr_step) == (100, "MSGD", None)
    assert (config.train.weight_decay, config.train.lr_schedule) == (1e-4, "step")
    assert (config.train.train_batch_size, config.run.test_batch_size, config.train.eval_every) == (256, 1024, 10)
    assert (config.model.exp_idx, config.run.run, config.run.n_runs, config.run.n_shadows) == (0, None, 1, 20)
    assert (config.dp.sigma, config.dp.max_grad_norm, config.dp.delta) == (1.0, 0.1, 1e-5)
    assert (config.dp.target_epsilon, config.dp.max_physical_batch) == (None, 64)
    assert parse("--disable-dp").train.lr_step == 80
    assert (config.data.n_train, config.data.augment, config.data.target_inclusion) == (None, True, "coin")
    assert (config.train.precision, config.run.quiet, config.attack.attacks) == ("auto", False, ())


def test_every_flag_sets_its_field():
    config = parse(
        *shlex.split(
            "--dataset d --network ConvNet --data-root a --model-dir b --result-dir c -n 3 --lr 0.5 --optimizer adam "
            "--train-batch-size 4 --test-batch-size 5 --exp-idx 6 -r 7 --n-shadows 8 --sigma 0.5 -c 2 --delta 1e-6 "
            "--device cpu --max-physical-batch 9 --n-train 10 --no-augment --target-inclusion coin --precision bf16 "
            "--eval-every 11 --quiet --attacks lira,loss --shard 2/4 --weight-decay 0"
        )
    )
    assert config.data == util.DataConfig("d", "a", 10, False, "coin")
    assert config.model == util.ModelConfig("ConvNet", 6)
    assert config.train == util.TrainConfig(3, 0.5, "adam", 4, 0.0, precision="bf16", eval_every=11)
    assert config.dp == util.DPConfig(False, 0.5, 2.0, 1e-6, max_physical_batch=9)
    assert config.attack.attacks == ("lira", "loss")
    assert (config.run.n_runs, config.run.n_shadows) == (7, 8)
    assert (config.run.device, config.run.test_batch_size, config.run.quiet) == ("cpu", 5, True)
    assert (config.run.model_dir, config.run.result_dir, config.run.shard) == ("b", "c", (2, 4))


def test_more_threads_than_twice_the_cores_are_rejected(monkeypatch):
    """10,000 would stop the machine. Counted are the cores that a container's quota leaves, not the machine's."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    assert parse("--threads", "6").run.threads == 6
    with pytest.raises(InputError, match=r"^--threads must be at most 6, twice the 3 cores here: got 7$"):
        parse("--threads", "7")


@pytest.mark.parametrize(
    ("short", "long", "value"),
    [
        ("-n", "--epochs", "7"),
        ("-r", "--n-runs", "2"),
        ("-c", "--max-per-sample-grad_norm", "3"),
        ("--max-per-sample-grad-norm", "--max-per-sample-grad_norm", "3"),
    ],
)
def test_two_spellings_are_one_flag(short, long, value):
    assert parse(short, value) == parse(long, value)


def test_dp_is_none_with_disable_dp():
    assert parse("--disable-dp").dp is None
    assert parse().dp is not None


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
def test_the_learning_rate_depends_on_the_optimizer(optimizer):
    assert parse("--optimizer", optimizer).train.lr == LEARNING_RATES_DP[optimizer]
    assert parse("--optimizer", optimizer, "--disable-dp").train.lr == LEARNING_RATES[optimizer]
    assert parse("--optimizer", optimizer, "--lr", "0.25").train.lr == 0.25


def test_the_inclusion_of_the_targets_depends_on_dp_where_no_flag_sets_it():
    """An audit of exact halves can show little with a delta. How the targets of --scores were trained is not known."""
    assert parse().data.target_inclusion == "coin"
    assert parse("--disable-dp").data.target_inclusion == "half"
    assert parse("--scores", "file.npz").data.target_inclusion == "half"
    for flags in ([], ["--disable-dp"], ["--scores", "file.npz"]):
        for inclusion in ("half", "coin"):
            assert parse("--target-inclusion", inclusion, *flags).data.target_inclusion == inclusion


def test_attacks_are_names_separated_by_commas():
    assert parse("--attacks", "lira, loss,").attack.attacks == ("lira", "loss")
    assert parse("--attacks", "lira,loss,lira").attack.attacks == ("lira", "loss")
    assert parse().attack.attacks == ()
    with pytest.raises(InputError, match="must be names"):
        parse("--attacks", ",")


def test_names_match_in_any_case():
    flags = (
        "--optimizer rmsPROP --precision FP32 --target-inclusion Coin --convention OFFICIAL --attacks LiRA,lira,LOSS"
    )
    config = parse(*flags.split())
    assert (config.train.optimizer, config.train.precision, config.data.target_inclusion) == ("RMSprop", "fp32", "coin")
    assert (config.attack.convention, config.attack.attacks) == ("official", ("lira", "loss"))


INVALID_SHARDS = ("0/4", "5/4", "1", "1/", "/4", "-1/4", "a/b", "1/0")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epochs", "0"), "--epochs must be at least 1, got 0"),
        (("--n-shadows", "7"), "--n-shadows must be even.* got 7, use 8"),
        (("--n-shadows", "2"), "--n-shadows must be at least 4, got 2"),
        (("--n-shadows", "-4"), "--n-shadows must be at least 4, got -4"),
        (("--n-runs", "-1"), "--n-runs must be at least 0, got -1"),
        (("--n-runs", "101"), "--n-runs must be at most 100, got 101"),
        (("--lr", "0"), "--lr must be above 0, got 0"),
        (("--lr", "nan"), "--lr must be a finite number, got nan"),
        (("--lr", "inf"), "--lr must be a finite number, got inf"),
        (("--lr=-1e-3",), "--lr must be above 0, got -0.001"),
        (("--lr", "-0.1"), "--lr must be above 0, got -0.1"),
        (("--sigma", "0"), "--sigma must be above 0, got 0"),
        (("-c", "-1"), "--max-per-sample-grad-norm must be above 0, got -1"),
        (("--delta", "1"), "--delta must be below 1, got 1"),
        (("--delta", "1.5"), "--delta must be below 1, got 1.5"),
        (("--target-epsilon", "0"), "--target-epsilon must be above 0, got 0"),
        (("--target-epsilon", "8", "--sigma", "1"), "--sigma 1 and --target-epsilon 8 both set the noise"),
        (("--max-physical-batch", "0"), "--max-physical-batch must be at least 1, got 0"),
        (("--disable-dp", "--sigma", "2"), "--sigma 2 has no meaning with --disable-dp"),
        (("--disable-dp", "--max-physical-batch", "2"), "--max-physical-batch 2 has no meaning with --disable-dp"),
        (("--exp-idx", "-1"), "--exp-idx must be at least 0, got -1"),
        (("--exp-idx", str(2**31)), "--exp-idx must be at most 2147483647"),
        (("--train-batch-size", "0"), "--train-batch-size must be at least 1"),
        (("--test-batch-size", "0"), "--test-batch-size must be at least 1"),
        (("--eval-every", "0"), "--eval-every must be at least 1"),
        (("--lr-step", "0"), "--lr-step must be at least 1"),
        (("--n-train", "-1"), "--n-train must be at least 0, got -1"),
        (("--weight-decay", "-1"), "--weight-decay must be at least 0, got -1"),
        (("--weight-decay", "nan"), "--weight-decay must be a finite number, got nan"),
        (
            ("--lr-schedule", "line"),
            "--lr-schedule: invalid choice: 'line', did you mean cosine\\? choose from step, cosine",
        ),
        (("--scores", ""), "--scores is empty: give a value, or leave the flag out"),
        (("--compare", ""), "--compare is empty: "),
        (("--epochs", "9" * 20), f"--epochs must be at most {2**63 - 1}, got {'9' * 20}$"),
        (("--noise-seed", "9" * 400), f"--noise-seed must be at most {2**63 - 1}, got {'9' * 20}… .400 digits.$"),
        (("--lr", "9" * 400), "--lr must be a finite number, got inf"),
        (("--optimizer", "adamw"), "--optimizer: invalid choice: 'adamw', did you mean adam\\? choose from SGD, "),
        (("--precision", "fp16"), "--precision: invalid choice: 'fp16', did you mean (fp32|bf16)\\?"),
        (("--target-inclusion", "x"), "--target-inclusion: invalid choice: 'x', choose from half, coin"),
        (("--epochs", "many"), "--epochs: invalid int value: 'many'"),
        (("--epochs", "1.5"), "--epochs: invalid int value: '1.5'"),
        # abbreviations may become ambiguous
        (("--epoch", "3"), r"unrecognized arguments: --epoch 3, did you mean --epochs\? \(see --help\)$"),
        (("stray",), r"unrecognized arguments: stray \(see --help\)$"),
        (("--lr-step", "5"), "--lr-step 5 has no meaning with DP: leave it out, or add --disable-dp"),
        (("--lr-schedule", "cosine"), "--lr-schedule cosine has no meaning with DP: leave it out, or add --disable-dp"),
        (
            ("--disable-dp", "--lr-schedule", "cosine", "--lr-step", "5"),
            "--lr-step 5 has no meaning with --lr-schedule cosine: leave one out",
        ),
        (("--compile",), "--compile does not support DP.*: leave it out, or add --disable-dp"),
        *[((f"--shard={text}",), "--shard: must be I/N with I from 1 to N") for text in INVALID_SHARDS],
        (("--report-only", "--compare", "a"), "--report-only and --compare cannot be combined"),
        (("--report-only",), "--report-only needs --run RUN or --scores FILE.npz"),
        (("--attacks", "lira,magic"), "no attack is called 'magic', choose from lira, "),
        (("--attacks", "Lira-Bays"), r"no attack is called 'Lira-Bays', did you mean lira-bayes\? choose from lira, "),
    ],
)
def test_bad_values_name_flag_constraint_and_value(flags, message):
    with pytest.raises(InputError, match=message):
        parse(*flags)


RESOLVED = dict(precision="fp32", n_train=10, n_train_is_default=True, fingerprint="f")


def identity(*flags, **resolved):
    return parse("--disable-dp", *flags).identity(**RESOLVED | resolved)


def test_identity_changes_with_what_changes_the_models_and_with_nothing_else():
    changing = "--dataset digits, --network ConvNet, --optimizer SGD, --lr 1, -n 3, --train-batch-size 1, --no-augment"
    for flags in [
        *changing.split(", "),
        "--exp-idx 1",
        "--lr-step 3",
        "--lr-schedule cosine",
        "--weight-decay 0",
        "--target-inclusion coin",
    ]:
        assert identity(*flags.split()) != identity(), flags
    for resolved in (dict(precision="bf16"), dict(n_train=11), dict(fingerprint="g")):
        assert identity(**resolved) != identity(), resolved
    others = "--n-shadows 6, -r 3, --device cuda, --test-batch-size 1, --quiet, --attacks loss, --eval-every 1"
    for flags in [*others.split(", "), "--data-root x", "--model-dir x", "--result-dir x"]:
        assert identity(*flags.split()) == identity(), flags


def test_settings_that_were_added_later_leave_the_identity_of_earlier_runs_as_it_was():
    """Their models, made with the step and this weight decay, are found and not trained again."""
    assert not {"weight_decay", "lr_schedule"} & identity().keys()
    assert identity("--weight-decay", "1e-4", "--lr-schedule", "step", "--lr-step", "80") == identity()
    cosine = identity("--lr-schedule", "Cosine", "--weight-decay", "5e-4")
    assert cosine == {key: value for key, value in identity().items() if key != "lr_step"} | {
        "lr_schedule": "cosine",
        "weight_decay": 5e-4,
    }


def test_identity_with_dp_changes_with_what_changes_the_models():
    def private(*flags):
        return parse(*flags).identity(**RESOLVED)

    changing = "--sigma 2, --target-epsilon 8, -c 1, --delta 1e-6, --target-inclusion half, --weight-decay 0"
    for flags in map(str.split, changing.split(", ")):
        assert private(*flags) != private(), flags
    assert private() != identity()
    assert private()["sigma"] == 1.0
    assert "lr_step" not in private()
    assert private("--target-epsilon", "8")["sigma"] is None
    assert private("--max-physical-batch", "2") == private()


def test_identity_holds_the_name_of_the_data_and_not_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert identity("--dataset", "x/own.npz")["dataset"] == identity("--dataset", f"{tmp_path}/own.npz")["dataset"]


# --- help and instant answers ----------------------------------------------------------------------------------------

OWN_GROUPS = {  # the other flags of a script are those that the other one reads
    "train_model": ["data:", "model:", "training:", "privacy:", "run:"],
    "attack_lira": ["attack:", "run:"],
}
ALL_GROUPS = ["data:", "model:", "training:", "privacy:", "attack:", "run:"]
FIRST_FLAGS = {
    "data:": ["--dataset", "--data-root"],
    "model:": ["--network", "--exp-idx"],
    "training:": ["-n", "--lr", "--optimizer", "--train-batch-size"],
    "privacy:": ["--disable-dp", "--sigma", "-c", "--delta"],
    "attack:": ["--attacks", "--n-queries"],
    "run:": ["--run", "-r", "--n-shadows", "--device", "--test-batch-size", "--model-dir", "--result-dir"],
}


def help_of(script, flag, capsys):
    """heading -> the flags under it, each with its help."""
    with pytest.raises(SystemExit) as stop:
        parse_args([flag], description="test", script=f"{script}.py")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    sections = {part.split("\n")[0]: part for part in re.split(r"\n\n(?=\w+:\n)", text)[1:]}
    assert sections.pop("options:")
    return {heading: re.split(r"\n  (?=-)", section)[1:] for heading, section in sections.items()}


@pytest.mark.parametrize("script", OWN_GROUPS)
def test_help_lists_the_script_s_own_flags_and_help_all_all(script, capsys):
    own, every = (help_of(script, flag, capsys) for flag in ("--help", "--help-all"))
    assert list(own) == OWN_GROUPS[script]
    assert list(every) == ALL_GROUPS
    for heading, flags in every.items():
        assert all("(default" in " ".join(flag.split()) for flag in flags), heading
        names = [re.split(r"[ ,]", flag)[0] for flag in flags]
        assert names[: len(FIRST_FLAGS[heading])] == FIRST_FLAGS[heading]
        assert set(own.get(heading, [])) <= set(flags)
    other = {flag.split()[0] for flag in every["run:"]} - {flag.split()[0] for flag in own["run:"]}
    assert other == (set() if script == "train_model" else {"--shard", "--compile", "--plan"})
    assert sum(map(len, every.values())) == sum(len(fields(group)) for group in GROUPS.values())


@pytest.mark.parametrize("script", OWN_GROUPS)
def test_the_examples_in_help_are_three_and_their_flags_parse(script, tmp_path, monkeypatch):
    """Also with --run: the run is one of train_model.py's examples."""
    monkeypatch.chdir(tmp_path)
    example = parse("--dataset", "cifar100", "--disable-dp")
    identity = example.identity(**RESOLVED | {"precision": "bf16"})
    record = {"format": 2, "identity": identity, "flags": example.flags(precision="bf16")}
    write_json(tmp_path / "model" / run_name(identity) / "config.json", record)
    lines = [line for line in str(import_module(script).__doc__).splitlines() if f"{script}.py" in line]
    assert len(lines) == 3
    for line in lines:
        command, _, flags = line.partition(f" {script}.py ")
        assert command.split()[0] in ("python", "torchrun")
        config = parse_args(shlex.split(flags), description="", script=f"{script}.py")
        if "--scores" not in line:
            assert (config.data.dataset, config.model.network, config.dp) == ("cifar100", "ResNet18", None)


HEAVY = {"torch", "numpy", "pandas", "scipy", "matplotlib", "sklearn", "opacus", "torchvision"}


@pytest.mark.parametrize("script", OWN_GROUPS)
@pytest.mark.parametrize(
    ("flags", "status", "err"),
    [
        (["--help"], 0, ""),
        (["--epoch=3"], 2, "error: unrecognized arguments: --epoch=3, did you mean --epochs?"),
        (["--epochs", "0"], 2, "error: --epochs must be at least 1, got 0\n"),
        (["--run", "x"], 2, "error: --run x: no folder of this name with config.json in model or result"),
        (["--attacks", "x"], 2, "error: no attack is called 'x', choose from lira, "),
    ],
)
def test_help_and_bad_flags_are_answered_before_anything_heavy_is_imported(script, flags, status, err, tmp_path):
    code = (
        f"import sys, {script}\ntry:\n    status = {script}.main({flags})\nexcept SystemExit as stop:\n"
        f"    status = stop.code\nprint(status, sorted({HEAVY} & sys.modules.keys()))"
    )
    called = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert called.stdout.splitlines()[-1] == f"{status} []"
    assert called.stderr.startswith(err)
    assert len(called.stderr.splitlines()) == (status > 0)


# --- the end of a script ---------------------------------------------------------------------------------------------


def fail(error):
    def body(config):
        raise error

    return body


def run(argv, body):
    return run_script(body, argv, script="train_model.py", description="x")


def test_exit_status_and_last_line_of_a_script(capsys):
    assert run([], lambda config: None) == 0
    assert run([], lambda config: 1) == 1
    assert run([], fail(InputError("two\nlines"))) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    assert run([], fail(KeyboardInterrupt())) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert run([], fail(ModelError("shadow_03: out of memory"))) == 1
    assert capsys.readouterr().err == "error: shadow_03: out of memory\n"
    for lack in (MemoryError(), ImportError("libtorch.so: failed to map segment from shared object")):
        assert run([], fail(lack)) == 1
        assert capsys.readouterr().err.startswith("error: out of memory (")
    assert run([], lambda config: Path("x" * 300).is_file() and None) == 2
    assert capsys.readouterr().err.endswith("xxx: File name too long; give another path, or make this one accessible\n")
    with pytest.raises(ZeroDivisionError):  # an error in this project keeps its traceback
        run([], fail(ZeroDivisionError()))


def test_runs_to_compare_are_separate_arguments():
    assert parse("--compare", "a", "b c").attack.compare == ("a", "b c")
    assert parse().attack.compare == ()
