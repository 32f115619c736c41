"""Names of runs, and of what comes from the user's data."""

import re

import pytest

from lira.storage.names import model_name, run_name, safe_name, weights_on_disk
from lira.storage.runs import open_run
from tests.helpers.runs import IDENTITY


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_exp0"),
        ({"augment": False}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_noaug_exp0"),
        ({"n_train": 9, "n_train_is_default": False}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_n9_exp0"),
        ({"sigma": 1.0, "max_grad_norm": 0.1}, "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_sigma1_C0.1_exp0"),
        (
            {"sigma": None, "target_epsilon": 8.0, "max_grad_norm": 0.1},
            "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_eps8_C0.1_exp0",
        ),
        ({"lr": 1e-5, "exp_idx": 12}, "digits_ConvNet_MSGD_lr1e-05_b256_e40_bf16_exp12"),
        (
            {"weight_decay": 5e-4, "lr_schedule": "cosine", "n_train": 0, "n_train_is_default": False},
            "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_wd0.0005_cosine_n0_exp0",
        ),
        ({"network": "my.nets:make"}, "digits_my.nets-make_MSGD_lr0.05_b256_e40_bf16_exp0"),
    ],
)
def test_a_run_is_named_by_the_settings_that_change_its_models(changed, name):
    assert run_name(IDENTITY | changed) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *[("cifar10", "cifar10"), ("own.npz", "own"), ("a/b/own.npz", "own"), ("../../etc", "etc"), ("..", "unnamed")],
        *[("/", "unnamed"), ("a\\b", "b"), ("a b\n;c", "a-b-c"), (".hidden", "hidden"), ("-rf", "rf"), ("a_b", "a-b")],
        *[("画像", "画像"), ("", "unnamed"), ("x/..", "unnamed"), ("nul\0l", "nul-l")],
    ],
)
def test_a_safe_name_is_one_part_of_a_path(text, name):
    assert safe_name(text) == name


@pytest.mark.parametrize(
    "name",
    [
        *["../../x", "/etc/passwd", "..", "a/../../b", "..\\..\\x", "x/../../y.npz", "x\x00y", "", "~", "-rf"],
        *[".hidden", "a b; rm -rf x", "$(touch x)", "a*?[x]", "画像", "a_b", "x" * 200, "line\nbreak"],
    ],
)
def test_names_from_data_stay_inside(name, tmp_path):
    folder = run_name(IDENTITY | {"dataset": name, "network": name})
    assert re.fullmatch(r"[\w.+-]+", folder)  # letters and digits of any script
    assert not folder.startswith((".", "-"))
    run = open_run(tmp_path / "model", tmp_path / "result", IDENTITY | {"dataset": name}, record={})
    assert run.models.resolve().parent == tmp_path / "model"
    assert run.results.resolve().parent == tmp_path / "result"


def test_models_on_disk_are_the_files_named_like_models(run):
    jobs = [("target", 0), ("shadow", 2), ("shadow", 10), ("shadow", 123)]
    for job in reversed(jobs):
        (run.models / f"{model_name(*job)}.pt").touch()
    for name in (
        "shadow_01.resume.pt",
        "shadow_00 (copy).pt",
        "shadow_0x.pt",
        "shadow_01.pt.old.pt",
        "shadow_00.pt.corrupted",
        "notes.txt",
    ):
        (run.models / name).touch()
    assert weights_on_disk(run.models) == run.models_on_disk() == jobs
