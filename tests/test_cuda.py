"""Both scripts on a GPU. Skipped where torch finds none."""

import json
import shlex
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from opacus.accountants import PRVAccountant

import attack_lira
import train_model
from tests.helpers import killing
from tests.helpers.scripts import ENVIRONMENT, ROOT, TINY_RUN, TWO_WORKERS, FinishedRun, call, run_folders, script

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

PLAIN = shlex.split(
    "--dataset digits --network tests.helpers.networks:normed --disable-dp --epochs 40 --lr 0.2 --n-shadows 4 "
    f"--n-train 40 --no-augment --eval-every 20 --device {DEVICE} --quiet"
)
PRIVATE = shlex.split(
    "--dataset digits --network tests.helpers.networks:normed --epochs 4 --n-shadows 4 --n-train 40 --sigma 0.8 -c 0.5 "
    f"--precision bf16 --checkpoint-every 1 --canaries 100 --device {DEVICE} --quiet"
)


def assert_scores_do_not_depend_on_the_device(run):
    """phi of models that were trained and queried on the GPU, queried again on the CPU."""
    scores = run.results / "scores.npz"
    phi = np.load(scores)["phi"]
    scores.unlink()
    assert call(attack_lira.main, [*run.argv, "--device", "cpu"]).status == 0
    np.testing.assert_allclose(np.load(scores)["phi"], phi, rtol=1e-3, atol=1e-3 * phi.std())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run(precision, tmp_path):
    run = FinishedRun.create(tmp_path, [*PLAIN, "--precision", precision])
    models, attacks = pd.read_csv(run.results / "models.csv"), pd.read_csv(run.results / "attack.csv")
    name = torch.cuda.get_device_name(0) if DEVICE == "cuda" else "cpu"
    assert len(models) == 5
    assert models.device.str.startswith(name).all()
    assert (models.train_accuracy > 0.9).all()
    assert (models.test_accuracy > 0.6).all()
    assert attacks.auc.between(0, 1).all()
    assert run.trained.err == run.attacked.err == ""
    assert_scores_do_not_depend_on_the_device(run)


def test_a_private_run_that_is_killed_and_resumed(tmp_path):
    """With noise from the operating system: every step is accounted once."""
    argv = [*PRIVATE, *run_folders(tmp_path)]
    assert killing.run(argv, kill_at=30)[0] is None
    assert list(tmp_path.glob("model/*/target_00.resume.pt")), "the test needs a model that was killed in training"
    trained, attacked = call(train_model.main, argv), call(attack_lira.main, argv)
    assert (trained.status, attacked.status) == (0, 0), trained.err + attacked.err
    assert "target_00 resumes after epoch" in trained.err
    run = FinishedRun(tmp_path, argv, trained, attacked)
    models, audit = pd.read_csv(run.results / "models.csv"), pd.read_csv(run.results / "audit.csv")
    accountant = PRVAccountant()
    accountant.history = [(0.8, 1 / 2, 8)]  # 340 images in batches of 256: 2 steps per epoch
    np.testing.assert_allclose(models.epsilon, accountant.get_epsilon(1e-5), rtol=1e-12)
    assert (models.steps == 8).all()
    assert {"one-run", "f-dp", "canary-one-run", "canary-f-dp"} == set(audit.kind)
    assert (audit.epsilon_lower <= audit.epsilon_upper).all()
    mechanism = pd.read_csv(run.results / "mechanism.csv")
    assert (mechanism.low <= mechanism.high).all()
    assert_scores_do_not_depend_on_the_device(run)


def test_two_workers_share_a_card(tmp_path):
    command = [*TWO_WORKERS, "train_model.py", *PLAIN, "--precision", "fp32", *run_folders(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert len(list(tmp_path.glob("model/*/*.pt"))) == 5


@pytest.mark.parametrize(
    ("network", "reason"), [("hungry", "out of memory"), ("asserting", "does not respond any more")]
)
def test_a_model_that_fails_on_the_card(network, reason, tmp_path):
    """In a process of its own: after a failed assertion on the device CUDA works in no later call, so that only the
    model at hand is marked as failed; after a lack of memory the other models are trained."""
    argv = [*TINY_RUN, "--network", f"tests.helpers.networks:{network}", "--exp-idx", "2", "--device", DEVICE]
    finished = script("train_model.py", [*argv, *run_folders(tmp_path)], tmp_path)
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    failed = list(tmp_path.glob("model/*/*.failed.json"))
    assert all(reason in json.loads(path.read_text())["reason"] for path in failed)
    if network == "hungry":
        assert len(failed) + len(list(tmp_path.glob("model/*/*.pt"))) == 5
    else:
        assert len(failed) == 1
