"""Models trained elsewhere: a plain PyTorch loop, attacked by its weights and by its outputs with a run's shadows."""

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import attack_lira
import train_model
from lira.data.readers import read_digits
from lira.storage.targets import folder_name
from tests.helpers import networks
from tests.helpers.datasets import arrays
from tests.helpers.documents import python
from tests.helpers.report import skip_figures
from tests.helpers.scripts import TINY_RUN, call, contents, rejected, run_folders, stamps

N = 600
QUICK = ["--attacks", "lira,loss", "--quiet"]


def train_elsewhere(member, *, seed):
    """A user's own training: digits 0 to 39 of the training images and the members of the test images."""
    images = read_digits()
    x = torch.cat([images.x_train[:40], images.x_test[torch.from_numpy(member)]])
    y = torch.cat([images.y_train[:40], images.y_test[torch.from_numpy(member)]])
    x = (x.float() / 255 - images.mean[0]) / images.std[0]
    torch.manual_seed(seed)
    model = networks.mlp(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for _ in range(30):
        for batch in torch.randperm(len(x)).split(256):
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        logits = model.eval()((images.x_test.float() / 255 - images.mean[0]) / images.std[0])
    return model, logits


@pytest.fixture(scope="module")
def own(finished, tmp_path_factory):
    """A copy of the finished run, with the files of one model in the folder. Read only but for result/."""
    run = finished.copy(tmp_path_factory.mktemp("own"))
    member = np.zeros(N, dtype=bool)
    member[np.random.default_rng(7).permutation(N)[: N // 2]] = True
    model, logits = train_elsewhere(member, seed=7)
    torch.save({"epoch": 30, "model_state_dict": model.state_dict(), "member": member.tolist()}, run.folder / "mine.pt")
    p, label = logits.double().softmax(1).numpy(), read_digits().y_test.numpy()
    outputs = {"logits": logits.numpy(), "probabilities": p}
    outputs["phi"] = networks_phi(logits.double().numpy(), label)
    for name, array in outputs.items():
        np.savez(run.folder / f"{name}.npz", member=member, **{name: array})
    return run


def networks_phi(logits, label):
    """The three lines of the README."""
    z = logits[np.arange(len(label)), label]
    others = np.where(np.arange(logits.shape[1]) == label[:, None], -np.inf, logits)
    return z - np.log(np.exp(others - others.max(1, keepdims=True)).sum(1)) - others.max(1)


@pytest.fixture
def attack(own, monkeypatch):
    """attack(*flags) calls main() with the run's flags and returns (the folder of the results, the call)."""
    skip_figures(monkeypatch)
    monkeypatch.chdir(own.folder)

    def attack(*flags):
        shutil.rmtree(own.folder / "result" / folder_name(own.models.name, [flags[1]]), ignore_errors=True)
        called = call(attack_lira.main, [*own.argv, *QUICK, *flags])
        assert called.status == 0, called.err
        return own.folder / "result" / folder_name(own.models.name, [flags[1]]), called

    return attack


def test_weights_and_outputs_give_the_same_figures(own, attack):
    """As near to the run's own targets as these are to each other; nothing of the run changes."""
    of_run = own.folder / "result" / own.models.name
    before = stamps(of_run), stamps(own.models)
    by_file = {}
    for flag, file in (
        ("--target-weights", "mine.pt"),
        *(("--target-outputs", f"{name}.npz") for name in ("logits", "probabilities", "phi")),
    ):
        results, called = attack(flag, file)
        by_file[file] = pd.read_csv(results / "attack.csv")
        assert called.err == ""
        assert {"attack.csv", "samples.csv", "scores.npz", "config.json", "models.csv", "report.html"} <= set(
            contents(results)
        )
        assert not (results / "audit.csv").exists(), "nothing is known of how the members were drawn"
    assert (stamps(of_run), stamps(own.models)) == before
    for table in by_file.values():
        pd.testing.assert_frame_equal(table, by_file["mine.pt"], rtol=1e-5, atol=1e-5)
    reference = pd.read_csv(own.folder / "result" / own.models.name / "attack.csv").set_index("attack")
    for row in by_file["mine.pt"].itertuples():
        assert (row.target, row.n_members, row.n_nonmembers, row.shadows) == ("target_00", N // 2, N // 2, 4)
        error = np.sqrt((2 * N + 1) / (3 * N**2))  # of an AUC without signal, for two halves
        assert abs(row.auc - reference.auc[row.attack].mean()) < 4 * np.sqrt(1.5) * error


def test_what_is_known_of_the_model_is_said(own, attack):
    results, called = attack("--target-weights", "mine.pt")
    models = pd.read_csv(results / "models.csv")
    target, shadows = models[models.role == "target"].iloc[0], models[models.role == "shadow"]
    assert len(shadows) == 4
    line = (
        f"target_00 is mine.pt: trained on 300 of 600 target samples; it classifies {target.train_accuracy:.1%} of "
        f"these and {target.test_accuracy:.1%} of the others correctly, the shadows "
        f"{shadows.test_accuracy.mean():.1%} of new images"
    )
    assert line in called.out.splitlines()
    samples = pd.read_csv(results / "samples.csv")
    correct = np.load(own.folder / "logits.npz")["logits"].argmax(1) == samples.label
    assert target.train_accuracy == pytest.approx(correct[samples.member].mean())
    assert target.test_accuracy == pytest.approx(correct[~samples.member].mean())
    page = (results / "report.html").read_text()
    assert "No lower bound on epsilon. How the members of these targets" in called.out.replace("\n", " ")
    assert "How the members of these targets were chosen is not stated" in page
    assert "mine.pt" in page
    info = json.loads((results / "attack.json").read_text())
    assert info["targets"][0]["file"] == "mine.pt"


@pytest.mark.parametrize("inclusion", ["half", "coin"])
def test_with_a_stated_inclusion_there_is_an_audit(attack, inclusion):
    """The run's shadows were trained with half; it is the user's model that the flag speaks of."""
    results, called = attack("--target-weights", "mine.pt", "--target-inclusion", inclusion)
    audit = pd.read_csv(results / "audit.csv")
    assert audit.epsilon_lower.notna().all()
    assert "Guarantee: none of this training is known here." in called.out


def test_a_target_of_the_run_gives_its_own_figures(own, attack):
    """Its members follow from the run's config.json."""
    results, _ = attack("--target-weights", f"model/{own.models.name}/target_01.pt")
    columns = ["attack", "accuracy", "auc", "threshold", "n_members"]
    expected = pd.read_csv(own.folder / "result" / own.models.name / "attack.csv")
    expected = expected[(expected.target == "target_01") & expected.attack.isin(["lira", "loss"])]
    found = pd.read_csv(results / "attack.csv")
    pd.testing.assert_frame_equal(found[columns], expected[columns].reset_index(drop=True), rtol=1e-6)


def test_several_models_share_the_shadows(own, attack):
    other = own.folder / "again.pt"
    shutil.copy(own.folder / "mine.pt", other)
    results, _ = attack("--target-weights", "mine.pt", "again.pt")
    results = results.with_name(results.name + "+again")
    table = pd.read_csv(results / "attack.csv")
    assert table.target.tolist() == ["target_00"] * 2 + ["target_01"] * 2
    first, second = (
        table[table.target == name].drop(columns="target").reset_index(drop=True) for name in ("target_00", "target_01")
    )
    pd.testing.assert_frame_equal(first, second)


def test_other_class_order_is_suspected(own, attack):
    with np.load(own.folder / "logits.npz") as file:
        np.savez(own.folder / "shifted.npz", logits=np.roll(file["logits"], 1, axis=1), member=file["member"])
    _, called = attack("--target-outputs", "shifted.npz")
    assert called.err.startswith("warning: shifted.npz classifies ")
    assert "its classes ordered as in its training" in called.err


def test_unequal_member_counts_are_said(own, attack):
    with np.load(own.folder / "logits.npz") as file:
        member = file["member"] | (np.arange(N) < 500)
        np.savez(own.folder / "most.npz", logits=file["logits"], member=member)
    results, called = attack("--target-outputs", "most.npz")
    share = member.mean()
    assert f"{member.sum()} of 600 samples are members: guessing is {share:.1%} accurate" in called.out.replace(
        "\n", " "
    )
    assert set(pd.read_csv(results / "attack.csv").n_members) == {member.sum()}


def test_members_alone_have_no_auc_and_no_warning(own, attack):
    """Who of them is exposed is still listed."""
    with np.load(own.folder / "logits.npz") as file:
        np.savez(own.folder / "all.npz", logits=file["logits"], member=np.ones(N, dtype=bool))
    results, called = attack("--target-outputs", "all.npz")
    assert called.err == ""
    table = pd.read_csv(results / "attack.csv")
    assert table.auc.isna().all()
    assert table.accuracy.notna().all()
    assert len(pd.read_csv(results / "samples.csv")) == N


def test_another_file_of_the_same_name_is_not_written_over(own, attack):
    results, _ = attack("--target-outputs", "phi.npz")
    (own.folder / "sub").mkdir()
    with np.load(own.folder / "phi.npz") as file:
        np.savez(own.folder / "sub" / "phi.npz", phi=file["phi"] + 0.1, member=file["member"])
    before = stamps(results)
    line = rejected(attack_lira.main, [*own.argv, *QUICK, "--target-outputs", "sub/phi.npz"])
    assert f"holds the results of {own.folder / 'phi.npz'} (sha256 " in line
    assert f"not of {own.folder / 'sub' / 'phi.npz'}" in line
    assert stamps(results) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--target-weights gone.pt", ["gone.pt: no such file"]),
        ("--target-weights bare.pt", ["which target samples bare.pt was trained on is not stated", "member (N,)"]),
        (
            "--target-weights model/{run}/shadow_02.pt",
            ["holds the weights of shadow_02 of this run", "--leave-one-out"],
        ),
        ("--target-weights mine.pt --target-outputs phi.npz", ["--target-weights and --target-outputs both say"]),
        ("--target-outputs phi.npz --n-queries 2", ["leave out --n-queries 2"]),
        ("--target-outputs other.npz", ["9 columns", "label 9"]),
        ("--target-outputs short.npz", ["599", "600 samples"]),
        ("--target-outputs unlabelled.npz", ["label differs from the dataset's in", "order of x_test"]),
        ("--target-outputs nan.npz", ["logits must be finite", "nan"]),
        ("--n-runs 0", ["--n-runs 0 leaves no target", "--target-weights"]),
    ],
)
def test_what_cannot_be_attacked_is_one_line(own, flags, words, monkeypatch):
    monkeypatch.chdir(own.folder)
    with np.load("logits.npz") as file:
        logits, member = file["logits"], file["member"]
    np.savez("other.npz", logits=np.delete(logits, read_digits().y_test[0], axis=1)[:, :9], member=member)
    np.savez("short.npz", logits=logits[:-1], member=member)
    np.savez("unlabelled.npz", logits=logits, member=member, label=np.arange(N) % 10)
    np.savez("nan.npz", logits=logits + np.where(np.arange(10) == 3, np.nan, 0), member=member)
    torch.save(torch.load("mine.pt", weights_only=True)["model_state_dict"], "bare.pt")
    before = stamps(own.folder)
    line = rejected(attack_lira.main, [*own.argv, *QUICK, *flags.format(run=own.models.name).split()])
    for word in words:
        assert word in line
    assert stamps(own.folder) == before


# --- shadows alone ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shadows_alone(tmp_path_factory):
    """An .npz that says which samples the user's model was trained on, and four shadows; no target."""
    folder = tmp_path_factory.mktemp("alone")
    data = arrays(channels=0, n_train=24, n_test=12)
    np.savez(folder / "own.npz", **data, member=np.arange(12) % 3 == 0)
    torch.manual_seed(0)
    torch.save(networks.mlp(3, 1).state_dict(), folder / "mine.pt")
    np.savez(folder / "outputs.npz", phi=np.linspace(-3, 3, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = ["--dataset", "own.npz", "--network", "tests.helpers.networks:mlp", "--n-runs", "0", "--n-train", "5"]
        flags = [*TINY_RUN, *flags]
        return folder, flags, call(train_model.main, flags)


def test_shadows_are_trained_without_a_target(shadows_alone, monkeypatch):
    folder, flags, trained = shadows_alone
    skip_figures(monkeypatch)
    monkeypatch.chdir(folder)
    assert trained.status == 0, trained.err
    assert "0 of 4 models are complete, training 4" in trained.out
    (run,) = (folder / "model").iterdir()
    assert not list(run.glob("target*"))
    assert f"next: python attack_lira.py --run {run.name} --target-weights FILE.pt" in trained.out
    for own, argv in (
        ("mine.pt", ["--run", run.name, "--target-weights", "mine.pt"]),
        ("mine.pt", [*flags, "--target-weights", "mine.pt"]),
        ("outputs.npz", ["--run", run.name, "--target-outputs", "outputs.npz"]),
    ):
        called = call(attack_lira.main, [*argv, *QUICK])
        assert called.status == 0, called.err
        samples = pd.read_csv(folder / "result" / folder_name(run.name, [own]) / "samples.csv")
        np.testing.assert_array_equal(samples.member, np.arange(12) % 3 == 0)


def test_the_membership_is_no_part_of_the_run(shadows_alone, monkeypatch):
    """Another model of the same data needs no new shadows."""
    folder, flags, _ = shadows_alone
    monkeypatch.chdir(folder)
    skip_figures(monkeypatch)
    (run,) = (folder / "model").iterdir()
    with np.load("own.npz") as file:
        np.savez("own.npz", **{**file, "member": np.arange(12) < 7})
    called = call(attack_lira.main, [*flags, "--target-weights", "mine.pt", *QUICK])
    assert called.status == 0, called.err
    samples = pd.read_csv(folder / "result" / folder_name(run.name, ["mine.pt"]) / "samples.csv")
    np.testing.assert_array_equal(samples.member, np.arange(12) < 7)
    trained = call(train_model.main, flags)
    assert "4 of 4 models are complete, training 0" in trained.out


def test_missing_shadows_are_named_with_the_command_that_trains_them_alone(shadows_alone, monkeypatch, tmp_path):
    folder, flags, _ = shadows_alone
    monkeypatch.chdir(folder)
    line = rejected(attack_lira.main, [*flags, "--target-weights", "mine.pt", *run_folders(tmp_path)])
    assert "4 of 4 models missing, the first is" in line
    command = line.partition("train them with: python train_model.py ")[2].partition(" (runs there")[0]
    called = call(train_model.main, shlex.split(command))
    assert (called.status, "training 4" in called.out) == (0, True), called.err


def test_a_page_is_written_again_from_the_results(shadows_alone, monkeypatch):
    folder, _, _ = shadows_alone
    monkeypatch.chdir(folder)
    skip_figures(monkeypatch)
    (run,) = (folder / "model").iterdir()
    assert call(attack_lira.main, ["--run", run.name, "--target-weights", "mine.pt", *QUICK]).status == 0
    page = folder / "result" / f"{run.name}+mine" / "report.html"
    before = page.read_bytes()
    page.unlink()
    for argv in (["--run", run.name, "--target-weights", "mine.pt"], ["--run", f"{run.name}+mine"]):
        assert call(attack_lira.main, [*argv, "--report-only"]).status == 0
        assert page.read_bytes() == before
    line = rejected(attack_lira.main, ["--run", f"{run.name}+mine", *QUICK])
    assert f"give --run {run.name} --target-weights" in line


# --- another framework -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [True, False])
def test_a_random_forest_is_attacked_by_its_probabilities(clip, tmp_path, monkeypatch):
    """The lines of docs/api.md, with fewer models. Samples of which all trees are sure are scored like the others."""
    skip_figures(monkeypatch)
    monkeypatch.chdir(tmp_path)
    lines = python("docs/api.md", "RandomForest").replace("(21,", "(9,").replace("random_state=0", "30, random_state=0")
    exec(lines if clip else "".join(line for line in lines.splitlines(keepends=True) if ".clip(" not in line), {})
    argv = ["--scores", "forest.npz", "--target-inclusion", "coin", "--attacks", "lira,ratio,loss", "--quiet"]
    called = call(attack_lira.main, argv)
    assert (called.status, called.err) == (0, "")
    with np.load("forest.npz") as file:
        p, member, label = file["probabilities"], file["member"], file["label"]
    of_true_class = np.take_along_axis(p, np.broadcast_to(label[None, :, None], (*member.shape, 1)), axis=2)[..., 0]
    n_sure = int(((of_true_class == 0) | (of_true_class == 1)).sum())
    assert (n_sure > 0) == (not clip)
    note = f"{n_sure:,} of {member.size:,} probabilities of the true class are exactly 0 or 1: clipped"
    assert (note in called.out) == (not clip)
    samples, table = pd.read_csv("result/forest/samples.csv"), pd.read_csv("result/forest/attack.csv")
    phi = np.log(of_true_class[0].clip(2.220446049250313e-16)) - np.log((1 - of_true_class[0]).clip(2.220446e-16))
    np.testing.assert_allclose(samples.phi, phi, rtol=1e-6, atol=1e-9)
    assert (table.n_unscored == 0).all()
    assert table.n_members.tolist() == [member[0].sum()] * 3
    error = np.sqrt((len(label) + 1) / (12 * member[0].sum() * (~member[0]).sum()))  # of an AUC without signal
    assert (table.auc[table.attack != "loss"] > 0.5 + 4 * error).all()
