"""A run with differential privacy, end to end: files, output, audit, a killed process, rejected flags."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from opacus.accountants import PRVAccountant

import attack_lira
import train_model
from lira.privacy.compatibility import replace_batch_norm
from lira.storage.probe import probe_images
from lira.storage.runs import Run
from lira.training import cost
from tests.helpers import killing, networks
from tests.helpers.breakages import broken, noise_of_half_the_size
from tests.helpers.report import skip_figures
from tests.helpers.scripts import FinishedRun, call, contents, rejected, run_folders

FLAGS = shlex.split(
    "--dataset digits --network tests.helpers.networks:normed --epochs 2 --n-shadows 4 --n-runs 2 --n-train 40 "
    "--sigma 0.8 -c 0.5 --noise-seed 3 --eval-every 2 --precision fp32 --device cpu --checkpoint-every 1 --quiet"
)
MIXING = "tests.helpers.networks:mixing"


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    return FinishedRun.create(tmp_path_factory.mktemp("private"), FLAGS)


def epsilon(steps):
    accountant = PRVAccountant()
    accountant.history = [(0.8, 1 / 2, steps)]  # 40 + 300 images in batches of 256
    return accountant.get_epsilon(1e-5)


def test_the_guarantee_is_on_disk(private):
    assert (
        private.models.name
        == "digits_tests.helpers.networks-normed_MSGD_lr1_b256_e2_fp32_n40_sigma0.8_C0.5_noise3_exp0"
    )
    models = pd.read_csv(private.results / "models.csv")
    assert len(models) == 6
    guarantee = {"delta": 1e-5, "sigma": 0.8, "max_grad_norm": 0.5, "sample_rate": 0.5, "steps": 4}
    for column, value in guarantee.items():
        assert (models[column] == value).all(), column
    np.testing.assert_allclose(models.epsilon, epsilon(4), rtol=1e-12)
    config = json.loads((private.models / "config.json").read_text())
    assert {"sigma": 0.8, "max_grad_norm": 0.5, "delta": 1e-5}.items() <= config["identity"].items()
    assert guarantee.items() <= config["provenance"]["privacy"].items()
    assert config["provenance"]["privacy"]["epsilon"] == models.epsilon[0]
    log = pd.read_csv(private.results / "train" / "target_01.csv")
    np.testing.assert_allclose(log.epsilon, [epsilon(2), epsilon(4)], rtol=1e-12)
    assert (log.lr == 1).all()


def test_the_output_names_the_guarantee_without_warnings(private):
    assert "GroupNorm in place of 1 BatchNorm2d layer (1)\nDP-SGD: sigma 0.8, C 0.5, 4 steps at" in private.trained.out
    assert f"epsilon {epsilon(4):.4g} at delta 1e-05, of each model for its own training set" in private.trained.out
    assert private.trained.err == private.attacked.err == ""
    page = (private.results / "report.html").read_text()
    for text in (private.trained.out, private.attacked.out, page):
        assert "nominal" in text, "the noise follows from --noise-seed"
    assert "not for publication" in page


def test_weights_are_those_of_the_network_with_group_norm(private):
    content = torch.load(private.models / "target_00.pt", weights_only=True)["weights"]
    assert set(content) == {"0.weight", "1.weight", "1.bias", "5.weight", "5.bias"}


def test_the_weights_file_holds_nothing_else_that_follows_from_the_training_images(private):
    content = torch.load(private.models / "target_00.pt", weights_only=True)
    guarantee = {"epsilon", "delta", "sigma", "max_grad_norm", "sample_rate", "steps"}
    assert set(content) == {"weights", "record", "sha256"}
    assert set(content["record"]) == guarantee | {"canaries", "seconds", "device", "sha256", "belongs_to", "probe"}
    model = replace_batch_norm(networks.normed(10, 1))
    model.load_state_dict(content["weights"])
    with torch.no_grad():  # from the weights alone
        logits = model.eval()(probe_images((1, 28, 28)))
    assert content["record"]["probe"].keys() == {"shape", "logits"}
    torch.testing.assert_close(content["record"]["probe"]["logits"], logits)
    shadow = torch.load(private.models / "shadow_00.pt", weights_only=True)["record"]
    assert set(content["record"]) - set(shadow) == {"canaries"}, "shadows train without"


def test_canaries_of_the_targets(private):
    """818 weights: 81 of them."""
    assert "targets train with 81 gradient canaries" in private.trained.out
    config = json.loads((private.models / "config.json").read_text())
    assert config["provenance"]["privacy"]["canaries"] == 81
    assert "every target trained with 81 gradient canaries" in (private.results / "report.html").read_text()
    with np.load(private.results / "canaries.npz", allow_pickle=False) as file:
        assert {name: file[name].dtype.kind for name in file.files} == {"target": "i", "score": "f", "member": "b"}
        assert np.bincount(file["target"]).tolist() == [81, 81]
        score, member = file["score"], file["member"]
    assert score[member].mean() > score[~member].mean()
    assert not np.array_equal(member[:81], member[81:])
    table = pd.read_csv(private.results / "mechanism.csv")
    assert table.target.unique().tolist() == ["target_00", "target_01"]
    assert {"all", "0.weight", "5.weight"} <= set(table.scope)
    checks = {"steps", "noise scale", "participation", "weight", "correlation", "once per epoch"}
    assert set(table.check) == checks
    claimed = table[table.scope == "all"].groupby("check").claimed.first()
    assert claimed[["steps", "noise scale", "participation", "weight", "correlation"]].tolist() == [4, 0.8, 0.5, 1, 0]
    assert not table.deviates.any()


def test_a_target_whose_training_was_broken_is_named(private, tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    copy = private.copy(tmp_path)
    (copy.models / "target_01.pt").unlink()
    with broken(noise_of_half_the_size):
        assert call(train_model.main, copy.argv).status == 0
    attacked = call(attack_lira.main, copy.argv)
    assert attacked.status == 0, "the attack did what it had to"
    (violation,) = [line for line in attacked.out.splitlines() if "VIOLATION" in line]
    assert violation.startswith("VIOLATION: target_01, noise scale (all, 0.weight, ")
    table = pd.read_csv(copy.results / "mechanism.csv")
    assert set(table[table.deviates].target + ": " + table[table.deviates].check) == {"target_01: noise scale"}


def test_a_run_made_before_there_were_canaries(private, tmp_path, monkeypatch):
    """Its targets are kept, new ones train without too, and another number is rejected."""
    skip_figures(monkeypatch)
    copy = private.copy(tmp_path)
    run = Run(copy.models, copy.results, torch.load(copy.models / "target_00.pt")["record"]["belongs_to"].split()[1])
    for index in (0, 1):
        record = {key: value for key, value in run.record("target", index).items() if key != "canaries"}
        run.save_weights("target", index, run.load_weights("target", index), record)
    for path in [*copy.results.glob("train/*.npz"), copy.results / "canaries.npz", copy.results / "mechanism.csv"]:
        path.unlink()
    before = contents(copy.models)
    assert "the targets of this run have 0, and are not trained again" in rejected(
        train_model.main, [*copy.argv, "--canaries", "81"]
    )
    trained = call(train_model.main, [*copy.argv, "--n-runs", "3"])
    assert (trained.status, trained.err) == (0, "")
    assert before.items() <= contents(copy.models).items()
    assert "canaries" not in run.record("target", 2)
    attacked = call(attack_lira.main, [*copy.argv, "--n-runs", "3"])
    assert (attacked.status, attacked.err) == (0, "")
    assert not (copy.results / "mechanism.csv").exists()


def test_accuracies_of_private_models_come_from_their_logs(private, tmp_path):
    copy = private.copy(tmp_path)
    log = copy.results / "train" / "shadow_01.csv"
    last = pd.read_csv(log).iloc[-1]
    models = pd.read_csv(copy.results / "models.csv").set_index(["role", "index"])
    assert models.loc[("shadow", 1), "test_accuracy"] == last.test_accuracy
    assert models.loc[("shadow", 1), "train_accuracy"] == last.train_accuracy
    log.unlink()
    assert call(train_model.main, copy.argv).status == 0
    models = pd.read_csv(copy.results / "models.csv").set_index(["role", "index"])
    assert models[["test_accuracy", "train_accuracy"]].isna().any(axis=1).tolist() == [
        job == ("shadow", 1) for job in models.index
    ]


def test_a_private_log_cut_at_the_end_of_a_line_gives_no_accuracies(private, tmp_path, monkeypatch):
    """The row of an earlier epoch looks like the last one."""
    skip_figures(monkeypatch)
    copy = private.copy(tmp_path)
    log = copy.results / "train" / "target_00.csv"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    attacked = call(attack_lira.main, [*copy.argv, "--attacks", "loss"])
    assert attacked.status == 0
    assert f"warning: {log} is left out: ValueError: it ends after epoch 1 of 2" in attacked.err
    models = pd.read_csv(copy.results / "models.csv").set_index(["role", "index"])
    assert models.loc[("target", 0), ["test_accuracy", "train_accuracy"]].isna().all()
    assert models.loc[("target", 1), ["test_accuracy", "train_accuracy"]].notna().all()


def test_a_resume_file_that_no_longer_fits_is_kept(tmp_path, monkeypatch):
    """The message says to restore the code: that must be enough."""
    flags = [*FLAGS, "--n-runs", "1", "--epochs", "4", *run_folders(tmp_path)]
    assert killing.run(flags, kill_at=30)[0] is None
    (resume_file,) = (tmp_path / "model").glob("*/target_00.resume.pt")
    before = resume_file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(networks, "normed", networks.mlp)
        trained = call(train_model.main, [*flags, "--shard", "1/5"])
    assert trained.status == 1
    assert "its resume file does not fit the network, whose code has changed" in trained.err
    assert resume_file.read_bytes() == before
    assert call(train_model.main, [*flags, "--shard", "1/5"]).status == 0


def test_the_audit_stays_below_the_guarantee(private):
    table = pd.read_csv(private.results / "audit.csv")
    audit = table[table.kind == "one-run"]
    assert audit.target.tolist() == ["target_00", "target_01", "pooled"]
    assert (table[table.kind == "f-dp"].epsilon_upper.to_numpy() == audit.epsilon_upper).all()
    np.testing.assert_allclose(audit.epsilon_upper, epsilon(4), rtol=1e-12)
    assert (audit.epsilon_lower <= audit.epsilon_upper).all()
    assert audit.n_audited.tolist() == [600, 600, 1200]
    assert (audit.n_correct <= audit.n_guesses).all()
    assert audit.n_guesses[0] == audit.n_guesses[1] == audit.n_guesses[2] / 2 <= 600
    assert (audit.epsilon_max > 5).all(), "Bernoulli inclusion: exact halves could show 4.38"
    out = " ".join(private.attacked.out.split())
    assert f"from 1,200 samples of 2 targets, epsilon is at least {audit.epsilon_lower.iloc[-1]:.2f}" in out
    assert f"Guarantee: epsilon is at most {epsilon(4):.2f}, at delta 1e-05, by the accountant" in out
    assert "VIOLATION" not in out


def test_members_of_private_targets_are_drawn_independently(private):
    config = json.loads((private.models / "config.json").read_text())
    assert config["identity"]["target_inclusion"] == "coin"
    n_members = np.load(private.results / "scores.npz")["member"][:2].sum(axis=1)
    assert (n_members != 300).all()


@pytest.mark.parametrize("main", [train_model.main, attack_lira.main])
def test_a_private_run_of_the_other_inclusion_is_rejected(private, main):
    line = rejected(main, [*private.argv, "--target-inclusion", "half"])
    assert "config.json was made with target_inclusion = 'coin', these flags and data give 'half'" in line


def test_killed_private_models_continue_to_the_same_weights(private, tmp_path):
    """Also a shadow that another worker trains alone has the same weights."""
    flags = [*FLAGS, *run_folders(tmp_path)]
    resume_files = []
    for kill_at in (30, 50):
        assert killing.run(flags, kill_at=kill_at)[0] is None
        resume_files += (tmp_path / "model").glob("*/*.resume.pt")
    assert resume_files, "the test needs a model that was killed in training"
    assert killing.run([*flags, "--shard", "6/6"])[0] == 0
    assert killing.run(flags)[0] == 0
    assert killing.weights(tmp_path) == killing.weights(private.folder)
    canaries = contents(private.folder / "result", "*.canaries.*.npz")
    assert len(canaries) == 2
    assert contents(tmp_path / "result", "*.canaries.*.npz") == canaries


def test_a_plan_measures_private_steps(private, monkeypatch):
    monkeypatch.setattr(cost, "MEASURE_SECONDS", 0.1)
    called = call(train_model.main, [*private.argv, "--plan"])
    assert called.status == 0
    assert "4 steps at sample rate 0.5" in called.out
    assert "images/s in training" in called.out


@pytest.mark.parametrize(
    ("main", "flags", "message"),
    [
        (train_model.main, ["--target-epsilon", "1e-9"], "--target-epsilon 1e-09 cannot be reached in 100 steps"),
        (train_model.main, ["--network", MIXING], "depends on the other images of the batch"),
        (attack_lira.main, ["--network", MIXING], "depends on the other images of the batch"),
    ],
)
def test_rejected_settings_write_nothing(main, flags, message, tmp_path):
    argv = ["--dataset", "digits", "--network", "tests.helpers.networks:mlp", "--train-batch-size", "1000", "--quiet"]
    assert message in rejected(main, [*argv, *flags, *run_folders(tmp_path)])
    assert not (tmp_path / "model").exists()
