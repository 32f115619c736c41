"""train_model.py end to end: files, what is trained again, rejected input, output."""

import json
import re
import shlex
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import attack_lira
import train_model
from common import make_split
from lira.data.readers import read_digits
from lira.storage.runs import Run
from tests.helpers.datasets import arrays, write_cifar100
from tests.helpers.networks import mlp
from tests.helpers.report import skip_figures
from tests.helpers.scripts import FLAGS, call, contents, rejected, run_folders, script, stamps

MODELS = ["target_00", "target_01", "shadow_00", "shadow_01", "shadow_02", "shadow_03"]
LOG_COLUMNS = "model epoch lr train_loss train_accuracy test_loss test_accuracy epsilon seconds"
MODELS_COLUMNS = (
    "role index test_accuracy train_accuracy epsilon seconds device delta sigma max_grad_norm sample_rate steps"
)
QUICK = [*FLAGS, "--epochs", "1", "--n-runs", "1"]  # the last of two equal flags counts


def weights(folder):
    return {path.stem: torch.load(path, weights_only=True)["weights"] for path in folder.glob("*.pt")}


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


# --- files -----------------------------------------------------------------------------------------------------------


def test_folder_names_and_files_of_a_run(finished):
    name = "digits_tests.helpers.networks-mlp_MSGD_lr0.1_b256_e30_fp32_noaug_n40_exp0"
    assert finished.models.name == finished.results.name == name
    assert set(contents(finished.models)) == {"config.json", *(f"{model}.pt" for model in MODELS)}
    assert {path.stem for path in (finished.results / "train").glob("*.csv")} == set(MODELS)


def test_a_log_has_one_row_per_epoch_and_tests_every_n_epochs(finished):
    log = pd.read_csv(finished.results / "train" / "shadow_02.csv")
    assert " ".join(log.columns) == LOG_COLUMNS
    assert log.epoch.tolist() == list(range(1, 31))
    assert set(log.model) == {"shadow_02"}
    assert log.epoch[log.test_accuracy.notna()].tolist() == [20, 30]  # --eval-every 20, and after the last epoch
    assert (log.lr == 0.1).all()
    assert log.epsilon.isna().all()
    assert log.train_loss.iloc[-1] < 0.2 < log.train_loss.iloc[0]
    assert log.seconds.is_monotonic_increasing


def test_the_models_table_holds_the_last_row_of_each_log(finished):
    table = pd.read_csv(finished.results / "models.csv")
    assert " ".join(table.columns) == MODELS_COLUMNS
    assert [f"{role}_{index:02d}" for role, index in zip(table.role, table["index"], strict=True)] == MODELS
    for model, row in zip(MODELS, table.itertuples(), strict=True):
        last_row = pd.read_csv(finished.results / "train" / f"{model}.csv").iloc[-1]
        assert row.test_accuracy == pytest.approx(last_row.test_accuracy, abs=1e-12)
        assert row.train_accuracy == pytest.approx(last_row.train_accuracy, abs=1e-12)
    assert (table.test_accuracy > 0.7).all()
    assert (table.train_accuracy > 0.95).all()
    assert table[["epsilon", "delta", "sigma", "steps"]].isna().all(axis=None)


def test_config_holds_identity_and_provenance(finished):
    config = json.loads((finished.models / "config.json").read_text())
    identity = config["identity"]
    expected = dict(dataset="digits", network="tests.helpers.networks:mlp", optimizer="MSGD", lr=0.1, batch_size=256)
    expected |= dict(epochs=30, precision="fp32", augment=False, n_train=40, exp_idx=0)
    expected |= dict(lr_step=80, target_inclusion="half")
    assert expected.items() <= identity.items()
    assert len(identity["data_fingerprint"]) == 64
    assert {"command", "started", "device", "threads", "versions"} <= set(config["provenance"])
    assert {"python", "torch"} <= set(config["provenance"]["versions"])


def test_test_accuracy_is_measured_on_the_half_that_a_model_does_not_draw_from(finished):
    """Recomputed here from the stored weights, in eval mode."""
    images = read_digits()
    x = (images.x_train.float() / 255 - images.mean[0]) / images.std[0]
    split = make_split(len(x), 600, n_train=40, exp_idx=0, inclusion="half")
    table = pd.read_csv(finished.results / "models.csv")
    for role, test_half in (("target", split.target_half), ("shadow", split.attack_half)):
        model = mlp(10, 1).eval()
        model.load_state_dict(weights(finished.models)[f"{role}_01"])
        with torch.no_grad():
            accuracy = (model(x[test_half]).argmax(1) == images.y_train[test_half]).float().mean().item()
        row = table[(table.role == role) & (table["index"] == 1)]
        assert row.test_accuracy.item() == pytest.approx(accuracy, abs=1.1 / len(test_half))


# --- trained again ---------------------------------------------------------------------------------------------------


def test_complete_models_are_not_written_again(run_copy):
    before = stamps(run_copy.models)
    again = call(train_model.main, run_copy.argv)
    assert again.status == 0
    assert "6 of 6 models are complete, training 0" in again.out
    assert stamps(run_copy.models) == before


def test_a_model_trained_alone_equals_the_one_trained_with_the_others(run_copy):
    path = run_copy.models / "shadow_03.pt"
    before, other_stamps = weights(run_copy.models)["shadow_03"], stamps(run_copy.models, "*_0[0-2].pt")
    path.unlink()
    again = call(train_model.main, run_copy.argv)
    assert again.status == 0
    assert "5 of 6 models are complete, training 1" in again.out
    assert "trained 1 model in" in again.out
    assert_same_weights(weights(run_copy.models)["shadow_03"], before)
    assert stamps(run_copy.models, "*_0[0-2].pt") == other_stamps


def test_shadows_can_be_added_to_a_run(run_copy):
    before = stamps(run_copy.models)
    assert call(train_model.main, [*run_copy.argv, "--n-shadows", "6"]).status == 0
    after = stamps(run_copy.models)
    assert before.items() <= after.items()
    assert set(after) - set(before) == {"shadow_04.pt", "shadow_05.pt"}


def test_two_processes_train_the_same_weights(tmp_path):
    """The script in a subprocess and main() here, in different folders."""
    here = tmp_path / "here"
    argv = [*QUICK, "--network", "ConvNet", "--quiet"]
    assert call(train_model.main, [*argv, *run_folders(here)]).status == 0
    other = script("train_model.py", argv, tmp_path)  # writes model/ and result/ of the current folder
    assert other.returncode == 0, other.stderr
    assert other.stderr == ""
    first, second = (weights(next((folder / "model").iterdir())) for folder in (here, tmp_path))
    assert len(first) == 5
    for name in first:
        assert_same_weights(first[name], second[name])
    kernels = {name: model["1.weight"] for name, model in first.items()}
    assert len({kernel.numpy().tobytes() for kernel in kernels.values()}) == 5  # no two models alike


# --- checkpoints, Ctrl-C ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "epochs"), [("--checkpoint-every 2", [2, 4, 6]), ("--checkpoint-every 7", []), ("", [3, 6])]
)
def test_a_checkpoint_comes_every_n_epochs_or_once_a_minute(tmp_path, monkeypatch, flags, epochs):
    """Seven epochs of 25 seconds by the clock. Not after the last, whose weights are saved."""
    saved, durations = [], []
    clock = SimpleNamespace(monotonic=lambda: sum(durations), perf_counter=time.perf_counter)
    monkeypatch.setattr(train_model, "time", clock)
    monkeypatch.setattr(Run, "save_log", lambda *args: durations.append(25.0))  # once per epoch
    monkeypatch.setattr(Run, "save_resume", lambda run, role, index, state: saved.append(len(state["history"])))
    argv = [*QUICK, "--epochs", "7", "--shard", "1/5", *flags.split(), *run_folders(tmp_path), "--quiet"]
    called = call(train_model.main, argv)
    assert (called.status, saved) == (0, epochs), called.err


@pytest.mark.parametrize(("place", "progress"), [("make_split", "complete models"), ("Trainer.train", "0 of 5 models")])
def test_ctrl_c_in_preparation_and_in_training(tmp_path, monkeypatch, place, progress):
    """How far a model came is tested in tests/test_resume.py."""

    def interrupt(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"common.{place}", interrupt)
    called = call(train_model.main, [*QUICK, *run_folders(tmp_path), "--quiet"])
    (line,) = called.err.strip().splitlines()
    assert called.status == 130
    assert line.startswith(f"stopped: {progress}")
    assert line.endswith("run the same command again to resume")


# --- rejected input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "cifar11"], ["cifar11", "digits", ".npz"]),
        (["--network", "ResNet19"], ["ResNet19", "ResNet18", "module:factory"]),
        (["--network", "tests.helpers.networks:fails"], ["tests.helpers.networks:fails", "first line"]),
        (["--n-train", "599"], ["--n-train", "598", "599"]),
        (["--epochs", "1.5"], ["--epochs", "1.5"]),
        (["--device", "gpu"], ["--device", "gpu", "cuda"]),
    ],
)
def test_bad_input_is_rejected_and_writes_nothing(flags, words, tmp_path):
    """One row for each step that rejects flags; all their values are in the tests of util, network and common."""
    line = rejected(train_model.main, [*FLAGS, *flags, *run_folders(tmp_path)])
    for word in words:
        assert word in line
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "result").exists()


# --- datasets --------------------------------------------------------------------------------------------------------


def test_resnet18_trains_on_cifar100(tmp_path, monkeypatch):
    """With six images in the official format."""
    (tmp_path / "data").mkdir()
    write_cifar100(tmp_path / "data", monkeypatch)
    monkeypatch.chdir(tmp_path)
    argv = shlex.split("--dataset cifar100 --network ResNet18 --disable-dp --epochs 1 --n-shadows 4")
    called = call(train_model.main, argv)
    assert called.status == 0, called.err
    assert "100 classes" in called.out
    assert "cifar100_ResNet18_MSGD_lr0.05_b256_e1_" in called.out
    first = torch.load(next((tmp_path / "model").rglob("target_00.pt")), weights_only=True)["weights"]
    assert first["conv1.weight"].shape == (64, 3, 3, 3)
    assert first["fc.weight"].shape == (100, 512)


@pytest.mark.parametrize("privacy", [["--disable-dp"], ["--target-epsilon", "40", "--delta", "1e-3"]])
def test_models_that_train_on_half_of_the_target_samples_alone(privacy, tmp_path, monkeypatch):
    """As where a whole training set is audited. The two training images, which are target samples too, only measure the
    test accuracy: one for the shadows, the other for the target."""
    skip_figures(monkeypatch)
    content = arrays(channels=0, n_train=2, n_test=24, names=["a", "b", "c"])
    content["x_test"][:2] = content["x_train"]
    np.savez(tmp_path / "own.npz", **content)
    network = ["--network", "tests.helpers.networks:normed", "--quiet", *privacy]
    argv = [*QUICK, *network, "--dataset", tmp_path / "own.npz", "--n-train", "0", *run_folders(tmp_path)]
    argv = [flag for flag in argv if flag != "--disable-dp" or flag in privacy]
    for main in (train_model.main, attack_lira.main):
        called = call(main, argv)
        assert (called.status, called.err) == (0, ""), called.err
        lines = called.out.splitlines()
        assert "2 training + 24 test images of 1x8x10, 3 classes; each model trains on 0 + 12" in lines
        assert "blurs" not in called.out
    (run,) = (tmp_path / "model").iterdir()
    assert "_n0_" in run.name
    assert pd.read_csv(tmp_path / "result" / run.name / "models.csv").test_accuracy.isin([0, 1]).all()
    (path,) = (tmp_path / "result").glob("*/samples.csv")
    assert len(pd.read_csv(path)) == 24


def test_strange_names_of_data_stay_inside_the_folders(tmp_path):
    """The names themselves are tested in tests/storage/test_names.py."""
    path = tmp_path / "in" / "$(touch x); *?[x]\nbreak.npz"
    path.parent.mkdir()
    np.savez(path, **arrays(channels=0, n_train=12, n_test=6))
    argv = [*QUICK, "--network", "tests.helpers.networks:lazy", "--n-train", "3", *run_folders(tmp_path), "--quiet"]
    called = call(train_model.main, [*argv, "--dataset", f"{tmp_path}/in/../in/{path.name}"])
    assert called.status == 0, called.err
    assert {path.name for path in tmp_path.iterdir()} == {"in", "model", "result"}
    (run,) = (tmp_path / "model").iterdir()
    assert re.fullmatch(r"[\w.+-]+", run.name)
    assert not run.name.startswith((".", "-"))
    assert (run / "shadow_03.pt").is_file()


# --- output ----------------------------------------------------------------------------------------------------------


def test_the_output_names_the_models_and_the_next_command(finished):
    lines = finished.trained.out.splitlines()
    assert lines[0] == f"run {finished.models.name}: 0 of 6 models are complete, training 6"
    assert lines[1] == "1,197 training + 600 test images of 1x28x28, 10 classes; each model trains on 40 + 300"
    assert lines[2].startswith("tests.helpers.networks:mlp in fp32 on cpu")
    assert lines[3].startswith("trained 6 models in 0.")
    assert lines[4].startswith("target: 2 models, test accuracy ")
    assert lines[5].startswith("shadow: 4 models, test accuracy ")
    command = ["python", "attack_lira.py", "--run", finished.models.name, *run_folders(finished.folder)]
    assert lines[6] == f"next: {shlex.join(command)}"
    assert len(lines) == 7


def test_the_command_at_the_end_attacks_the_run(run_copy, monkeypatch):
    """Unchanged, with folders whose names need quotes, and the script beside the one that trained."""
    folder, run = run_copy.folder / "a folder; with $(odd) 'name'", run_copy.models.name
    folder.mkdir()
    for name in ("model", "result"):
        (run_copy.folder / name).rename(folder / name)
    monkeypatch.setattr(sys, "argv", ["some where/train_model.py"])
    trained = call(train_model.main, [*run_copy.argv[:-4], "--shard", "1/1", *run_folders(folder)])
    (line,) = [line for line in trained.out.splitlines() if line.startswith("next: ")]
    program, path, *argv = shlex.split(line.removeprefix("next: "))
    assert (program, path) == ("python", "some where/attack_lira.py")
    skip_figures(monkeypatch)
    called = call(attack_lira.main, [*argv, "--attacks", "loss", "--quiet"])
    assert called.status == 0, called.err
    assert f"{folder}/result/{run}/report.html: the report" in called.out


def test_off_a_terminal_each_model_is_one_line(finished):
    lines = finished.trained.err.splitlines()
    models = pd.read_csv(finished.results / "models.csv")
    for n, (line, name, row) in enumerate(zip(lines, MODELS, models.itertuples(), strict=True), 1):
        figures = f"training accuracy {row.train_accuracy:.1%}, test accuracy {row.test_accuracy:.1%}"
        assert line == f"{name}: {row.seconds / 60:.1f} min, {figures} ({n} of 6 models complete)"


def test_quiet_shows_no_progress_bars(run_copy):
    (run_copy.models / "shadow_00.pt").unlink()
    called = call(train_model.main, [*run_copy.argv, "--quiet"])
    assert called.status == 0
    assert called.err == ""
    assert "training 1" in called.out
