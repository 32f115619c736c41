"""train_model.py end to end: files, what is trained again, failures, rejected input, output."""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest
import torch

import train_model
from common import make_split
from lira.data.readers import read_digits
from tests.helpers.datasets import ARCHIVES, arrays, write_cifar100, write_images
from tests.helpers.networks import mlp
from tests.helpers.scripts import FLAGS, ROOT, call, contents, rejected, run_folders, script, stamps

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
    assert {"command", "started", "device", "threads", "python", "torch"} <= set(config["provenance"])


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
    assert "trained 1 models in" in again.out
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


def test_another_exp_idx_is_another_run(tmp_path):
    for exp_idx in ("0", "1"):
        argv = [*QUICK, "--n-shadows", "4", "--exp-idx", exp_idx, *run_folders(tmp_path), "--quiet"]
        assert call(train_model.main, argv).status == 0
    first, second = (weights(folder) for folder in sorted((tmp_path / "model").iterdir()))
    assert not torch.equal(first["target_00"]["2.weight"], second["target_00"]["2.weight"])


@pytest.mark.parametrize(
    ("flags", "field", "old", "new"),
    [
        (["--lr-step", "7"], "lr_step", "80", "7"),
        (["--target-inclusion", "coin"], "target_inclusion", "'half'", "'coin'"),
        (["--lr", "0.10000001"], "lr", "0.1", "0.10000001"),
    ],
)
def test_a_run_with_other_settings_is_rejected_and_the_field_named(run_copy, flags, field, old, new):
    before = stamps(run_copy.models)
    line = rejected(train_model.main, [*run_copy.argv, *flags])
    assert f"{field} = {old}" in line
    assert f"ask for {new}" in line
    assert "config.json" in line
    assert stamps(run_copy.models) == before


def test_a_corrupted_config_is_rejected(run_copy):
    for corruption in (b"", b"{", b"[]", b'{"identity": 3}', b"\xff\xfe"):
        (run_copy.models / "config.json").write_bytes(corruption)
        assert "config.json is corrupted" in rejected(train_model.main, run_copy.argv)


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_only_that_model(tmp_path, monkeypatch):
    """shadow_01 alone has a learning rate at which training diverges."""
    original = train_model.train_model

    def train(name, *args, lr, **settings):
        return original(name, *args, lr=1e30 if name == "shadow_01" else lr, **settings)

    monkeypatch.setattr(train_model, "train_model", train)
    argv = [*QUICK, "--epochs", "3", *run_folders(tmp_path)]
    called = call(train_model.main, argv)
    assert called.status == 1
    assert "1 of 5 models failed: shadow_01" in called.err.rstrip().splitlines()[-1]
    assert "failed: shadow_01: the loss is" in called.err
    assert "Traceback" not in called.err
    assert "now: python attack_lira.py" not in called.out
    names = set(weights(next((tmp_path / "model").iterdir())))
    assert names == {"target_00", "shadow_00", "shadow_02", "shadow_03"}


def test_weights_that_diverge_in_the_last_step_are_a_failure(tmp_path):
    """One epoch of one batch: its training loss is that of the initial weights, only the test loss is not finite."""
    argv = [*QUICK, "--lr", "1e36", "--train-batch-size", "4096", *run_folders(tmp_path), "--quiet"]
    called = call(train_model.main, argv)
    assert called.status == 1
    assert "5 of 5 models failed" in called.err
    assert not list((tmp_path / "model").rglob("*.pt"))


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(tmp_path):
    """A limit on file sizes: write() then fails as on a full disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    called = script("train_model.py", [*QUICK, "--quiet"], tmp_path, preexec_fn=limit)
    assert called.returncode == 2, called.stderr
    assert len(called.stderr.splitlines()) == 1, called.stderr
    assert called.stderr.startswith("error: cannot write model/")
    assert "target_00.pt" in called.stderr
    assert [path.name for path in (tmp_path / "model").rglob("*") if path.is_file()] == ["config.json"]


@pytest.mark.parametrize("flag", ["--model-dir", "--result-dir"])
def test_an_unwritable_folder_is_one_line(flag, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    argv = [*QUICK, *run_folders(tmp_path), flag, tmp_path / "file" / "x", "--quiet"]
    line = rejected(train_model.main, argv)
    assert "cannot write" in line
    assert str(tmp_path / "file") in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(tmp_path):
    (tmp_path / "model").mkdir(mode=0o500)
    assert "Permission denied" in rejected(train_model.main, [*QUICK, *run_folders(tmp_path), "--quiet"])


# --- rejected input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "cifar11"], ["cifar11", "digits", ".npz"]),
        (["--network", "ResNet19"], ["ResNet19", "ResNet18", "module:factory"]),
        (["--network", "tests.helpers.networks:missing"], ["tests.helpers.networks", "missing"]),
        (["--network", "no_such_module:make"], ["no_such_module"]),
        (["--network", ":make"], ["make"]),
        (["--network", ".networks:mlp"], [".networks"]),
        (["--network", "syntax_error:make"], ["syntax_error", "SyntaxError"]),
        (["--network", "tests.helpers.scripts:FLAGS"], ["tests.helpers.scripts:FLAGS"]),
        (["--network", "tests.helpers.networks:no_module"], ["tests.helpers.networks:no_module"]),
        (["--network", "tests.helpers.networks:fails"], ["tests.helpers.networks:fails", "first line"]),
        (["--network", "tests.helpers.networks:one_logit_too_many"], ["(2, 10)", "(2, 11)"]),
        (["--network", "tests.helpers.networks:wrong_shape"], ["(2, 10)", "(1, 2, 3)"]),
        (["--n-shadows", "5"], ["--n-shadows", "even", "5"]),
        (["--n-shadows", "2"], ["--n-shadows", "4", "2"]),
        (["--n-train", "599"], ["--n-train", "598", "599"]),
        (["--n-train", "0"], ["--n-train", "0"]),
        (["--epochs", "0"], ["--epochs", "0"]),
        (["--epochs", "1.5"], ["--epochs", "1.5"]),
        (["--lr", "nan"], ["--lr", "nan"]),
        (["--lr", "inf"], ["--lr", "inf"]),
        (["--lr", "-0.1"], ["--lr", "-0.1"]),
        (["--optimizer", "Adam"], ["--optimizer", "adam"]),
        (["--device", "gpu"], ["--device", "gpu", "cuda"]),
        (["--attacks", "lira,oracle"], ["oracle", "lira-offline"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(flags, words, tmp_path, monkeypatch):
    (tmp_path / "syntax_error.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = rejected(train_model.main, [*FLAGS, *flags, *run_folders(tmp_path)])
    for word in words:
        assert word in line
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_is_rejected(device, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    line = rejected(train_model.main, [*FLAGS, "--device", device, *run_folders(tmp_path)])
    assert device in line
    assert "0 GPUs" in line


def test_wrong_arrays_are_rejected_by_name(tmp_path):
    good = arrays(channels=0)
    wrong = {
        "x_test": good | {"x_test": good["x_test"][:, :4]},
        "y_test[3] is 3": good | {"y_test": np.array([0, 1, 2, 3])},
        "y_train": good | {"y_train": np.array([0, "one"] * 3, dtype=object)},
    }
    for index, (words, data) in enumerate(wrong.items()):
        path = tmp_path / f"{index}.npz"
        np.savez(path, allow_pickle=True, **data)
        assert words in rejected(train_model.main, [*FLAGS, "--dataset", path, *run_folders(tmp_path)])
    assert not (tmp_path / "model").exists()


def test_a_folder_with_an_empty_class_is_rejected(tmp_path):
    write_images(tmp_path / "own")
    for image in (tmp_path / "own" / "train" / "bee").iterdir():
        image.unlink()
    argv = [*FLAGS, "--dataset", tmp_path / "own", "--data-root", tmp_path / "data", *run_folders(tmp_path)]
    assert "bee" in rejected(train_model.main, argv)


# --- datasets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "mnist"])
def test_without_internet_the_missing_file_and_digits_are_named(dataset, tmp_path, monkeypatch):
    def urlopen(*args, **kwargs):
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.chdir(tmp_path)
    line = rejected(train_model.main, ["--dataset", dataset, "--network", "ResNet18", "--disable-dp"])
    for file in ARCHIVES[dataset]:
        assert f"data/{file}" in line
    assert "digits" in line
    assert not (tmp_path / "model").exists()


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
    assert lines[1] == "1,197 + 600 images of 1x28x28, 10 classes; a model trains on 40 + 300"
    assert lines[2].startswith("tests.helpers.networks:mlp in fp32 on cpu")
    assert lines[3].startswith("trained 6 models in 0.")
    assert lines[4].startswith("target: 2 models, test accuracy ")
    assert lines[5].startswith("shadow: 4 models, test accuracy ")
    assert lines[6].startswith("now: python attack_lira.py --disable-dp --dataset digits ")
    assert len(lines) == 7


def test_the_command_at_the_end_attacks_the_run(run_copy):
    """Unchanged, in a shell and a folder whose name needs quotes. Flags equal to their defaults are left out."""
    folder = run_copy.folder / "a folder; with $(odd) 'name'"
    folder.mkdir()
    for name in ("model", "result"):
        (run_copy.folder / name).rename(folder / name)
    argv = [*run_copy.argv[:-4], "--lr-step", "80", "--shard", "1/1", *run_folders(folder)]
    trained = script("train_model.py", argv, run_copy.folder)
    (line,) = [line for line in trained.stdout.splitlines() if line.startswith("now: ")]
    assert "--lr-step" not in line
    assert "--shard" not in line
    command = line.removeprefix("now: python ")
    options = dict(cwd=run_copy.folder, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    command = f"{shlex.quote(sys.executable)} {command} --attacks loss --quiet"
    called = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, **options)
    assert called.returncode == 0, called.stderr
    assert "report.html: the report" in called.stdout


def test_progress_bars_show_the_run_and_the_model(finished):
    bars = finished.trained.err
    assert "6/6 models: 100%" in bars
    assert "shadow_03: " in bars
    assert "epoch=30" in bars


def test_quiet_shows_no_progress_bars(run_copy):
    (run_copy.models / "shadow_00.pt").unlink()
    called = call(train_model.main, [*run_copy.argv, "--quiet"])
    assert called.status == 0
    assert called.err == ""
    assert "training 1" in called.out
