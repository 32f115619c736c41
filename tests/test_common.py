"""The table of datasets, the split, devices and precision, and the setup of a run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import common
from common import DATASETS, Split, dataset_name, load_dataset, make_split, prepare, resolve_device, resolve_precision
from tests.helpers.datasets import arrays, write_images
from tests.helpers.errors import input_error_line
from tests.helpers.scripts import FLAGS
from util import parse_args

SIZES = [(20, 12), (21, 13), (1197, 600), (1000, 1001)]  # (n_images, n_samples)


def setup(*flags):
    return prepare(parse_args([*FLAGS, *flags], description="test"))


def test_datasets_of_digits_are_not_flipped():
    assert [name for name, row in DATASETS.items() if not row.flip] == ["mnist", "digits"]


@pytest.mark.parametrize("channels", [1, 3])
def test_data_from_a_path_is_read_and_flipped_only_in_colour(channels, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(channels=channels))
    images, flip = load_dataset(str(tmp_path / "own.npz"), str(tmp_path))
    assert flip == (channels == 3)
    assert images.channels == channels
    expected = write_images(tmp_path / "folder", channels=channels)
    images, flip = load_dataset(str(tmp_path / "folder"), str(tmp_path), progress=False)
    assert flip == (channels == 3)
    np.testing.assert_array_equal(images.y_train, expected["y_train"])


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("cifar", ", did you mean cifar10?"), ("CIFAR-100", ", did you mean cifar100?"),
        ("nothing.npz", ""), ("nothing/", ""), ("/nothing", ""), ("x" * 5000, ""),
    ],
)  # fmt: skip
def test_an_unknown_dataset_is_rejected_and_the_known_ones_are_listed(name, suggestion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = input_error_line(dataset_name, name)
    known = "cifar10, cifar100, mnist, digits, or the path of a .npz file or of a folder"
    assert line == f"--dataset must be one of {known}; got {name!r}, which is none of them{suggestion}"


def test_known_datasets_are_found_in_any_case_and_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [dataset_name(name) for name in ("cifar10", "CIFAR100", "Mnist")] == ["cifar10", "cifar100", "mnist"]
    for folder in ("digits", "MNIST", "own"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own.npz").touch()
    assert dataset_name("digits") == "digits"  # the exact name comes before a folder, the folder before another case
    for path, name in (("./digits", "digits"), ("MNIST", "MNIST"), ("own/", "own"), ("own.npz", "own.npz")):
        assert dataset_name(path) == str(tmp_path.resolve() / name)
    input_error_line(load_dataset, dataset_name(""), "data", progress=False)  # the current folder, without images


# --- the split -----------------------------------------------------------------------------------------------------


def split(n_images=100, n_samples=30, *, n_train=None, exp_idx=0, inclusion="half") -> Split:
    return make_split(n_images, n_samples, n_train=n_train, exp_idx=exp_idx, inclusion=inclusion)


@pytest.mark.parametrize(("n_images", "n_samples"), SIZES)
@pytest.mark.parametrize("exp_idx", [0, 3])
def test_shadows_come_in_complementary_pairs(n_images, n_samples, exp_idx):
    models = split(n_images, n_samples, exp_idx=exp_idx)
    member = np.stack([models.member("shadow", index) for index in range(10)])
    for pair in range(5):
        np.testing.assert_array_equal(member[2 * pair], ~member[2 * pair + 1])
        assert member[2 * pair].sum() == n_samples // 2  # its partner has the rest: one more if N is odd
    np.testing.assert_array_equal(member.sum(axis=0), 5)  # every sample is in S / 2 shadows
    assert len({row.tobytes() for row in member}) == 10


@pytest.mark.parametrize("n_samples", [600, 601])
def test_targets_draw_independent_halves(n_samples):
    models = split(n_samples=n_samples)
    member = np.stack([models.member("target", index) for index in range(200)])
    np.testing.assert_array_equal(member.sum(axis=1), n_samples // 2)
    # Independent and uniform: two rows agree on half of the samples, and each sample is in half of the rows.
    agree = [(member[i] == member[i + 1]).mean() for i in range(0, 200, 2)]
    assert abs(np.mean(agree) - 0.5) < 4 * 0.5 / np.sqrt(100 * n_samples)
    assert abs(member.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(200)
    shadow = models.member("shadow", 0)
    assert all(0.35 < (row == shadow).mean() < 0.65 for row in member)


def test_bernoulli_inclusion_draws_each_sample_independently():
    models = split(n_samples=600, inclusion="coin")
    counts = np.array([models.member("target", index).sum() for index in range(400)])
    assert abs(counts.mean() - 300) < 4 * np.sqrt(150 / 400)
    assert 0.75 < counts.var() / 150 < 1.3  # binomial; an exact half has no variance
    np.testing.assert_array_equal(models.member("shadow", 4), split(n_samples=600).member("shadow", 4))


@pytest.mark.parametrize(("n_images", "n_samples"), SIZES)
def test_halves_are_disjoint_equal_and_the_same_for_every_experiment(n_images, n_samples):
    first, second = split(n_images, n_samples), split(n_images, n_samples, exp_idx=7, n_train=3)
    assert len(first.target_half) == len(first.attack_half) == n_images // 2
    together = np.concatenate([first.target_half, first.attack_half])
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(n_images))
    np.testing.assert_array_equal(first.target_half, second.target_half)
    np.testing.assert_array_equal(first.attack_half, second.attack_half)
    assert not np.array_equal(np.sort(first.target_half), np.arange(n_images // 2))  # at random


@pytest.mark.parametrize(("n_images", "n_samples"), SIZES)
@pytest.mark.parametrize(("role", "half"), [("shadow", "target_half"), ("target", "attack_half")])
def test_a_training_set_is_drawn_from_its_half_and_its_samples(n_images, n_samples, role, half):
    models = split(n_images, n_samples)
    for index in range(4):
        training_set = models.training_set(role, index, first_sample=n_images)
        images, samples = training_set[training_set < n_images], training_set[training_set >= n_images] - n_images
        assert training_set.dtype == np.int64
        assert len(set(training_set)) == len(training_set)
        assert len(images) == models.n_train
        assert set(images) <= set(getattr(models, half))
        np.testing.assert_array_equal(samples, np.flatnonzero(models.member(role, index)))
        assert not set(training_set) & set(models.test_set(role))
        assert len(models.test_set(role)) == n_images // 2


def test_draws_depend_only_on_experiment_role_and_index():
    first, second = split(), split()
    assert first.seed("target", 3) == second.seed("target", 3)
    for index in range(4):  # first draws for other models before
        member, training_set = first.member("target", index), first.training_set("target", index, 100)
    np.testing.assert_array_equal(second.training_set("target", 3, 100), training_set)
    np.testing.assert_array_equal(second.member("target", 3), member)


def test_no_two_models_share_a_draw():
    jobs = [(exp_idx, role, index) for exp_idx in (0, 1) for role in ("target", "shadow") for index in range(12)]
    seeds = {split(exp_idx=exp_idx).seed(role, index) for exp_idx, role, index in jobs}
    assert len(seeds) == len(jobs)
    assert all(0 <= seed < 2**63 for seed in seeds)
    drawn = {split(exp_idx=exp_idx).training_set(role, index, 100)[:80].tobytes() for exp_idx, role, index in jobs}
    assert len(drawn) == len(jobs)
    # The shadows of a pair draw different images: only their target samples are complementary.
    images = [set(split(1000).training_set("shadow", index, 1000)[:400]) for index in (0, 1)]
    assert 250 < len(images[0] & images[1]) < 400  # 320 are expected of 400 out of 500


@pytest.mark.parametrize(
    ("n_images", "expected"), [(50_000, 20_000), (60_000, 20_000), (49_999, 19_999), (1197, 478), (10, 4), (2, 1)]
)
def test_by_default_a_model_draws_at_most_20000_images(n_images, expected):
    assert common.default_n_train(n_images) == expected
    assert split(n_images).n_train == expected


@pytest.mark.parametrize("n_train", [51, -1])
def test_n_train_outside_its_range_is_rejected(n_train):
    line = input_error_line(split, 101, n_train=n_train)
    assert line == f"--n-train must be from 0 to 50, a half of the 101 training images: got {n_train}"


@pytest.mark.parametrize("inclusion", ["half", "coin"])
def test_without_training_images_a_model_trains_on_its_target_samples_alone(inclusion):
    models = split(2, 31, n_train=0, inclusion=inclusion)
    for role in ("target", "shadow"):
        for index in range(4):
            samples = models.training_set(role, index, first_sample=2) - 2
            np.testing.assert_array_equal(samples, np.flatnonzero(models.member(role, index)))
        assert len(models.test_set(role)) == 1
    assert set(models.test_set("target")) | set(models.test_set("shadow")) == {0, 1}


def test_no_images_to_train_on_or_to_test_with_are_rejected():
    line = input_error_line(split, 100, 1, n_train=0)
    assert (
        line == "--n-train 0 trains on half of the target samples alone, but there is 1 test image: give more of them"
    )
    for n_train in (None, 0):
        line = input_error_line(split, 1, n_train=n_train)
        assert line == "at least 2 training images are needed, one in each half, to measure test accuracy on: got 1"


def test_n_train_may_be_a_complete_half():
    assert set(split(n_train=50).training_set("shadow", 0, 100)[:50]) == set(split().target_half)


# --- devices and precision -----------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """Call it to pretend that this machine has these devices."""

    def pretend(*, gpus=0, mps=False, capability=(8, 0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("devices", "name", "local_rank", "expected"),
    [
        ({}, "auto", 0, "cpu"), ({"mps": True}, "auto", 0, "mps"), ({"gpus": 2, "mps": True}, "auto", 0, "cuda:0"),
        ({"gpus": 2}, "cuda", 0, "cuda:0"), ({"gpus": 2}, "cuda:1", 0, "cuda:1"), ({"gpus": 2}, "cpu", 0, "cpu"),
        ({"mps": True}, "mps", 0, "mps"), ({"gpus": 2}, "auto", 5, "cuda:1"), ({"gpus": 2}, "cuda", 2, "cuda:0"),
    ],
)  # fmt: skip
def test_existing_devices_are_resolved_and_workers_take_gpus_in_turn(machine, devices, name, local_rank, expected):
    machine(**devices)
    assert resolve_device(name, local_rank=local_rank) == torch.device(expected)


@pytest.mark.parametrize(
    ("devices", "name", "words"),
    [
        ({}, "cuda", "finds 0 GPUs"), ({}, "cuda:0", "finds 0 GPUs"), ({"gpus": 1}, "cuda:1", "finds 1 GPUs"),
        ({}, "mps", "no Apple GPU"), ({"gpus": 1}, "gpu", "got 'gpu'"), ({"gpus": 1}, "cuda:x", "got 'cuda:x'"),
        ({}, "cpu:1", "got 'cpu:1'"), ({}, "", "got ''"), ({"gpus": 1}, "cuda:-1", "got 'cuda:-1'"),
        ({"gpus": 1}, "cuda:", "got 'cuda:'"),
    ],
)  # fmt: skip
def test_missing_devices_are_rejected(machine, devices, name, words):
    machine(**devices)
    line = input_error_line(resolve_device, name)
    assert words in line
    assert name in line


def test_precision_follows_the_hardware(machine, monkeypatch):
    machine(gpus=1, capability=(8, 0))
    assert resolve_precision("auto", torch.device("cuda")) == "bf16"
    machine(gpus=1, capability=(7, 5))
    assert resolve_precision("auto", torch.device("cuda")) == "fp32"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    for native in (True, False):
        for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, check, lambda native=native: native, raising=False)
        assert resolve_precision("auto", torch.device("cpu")) == ("bf16" if native else "fp32")
    for name in ("fp32", "bf16"):
        assert resolve_precision(name, torch.device("cpu")) == name


# --- the setup of a run --------------------------------------------------------------------------------------------


def test_setup_follows_flags_and_data():
    run = setup("--n-train", "50", "--target-inclusion", "coin", "--exp-idx", "3")
    assert (run.split.n_train, run.split.inclusion, run.split.exp_idx) == (50, "coin", 3)
    assert run.store.first_sample == 1197
    assert run.split.n_samples == 600
    assert not run.store.flip
    assert run.identity["data_fingerprint"] == run.images.fingerprint
    assert run.build()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert "each model trains on 50 + 300" in run.describe()


def test_the_record_holds_the_flags_as_resolved(tmp_path, monkeypatch):
    """What --run restores: independent of the current folder, the hardware and the spelling of names."""
    np.savez(tmp_path / "own.npz", **arrays(n_train=100))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "resolve_precision", lambda name, device: {"auto": "bf16"}[name])
    run = setup("--dataset", "own.npz", "--data-root", "data", "--network", "convnet", "--precision", "auto")
    record = run.record(["--dataset", "own.npz"])
    flags = json.loads(json.dumps(record["flags"]))
    folder = tmp_path.resolve()
    assert flags == {
        "--dataset": str(folder / "own.npz"),
        "--data-root": str(folder / "data"),
        "--n-train": 40,
        "--no-augment": True,
        "--target-inclusion": "half",
        "--network": "ConvNet",
        "--exp-idx": 0,
        "--epochs": 30,
        "--lr": 0.1,
        "--optimizer": "MSGD",
        "--train-batch-size": 256,
        "--weight-decay": 1e-4,
        "--lr-schedule": "step",
        "--lr-step": 80,
        "--precision": "bf16",
        "--eval-every": 20,
        "--disable-dp": True,
        "--n-runs": 2,
        "--n-shadows": 4,
    }
    assert record["provenance"]["command"] == "python train_model.py --dataset own.npz"


def test_the_record_of_private_training_holds_its_flags_and_its_guarantee():
    argv = [flag for flag in FLAGS if flag != "--disable-dp"]
    record = prepare(parse_args([*argv, "--delta", "1e-4"], description="test")).record(argv)
    private = {"--sigma": 1.0, "--max-per-sample-grad-norm": 0.1, "--delta": 1e-4, "--max-physical-batch": 64}
    assert private.items() <= record["flags"].items()
    assert (record["flags"]["--weight-decay"], record["flags"]["--lr-schedule"]) == (1e-4, "step")
    assert not {"--lr-step", "--target-epsilon", "--disable-dp"} & record["flags"].keys()
    assert record["provenance"]["privacy"]["delta"] == 1e-4


@pytest.mark.parametrize(("n_train", "is_default"), [("478", True), ("477", False)])
def test_identity_tells_whether_n_train_is_the_default_even_where_it_is_given(n_train, is_default):
    assert common.default_n_train(1197) == 478
    assert setup("--n-train", n_train).identity["n_train_is_default"] is is_default


def test_the_samples_of_a_training_set_are_the_members_by_their_pixels_too():
    """As the store gives them to a model; by their indices they are compared above."""
    run = setup()
    for role in ("target", "shadow"):
        for index in range(3):
            training_set = torch.from_numpy(run.split.training_set(role, index, run.store.first_sample))
            pixels = run.images.x_test[run.split.member(role, index)].float() / 255
            expected = (pixels - run.images.mean[0]) / run.images.std[0]
            stored = run.store.unaugmented(training_set[run.split.n_train :])
            torch.testing.assert_close(stored, expected, atol=1e-5, rtol=1e-5)


def test_a_wrong_name_is_rejected_before_data_is_read(monkeypatch):
    monkeypatch.setattr(common, "load_dataset", lambda *args, **settings: pytest.fail("data was read"))
    assert "ResNet19" in input_error_line(setup, "--network", "ResNet19")
    assert "abc" in input_error_line(setup, "--device", "abc")


@pytest.mark.parametrize("run", [None, "a_run"])
def test_a_network_that_run_restores_is_named_before_it_is_imported(run, tmp_path, monkeypatch, capsys):
    code = "import sys; from tests.helpers.networks import mlp as make; print('imported', file=sys.stderr)\n"
    (tmp_path / f"network_of_{run}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = parse_args([*FLAGS, "--network", f"network_of_{run}:make"], description="test")
    prepare(replace(config, run=replace(config.run, run=run)))
    named = f"--run {run}: its network network_of_{run}:make is your own code, which is imported and run now"
    assert capsys.readouterr().err.splitlines() == [*([named] if run else []), "imported"]
