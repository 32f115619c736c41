"""A run with differential privacy, end to end: what lies on disk, what a kill changes, what is refused, the verdict."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from opacus.accountants import PRVAccountant

import attack_lira
import train_model
from tests.helpers import killing
from tests.helpers.scripts import Finished, call, rejected, run_folders
from tests.training.test_resume import weights

FLAGS = shlex.split(
    "--dataset digits --network tests.helpers.networks:normed --epochs 2 --n-shadows 4 --n-runs 2 --n-train 40 --sigma 0.8 -c 0.5 "
    "--eval-every 2 --precision fp32 --device cpu --checkpoint-every 1 --quiet"
)


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    return Finished.made_in(tmp_path_factory.mktemp("private"), FLAGS)


def by_hand(steps, delta=1e-5):
    accountant = PRVAccountant()
    accountant.history = [(0.8, 1 / 2, steps)]  # 40 + 300 images in batches of 256
    return accountant.get_epsilon(delta)


def test_the_promise_lies_on_disk(private):
    assert private.models.name == "digits_scripts-normed_MSGD_lr1_b256_e2_fp32_n40_sigma0.8_C0.5_exp0"
    models = pd.read_csv(private.results / "models.csv")
    assert len(models) == 6
    promised = {"delta": 1e-5, "sigma": 0.8, "max_grad_norm": 0.5, "sample_rate": 0.5, "steps": 4}
    for column, value in promised.items():
        assert (models[column] == value).all(), column
    np.testing.assert_allclose(models.epsilon, by_hand(4), rtol=1e-12)
    config = json.loads((private.models / "config.json").read_text())
    assert {"sigma": 0.8, "max_grad_norm": 0.5, "delta": 1e-5}.items() <= config["identity"].items()
    assert promised.items() <= config["provenance"]["privacy"].items()
    assert config["provenance"]["privacy"]["epsilon"] == models.epsilon[0]
    log = pd.read_csv(private.results / "train" / "target_01.csv")
    np.testing.assert_allclose(log.epsilon, [by_hand(2), by_hand(4)], rtol=1e-12)
    assert (log.lr == 1).all()


def test_the_screen_says_what_is_promised_and_warns_of_nothing(private):
    assert "DP-SGD: sigma 0.8, C 0.5, 4 steps at sample rate 0.5" in private.trained.out
    assert f"epsilon {by_hand(4):.4g} at delta 1e-05, of each model for its own training set" in private.trained.out
    assert private.trained.err == private.attacked.err == ""


def test_weights_are_those_of_the_plain_network_with_group_normalisation(private):
    content = torch.load(private.models / "target_00.pt", weights_only=True)["weights"]
    assert set(content) == {"0.weight", "1.weight", "1.bias", "5.weight", "5.bias"}


def test_the_verdict_stands_beside_the_promise(private):
    audit = pd.read_csv(private.results / "audit.csv")
    assert list(audit.columns) == [
        "target", "attack", "inclusion", "epsilon_lower", "epsilon_upper", "delta", "confidence", "n_audited", "n_guesses",
        "n_correct", "threshold_low", "threshold_high",
    ]  # fmt: skip
    assert audit.target.tolist() == ["target_00", "target_01"]
    assert set(audit.inclusion) == {"half"}
    np.testing.assert_allclose(audit.epsilon_upper, by_hand(4), rtol=1e-12)
    assert (audit.epsilon_lower <= audit.epsilon_upper).all()
    assert (audit.n_audited == 600).all()
    assert (
        (audit.n_correct <= audit.n_guesses) & (audit.n_guesses <= 600) & (audit.threshold_low <= audit.threshold_high)
    ).all()
    said = " ".join(private.attacked.out.split())
    assert "at 95% confidence the epsilon of this training is at least 0.00 (median over 2 targets" in said
    assert f"by the accountant it is at most {by_hand(4):.2f}, at delta 1e-05" in said
    assert "VIOLATION" not in said


def test_killed_private_models_go_on_to_the_same_bits(private, tmp_path):
    """And a shadow trained alone, by another worker, is that of the fleet."""
    flags = [*FLAGS, *run_folders(tmp_path)]
    under_way = []
    for fatal in (30, 50):
        assert killing.run(flags, fatal=fatal)[0] is None
        under_way += (tmp_path / "model").glob("*/*.resume.pt")
    assert under_way, "the test needs a model that was killed on its way"
    assert killing.run([*flags, "--shard", "6/6"])[0] == 0
    assert killing.run(flags)[0] == 0
    assert weights(tmp_path) == weights(private.folder)


def test_a_plan_times_private_steps(private):
    called = call(train_model.main, [*private.argv, "--plan"])
    assert called.status == 0
    assert "4 steps at sample rate 0.5" in called.out
    assert "images/s in training" in called.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--sigma 0", "--sigma must be above 0, got 0"),
        ("-c=-1", "--max-per-sample-grad-norm must be above 0, got -1"),
        ("--delta 1", "--delta must be below 1, got 1"),
        ("--delta 1.5", "--delta must be below 1, got 1.5"),
        ("--target-epsilon 0", "--target-epsilon must be above 0, got 0"),
        ("--target-epsilon 8 --sigma 1", "--sigma 1 and --target-epsilon 8 say the same thing twice"),
        ("--target-epsilon 1e-9", "--target-epsilon 1e-09 cannot be reached in 100 steps"),
        ("--lr-step 5", "--lr-step 5 has no meaning with DP"),
        ("--disable-dp --sigma 2", "--sigma 2 has no meaning with --disable-dp"),
        ("--disable-dp --max-physical-batch 2", "--max-physical-batch 2 has no meaning with --disable-dp"),
        ("--max-physical-batch 0", "--max-physical-batch must be at least 1, got 0"),
        ("--network test_privacy:mixing", "depends on the other images of the batch"),
    ],
)
def test_refused(flags, message, tmp_path):
    argv = ["--dataset", "digits", "--network", "tests.helpers.networks:mlp", "--train-batch-size", "1000", "--quiet"]
    for main in (train_model.main,) if "1e-9" in flags else (train_model.main, attack_lira.main):
        assert message in rejected(main, [*argv, *shlex.split(flags), *run_folders(tmp_path)])
    assert not (tmp_path / "model").exists()
