"""--run: a run's name or path stands for the flags that made it, in both scripts."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import attack_lira
import train_model
from lira.atomic import write_json
from tests.helpers.datasets import arrays
from tests.helpers.report import skip_figures
from tests.helpers.scripts import call, rejected, run_folders, stamps
from util import RunConfig, parse_args

PLAIN, PRIVATE = "plain", "private"
FLAGS = {
    PLAIN: "--dataset own.npz --data-root elsewhere --network tests.helpers.networks:mlp --no-augment --lr 0.003 "
    "--optimizer adam --target-inclusion coin --n-train 5 --train-batch-size 7 --epochs 2 --lr-step 1 --exp-idx 3 "
    "--disable-dp --n-runs 2 --n-shadows 6",
    PRIVATE: "--dataset own.npz --network tests.helpers.networks:normed --lr 0.25 --optimizer SGD --n-train 6 "
    "--train-batch-size 5 --epochs 1 --target-epsilon 40 -c 0.3 --delta 1e-3 --precision fp32 --n-shadows 4",
}
ELSEWHERE = "--device cpu --threads 1 --test-batch-size 5 --quiet"  # flags that the file does not hold
RESOLVED = dict(precision="", n_train=5, n_train_is_default=False, fingerprint="f")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with own.npz and the runs of both kinds, made with relative paths. Read only: see `copied`."""
    folder = tmp_path_factory.mktemp("made")
    np.savez(folder / "own.npz", **arrays(channels=0, n_train=24, n_test=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for flags in FLAGS.values():
            called = call(train_model.main, shlex.split(f"{flags} {ELSEWHERE}"))
            assert called.status == 0, called.err
    return folder


@pytest.fixture
def copied(made, tmp_path, monkeypatch):
    """A copy that a test may change, as working folder."""
    for path in made.rglob("*"):
        target = tmp_path / "copy" / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path / "copy")
    skip_figures(monkeypatch)
    return tmp_path / "copy"


def run_name(folder, kind=PLAIN):
    """The name of the run of this kind."""
    words = "networks-mlp" if kind == PLAIN else "networks-normed"
    (path,) = (folder / "model").glob(f"*{words}*")
    return path.name


def restore(*argv, script="attack_lira.py"):
    return parse_args(list(map(str, argv)), description="", script=script)


def stored_config(folder, kind=PLAIN):
    return json.loads((folder / "model" / run_name(folder, kind) / "config.json").read_text())


def write_configs(folder, config):
    """In both folders of the run."""
    for top in ("model", "result"):
        write_json(folder / top / run_name(folder) / "config.json", config)


# --- what is restored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLAGS)
def test_run_stands_for_the_flags_that_made_it(made, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    given, name = restore(*shlex.split(FLAGS[kind])), run_name(made, kind)
    spellings = [[name], [f"model/{name}"], [f"result/{name}/"], [made / "model" / name]]
    restored = [restore("--run", *spelling) for spelling in spellings]
    monkeypatch.chdir(tmp_path)
    folders = run_folders(made)
    spellings = [[name, *folders], [made / "model" / name, *folders[2:]], [made / "result" / name, *folders[:2]]]
    restored += [restore("--run", *spelling) for spelling in spellings]
    precision = stored_config(made, kind)["identity"]["precision"]
    for config in restored:
        assert config.identity(**RESOLVED) == given.identity(**RESOLVED)
        assert config.train.precision == precision != "auto"
        assert config.data.dataset == str(made / "own.npz")
        assert config.data.data_root == str(made / ("elsewhere" if kind == PLAIN else "data"))
        assert (config.model, config.dp) == (given.model, given.dp)
        assert (config.run.n_runs, config.run.n_shadows) == (given.run.n_runs, given.run.n_shadows)
        assert config.run.run == name
    assert all(Path(config.run.model_dir, name).is_dir() for config in restored[4:])
    assert all(Path(config.run.result_dir, name).is_dir() for config in restored[4:])


def test_device_threads_and_the_like_do_not_come_from_the_run(made, monkeypatch):
    monkeypatch.chdir(made)
    name = run_name(made)
    for script in ("train_model.py", "attack_lira.py"):
        config = restore("--run", name, script=script)
        assert config.run == RunConfig(run=name, n_runs=2, n_shadows=6)
    config = restore("--run", name, *shlex.split(ELSEWHERE))
    assert (config.run.device, config.run.threads, config.run.test_batch_size, config.run.quiet) == ("cpu", 1, 5, True)


@pytest.mark.parametrize("kind", FLAGS)
def test_both_scripts_work_from_another_folder(copied, kind, tmp_path, monkeypatch):
    """The network is the user's own code, which is named before it is imported."""
    name, warning = run_name(copied, kind), "is your own code, which is imported and run now\n"
    assert call(attack_lira.main, shlex.split(f"{FLAGS[kind]} --quiet")).err == ""
    path = copied / "result" / name / "attack.csv"
    before = path.read_bytes()
    path.unlink()
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    trained = call(train_model.main, ["--run", copied / "model" / name, "--result-dir", copied / "result", "--quiet"])
    n_models = 8 if kind == PLAIN else 5
    assert f"{n_models} of {n_models} models are complete, training 0" in trained.out
    attacked = call(attack_lira.main, ["--run", name, *run_folders(copied), "--quiet"])
    for called in (trained, attacked):
        network = f"tests.helpers.networks:{'mlp' if kind == PLAIN else 'normed'}"
        assert (called.status, called.err) == (0, f"--run {name}: its network {network} {warning}")
    assert path.read_bytes() == before
    assert not list(other.iterdir())


def test_own_code_is_named_even_if_its_import_fails(copied):
    name, config = run_name(copied), stored_config(copied)
    config["flags"]["--network"] = "tests.helpers.gone:factory"
    write_configs(copied, config)
    called = call(attack_lira.main, ["--run", name])
    first, second = called.err.splitlines()
    assert first.startswith(f"--run {name}: its network tests.helpers.gone:factory is your own code")
    assert second.startswith("error: --network tests.helpers.gone:factory: cannot find factory 'factory'")
    assert called.status == 2


def test_renamed_folders_are_the_same_run(copied):
    name = run_name(copied)
    for folder in ("model", "result"):
        (copied / folder / name).rename(copied / folder / "a new name")
    trained = call(train_model.main, ["--run", "a new name", "--quiet"])
    assert "run a new name: 8 of 8 models are complete, training 0" in trained.out
    assert trained.out.endswith("next: python attack_lira.py --run 'a new name'\n")
    attacked = call(attack_lira.main, ["--run", "a new name", "--attacks", "loss", "--quiet"])
    assert attacked.status == 0, attacked.err
    assert (copied / "result" / "a new name" / "attack.csv").is_file()
    assert len(list((copied / "model").iterdir())) == len(FLAGS)


# --- how many models -------------------------------------------------------------------------------------------------


def test_added_shadows_are_attacked_too(copied):
    name = run_name(copied, PRIVATE)
    called = call(train_model.main, ["--run", name, "--n-shadows", "6", "--quiet"])
    assert "5 of 7 models are complete, training 2" in called.out
    for script in ("train_model.py", "attack_lira.py"):
        assert restore("--run", name, script=script).run.n_shadows == 6
    assert call(attack_lira.main, ["--run", name, "--attacks", "loss", "--quiet"]).status == 0
    assert set(pd.read_csv(copied / "result" / name / "attack.csv").shadows) == {6}
    assert restore("--run", name, "--n-shadows", "4").run.n_shadows == 4


@pytest.mark.parametrize(
    ("missing", "n_runs", "n_shadows", "warnings"),
    [
        (["shadow_05"], 2, 4, ["--n-shadows is 4, the models on disk, of 6; "]),
        (["shadow_04"], 2, 4, ["--n-shadows is 4, the models on disk, of 6; "]),  # shadows come in pairs
        (
            ["target_01", "shadow_05"],
            1,
            4,
            ["--n-runs is 1, the models on disk, of 2; ", "--n-shadows is 4, the models on disk, of 6; "],
        ),
        (["target_00", "shadow_02"], 2, 6, []),  # too few for an attack
    ],
)
def test_an_attack_takes_the_models_on_disk_and_training_those_that_were_planned(
    copied, capsys, missing, n_runs, n_shadows, warnings
):
    name = run_name(copied)
    for model in missing:
        (copied / "model" / name / f"{model}.pt").unlink()
    config = restore("--run", name)
    assert (config.run.n_runs, config.run.n_shadows) == (n_runs, n_shadows)
    lines = capsys.readouterr().err.splitlines()
    for line, words in zip(lines, warnings, strict=True):
        assert line.startswith(f"warning: {words}")
        assert f"train_model.py --run {name}" in line
    config = restore("--run", name, script="train_model.py")
    assert (config.run.n_runs, config.run.n_shadows) == (2, 6)
    assert capsys.readouterr().err == ""


def test_an_attack_with_missing_models_and_the_training_that_completes_them(copied):
    name = run_name(copied)
    (copied / "model" / name / "shadow_05.pt").unlink()
    argv = ["--run", name, "--attacks", "loss", "--quiet"]
    assert call(attack_lira.main, argv).status == 0
    assert set(pd.read_csv(copied / "result" / name / "attack.csv").shadows) == {4}
    (copied / "model" / name / "shadow_02.pt").unlink()
    err = call(attack_lira.main, argv).err
    assert f"2 of 8 models missing, the first is model/{name}/shadow_02.pt; train them with: python train_model" in err
    assert "8 models are complete, training 2" in call(train_model.main, ["--run", name, "--quiet"]).out
    assert call(attack_lira.main, argv).status == 0
    assert set(pd.read_csv(copied / "result" / name / "attack.csv").shadows) == {6}


# --- flags beside it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flags", "given", "made_with"),
    [
        (PLAIN, "--lr 0.5", "--lr 0.5", "made with --lr 0.003:"),
        (PLAIN, "-n 3", "--epochs 3", "made with --epochs 2:"),
        (PLAIN, "--optimizer sgd", "--optimizer SGD", "made with --optimizer adam:"),
        (PLAIN, "--network ConvNet", "--network ConvNet", "made with --network tests.helpers.networks:mlp:"),
        (PLAIN, "--dataset digits", "--dataset digits", "own.npz"),
        (PLAIN, "--n-train 6", "--n-train 6", "made with --n-train 5:"),
        (PLAIN, "--target-inclusion half", "--target-inclusion half", "made with --target-inclusion coin:"),
        (PLAIN, "--lr-step 80", "--lr-step 80", "made with --lr-step 1:"),
        (PLAIN, "--weight-decay 0", "--weight-decay 0.0", "made with --weight-decay 0.0001:"),
        (PLAIN, "--lr-schedule cosine", "--lr-schedule cosine", "made with --lr-schedule step:"),
        (PLAIN, "--exp-idx 0", "--exp-idx 0", "made with --exp-idx 3:"),
        (PLAIN, "--sigma 1", "--sigma 1.0", "made without it:"),
        (PRIVATE, "--disable-dp", "--disable-dp", "made without it:"),
        (PRIVATE, "--no-augment", "--no-augment", "made without it:"),
        (PRIVATE, "--target-epsilon 8", "--target-epsilon 8.0", "made with --target-epsilon 40.0:"),
        (PRIVATE, "--sigma 1", "--sigma 1.0", "made without it:"),
        (PRIVATE, "-c 0.1", "--max-per-sample-grad-norm 0.1", "made with --max-per-sample-grad-norm 0.3:"),
        (PRIVATE, "--delta 1e-5", "--delta 1e-05", "made with --delta 0.001:"),
        (PRIVATE, "--precision bf16", "--precision bf16", "made with --precision fp32:"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_rejected(made, monkeypatch, kind, flags, given, made_with):
    monkeypatch.chdir(made)
    before = stamps(made)
    argv = ["--run", run_name(made, kind), *flags.split()]
    for main in (train_model.main, attack_lira.main):
        line = rejected(main, argv)
        assert line.startswith(f"error: {given} contradicts --run {run_name(made, kind)}, ")
        assert made_with in line
    assert stamps(made) == before


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (PLAIN, f"{FLAGS[PLAIN]} --lr 3e-3 --optimizer ADAM"),
        (PLAIN, "--disable-dp --dataset /moved/to/own.npz --no-augment --data-root elsewhere"),
        (PRIVATE, f"{FLAGS[PRIVATE]} --precision FP32 --max-physical-batch 3 --eval-every 3 --checkpoint-every 2"),
    ],
)
def test_flags_that_agree_with_the_run_are_accepted(made, monkeypatch, kind, flags):
    monkeypatch.chdir(made)
    given = ["--run", run_name(made, kind), *flags.split()]
    assert restore(*given).identity(**RESOLVED) == restore(*given[:2]).identity(**RESOLVED)


def test_a_run_from_before_a_setting_existed_was_made_with_its_default(copied):
    config = stored_config(copied)
    del config["flags"]["--weight-decay"], config["flags"]["--lr-schedule"]
    write_configs(copied, config)
    given = ["--run", run_name(copied), "--weight-decay", "1e-4", "--lr-schedule", "step"]
    assert "8 of 8 models are complete, training 0" in call(train_model.main, [*given, "--quiet"]).out
    line = rejected(train_model.main, [*given[:2], "--lr-schedule", "cosine"])
    assert line.startswith(
        f"error: --lr-schedule cosine contradicts --run {run_name(copied)}, which was made without it"
    )


def test_a_moved_dataset_is_given_beside_the_run(copied):
    config = stored_config(copied)
    config["flags"]["--dataset"] = str(copied / "gone" / "own.npz")
    write_configs(copied, config)
    argv = ["--run", run_name(copied), "--attacks", "loss", "--quiet"]
    assert f"got '{copied}/gone/own.npz', which is none of them" in rejected(attack_lira.main, argv)
    assert call(attack_lira.main, [*argv, "--dataset", "own.npz"]).status == 0


def test_scores_and_a_run_cannot_be_combined(made, monkeypatch):
    monkeypatch.chdir(made)
    line = rejected(attack_lira.main, ["--run", run_name(made), "--scores", "x.npz"])
    assert f"--scores x.npz and --run {run_name(made)} both say what to attack" in line


# --- runs that cannot be read ----------------------------------------------------------------------------------------


def test_an_unknown_run_suggests_the_nearest(made, monkeypatch, tmp_path):
    before, name = stamps(made), run_name(made)
    monkeypatch.chdir(tmp_path)
    for main in (train_model.main, attack_lira.main):
        argv = ["--run", name.replace("adam", "Adm"), *run_folders(made)]
        line = rejected(main, argv)
        assert line.startswith(f"error: {shlex.join(argv[:2])}: no folder of this name with ")
        assert f"did you mean {name}?" in line
        assert run_name(made, PRIVATE) in line
    assert stamps(made) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ([], []),
        (["flags"], None),
        (["flags"], [1]),
        (["flags", "--no-such-flag"], 1),
        (["flags", "--epochs"], 0),
        (["flags", "--epochs"], "many"),
        (["flags", "--lr"], "fast"),
        (["flags", "--optimizer"], "SDG"),
        (["flags", "--n-train"], "five"),
        (["flags", "--exp-idx"], 0.5),
        (["flags", "--network"], None),
        (["flags", "--n-runs"], "two"),
        (["flags", "--n-shadows"], [4]),
        (["flags", "--n-shadows"], None),
    ],
)
def test_a_config_without_valid_flags_is_one_line(copied, place, value):
    """A value of None removes it."""
    parent = config = stored_config(copied)
    for key in place[:-1]:
        parent = parent[key]
    if value is None:
        del parent[place[-1]]
    elif place:
        parent[place[-1]] = value
    write_configs(copied, config if place else value)
    before = stamps(copied)
    for main in (train_model.main, attack_lira.main):
        line = rejected(main, ["--run", run_name(copied), "--quiet"])
        assert "config.json" in line
    assert stamps(copied) == before


# --- the same flags twice, without --run -----------------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False])
def test_a_forgotten_disable_dp_is_named(made, tmp_path, monkeypatch, private):
    skip_figures(monkeypatch)
    flags = shlex.split(
        f"--dataset {made}/own.npz --network tests.helpers.networks:mlp --epochs 1 --n-shadows 4 --quiet"
    )
    flags += run_folders(tmp_path)
    with_dp, without = flags, [*flags, "--disable-dp"]
    trained, other = (with_dp, without) if private else (without, with_dp)
    assert call(train_model.main, trained).status == 0
    (path,) = (tmp_path / "model").iterdir()
    line = rejected(attack_lira.main, other)
    assert f"{'leave out' if private else 'add'} --disable-dp to attack {path.name}, or train them with: " in line
    assert call(attack_lira.main, ["--run", path.name, *run_folders(tmp_path), "--attacks", "loss"]).status == 0
    path.rename(path.with_name("gone"))
    assert "to attack" not in rejected(attack_lira.main, other)
