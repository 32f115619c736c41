"""attack_lira.py end to end: the files of a run against simple oracles, which models are queried again, output."""

import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import attack_lira
import common
import train_model
from common import Split, make_split
from lira.attacks import run
from lira.attacks.metrics import METRICS, auc, estimate_auc
from lira.attacks.run import attack_targets
from lira.attacks.tables import strongest_attack, summary_table
from lira.data.readers import read_digits
from lira.report.terminal import terminal_table
from lira.training import query
from tests.helpers import networks
from tests.helpers.attack_inputs import inputs
from tests.helpers.datasets import write_images
from tests.helpers.naive_attacks import scaled_logits
from tests.helpers.report import skip_figures
from tests.helpers.scripts import call, contents, rejected, run_folders, script, stamps

ATTACKS = ["lira", "lira-pooled", "lira-bayes", "lira-offline", "lira-offline-pooled", "rmia", "rmia-offline"]
ATTACKS += ["ratio", "ratio-offline", "loss"]  # learned needs 8 shadows
FIGURES = ["roc_log", "roc_linear", "histogram", "training", "exposed", "classes"]
TARGETS = ["target_00", "target_01"]
N_TARGETS, N_SHADOWS, N_SAMPLES = 2, 4, 600
JOBS = [("target", 0), ("target", 1), *(("shadow", index) for index in range(4))]


@pytest.fixture
def queried(monkeypatch):
    """A list with one item per model that was queried. The page has no figures, which take most of the time."""
    skip_figures(monkeypatch)
    calls, original = [], query.query_model

    def counted(*args, **settings):
        calls.append(1)
        return original(*args, **settings)

    monkeypatch.setattr(query, "query_model", counted)
    return calls


def scores(run):
    with np.load(run.results / "scores.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def expected_phi(run, job):
    """phi of one model from its weights, by its definition."""
    images = read_digits()
    x = (images.x_test.float() / 255 - images.mean[0]) / images.std[0]
    model = networks.mlp(10, 1).eval()
    model.load_state_dict(torch.load(run.models / f"{job[0]}_{job[1]:02d}.pt", weights_only=True)["weights"])
    with torch.no_grad():
        return scaled_logits(model(x), images.y_test)


# --- files -----------------------------------------------------------------------------------------------------------


def test_all_files_are_written(finished):
    logs = {f"train/{role}_{index:02d}.csv" for role, index in JOBS}
    files = contents(finished.results)
    tables = {"attack.csv", "samples.csv", "classes.csv", "audit.csv", "models.csv", "scores.npz"}
    figures = {f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".pdf")}
    assert set(files) == {*tables, "config.json", "attack.json", "images.npz", "report.html", *figures, *logs}
    for name in FIGURES:
        assert files[f"{name}.png"].startswith(b"\x89PNG\r\n")
        assert files[f"{name}.pdf"].startswith(b"%PDF")
        assert min(len(files[f"{name}{suffix}"]) for suffix in (".png", ".pdf")) > 5_000


def test_scores_hold_phi_member_label_and_role(finished):
    stored = scores(finished)
    assert stored["phi"].shape == (N_TARGETS + N_SHADOWS, N_SAMPLES, 1)
    assert stored["phi"].dtype == np.float32
    assert stored["member"].shape == (N_TARGETS + N_SHADOWS, N_SAMPLES)
    assert stored["member"].dtype == bool
    assert stored["role"].tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(stored["label"], read_digits().y_test)
    split = make_split(1197, N_SAMPLES, n_train=40, exp_idx=0, inclusion="half")
    for row, job in zip(stored["member"], JOBS, strict=True):
        np.testing.assert_array_equal(row, split.member(*job))


def test_phi_is_computed_from_the_stored_weights(finished):
    for row, job in zip(scores(finished)["phi"], JOBS, strict=True):
        np.testing.assert_allclose(row[:, 0], expected_phi(finished, job), rtol=1e-4, atol=1e-4)


def test_columns_and_rows_of_the_attack_table(finished):
    table = pd.read_csv(finished.results / "attack.csv")
    columns = ["attack", "target", "convention", "queries", "shadows", "threshold", "balanced_accuracy"]
    ends = [f"{prefix}{name}{end}" for name in METRICS for prefix in ("", "mean_") for end in ("_low", "_high")]
    columns += [*METRICS, *ends]
    for rate in ("0.01", "0.001", "0.0001"):
        columns += [f"fpr_at_{rate}", f"resolvable_at_{rate}"]
    columns += ["n_members", "n_nonmembers", "n_unscored", "held_out_auc"]
    assert sorted(columns) == sorted(table.columns)
    assert list(zip(table.target, table.attack, strict=True)) == [
        (target, name) for target in TARGETS for name in ATTACKS
    ]
    assert set(table.convention) == {"lira"}
    assert set(table.queries) == {1}
    assert set(table.shadows) == {N_SHADOWS}
    assert set(table.n_members) == set(table.n_nonmembers) == {N_SAMPLES // 2}
    assert table[ends].isna().all(axis=None), "two pairs of shadows are too few for intervals"


def test_attack_table_follows_from_the_samples(finished):
    """Accuracy from the decisions, AUC from all pairs of a member and a non-member."""
    table, samples = pd.read_csv(finished.results / "attack.csv"), pd.read_csv(finished.results / "samples.csv")
    for row in table.itertuples():
        target = samples[samples.target == row.target]
        score, decision = target[row.attack].to_numpy(), target[f"{row.attack}_decision"].to_numpy()
        np.testing.assert_array_equal(decision, score >= row.threshold)
        assert row.accuracy == pytest.approx((decision == target.member).mean(), abs=1e-12)
        members, non_members = score[target.member][:, None], score[~target.member][None, :]
        area = (members > non_members).mean() + 0.5 * (members == non_members).mean()
        assert row.auc == pytest.approx(area, abs=1e-12)


def test_samples_table_follows_from_the_scores(finished):
    """Mean and standard deviation of each side by a loop over samples and shadows; lira from them by its formula."""
    stored, table = scores(finished), pd.read_csv(finished.results / "samples.csv")
    head = ["target", "sample", "label", "member", "phi", "mean_in", "std_in", "mean_out", "std_out"]
    scored = [f"{name}{end}" for name in ATTACKS for end in ("", "_decision")]
    assert list(table.columns) == [*head, *scored, "p_member", "p_value", "q_value"]
    assert len(table) == N_TARGETS * N_SAMPLES
    phi, member = stored["phi"][N_TARGETS:, :, 0].astype(float), stored["member"][N_TARGETS:]
    for place in range(0, N_TARGETS * N_SAMPLES, 7):
        row, (target, sample) = table.iloc[place], divmod(place, N_SAMPLES)
        phi_in, phi_out = phi[member[:, sample], sample], phi[~member[:, sample], sample]
        assert (row.target, row["sample"], row.label) == (TARGETS[target], sample, stored["label"][sample])
        assert row.member == stored["member"][target, sample]
        assert row.phi == pytest.approx(stored["phi"][target, sample, 0], rel=1e-6)
        moments = [phi_in.mean(), phi_in.std(ddof=1), phi_out.mean(), phi_out.std(ddof=1)]
        assert row[head[5:]].tolist() == pytest.approx(moments, rel=1e-6, abs=1e-9)
        log_density = [
            -0.5 * np.log(side.var(ddof=1) + 1e-5) - (row.phi - side.mean()) ** 2 / (2 * (side.var(ddof=1) + 1e-5))
            for side in (phi_in, phi_out)
        ]
        assert row.lira == pytest.approx(log_density[0] - log_density[1], rel=1e-6, abs=1e-6)


def test_overfitted_models_leak_and_shuffled_members_do_not(finished):
    """The same scores against the true memberships, and against memberships shuffled among the samples."""
    stored, rng = scores(finished), np.random.default_rng(0)
    phi, member = stored["phi"], stored["member"]
    error = np.sqrt((2 * N_SAMPLES + 1) / (12 * N_SAMPLES**2))  # standard error of both targets' AUC without signal
    for name in ("lira-pooled", "ratio"):
        results = attack_targets(phi, member, n_targets=N_TARGETS, attacks=[name])
        score = np.concatenate([result.score for result in results])
        assert estimate_auc(score, member[:N_TARGETS].ravel()).low > 0.5, name
        aucs = [estimate_auc(score, rng.permutation(member[:N_TARGETS].ravel())) for _ in range(100)]
        assert abs(np.mean([area.value for area in aucs]) - 0.5) < 4 * error / np.sqrt(len(aucs))
        assert sum(area.low <= 0.5 <= area.high for area in aucs) >= 86  # 95 are expected
    shuffled = member.copy()
    shuffled[:N_TARGETS] = [rng.permutation(row) for row in member[:N_TARGETS]]
    for result in attack_targets(phi, shuffled, n_targets=N_TARGETS):
        assert abs(auc(result.score, shuffled[result.target]) - 0.5) < 4.5 * np.sqrt(2) * error, result.attack


# --- querying again --------------------------------------------------------------------------------------------------


def test_a_second_run_of_both_scripts_gives_the_same_bytes(finished, tmp_path, queried):
    argv = [*finished.argv, *run_folders(tmp_path), "--quiet"]
    assert call(train_model.main, argv).status == 0
    assert call(attack_lira.main, argv).status == 0
    first, second = (contents(folder) for folder in (finished.results, tmp_path / "result" / finished.results.name))
    for name in ("attack.csv", "samples.csv", "classes.csv"):
        assert first[name] == second[name]
    assert len(queried) == N_TARGETS + N_SHADOWS


def test_cached_scores_are_not_computed_again(run_copy, queried):
    before, tables = stamps(run_copy.results, "scores.npz"), contents(run_copy.results, "*.csv")
    assert call(attack_lira.main, run_copy.argv).status == 0
    assert queried == []
    assert stamps(run_copy.results, "scores.npz") == before
    assert contents(run_copy.results, "*.csv") == tables


def test_only_a_model_whose_weights_changed_is_queried_again(run_copy, queried):
    """shadow_02 is trained again, from another seed."""
    before = scores(run_copy)
    (run_copy.models / "shadow_02.pt").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "seed", lambda *job: 7)
        assert call(train_model.main, run_copy.argv).status == 0
    assert call(attack_lira.main, [*run_copy.argv, "--attacks", "loss"]).status == 0
    assert len(queried) == 1
    after = scores(run_copy)
    changed = [not np.array_equal(a, b) for a, b in zip(before["phi"], after["phi"], strict=True)]
    assert changed == [False, False, False, False, True, False]
    np.testing.assert_allclose(after["phi"][4, :, 0], expected_phi(run_copy, ("shadow", 2)), rtol=1e-4, atol=1e-4)


def test_only_added_shadows_are_queried(run_copy, queried):
    argv = [*run_copy.argv, "--n-shadows", "6", "--attacks", "loss"]
    before = scores(run_copy)["phi"]
    assert call(train_model.main, argv).status == 0
    assert call(attack_lira.main, argv).status == 0
    assert len(queried) == 2
    np.testing.assert_array_equal(scores(run_copy)["phi"][:6], before)
    assert set(pd.read_csv(run_copy.results / "attack.csv").shadows) == {6}


# --- rejected input --------------------------------------------------------------------------------------------------


def test_missing_models_are_named_with_the_command_that_trains_them(run_copy, queried):
    for model in ("shadow_01", "shadow_03"):
        (run_copy.models / f"{model}.pt").unlink()
    line = rejected(attack_lira.main, run_copy.argv)
    assert line.startswith(f"error: 2 of 6 models missing, the first is {run_copy.models / 'shadow_01.pt'}; ")
    command = f"python train_model.py {shlex.join(run_copy.argv)}"
    assert command in line
    assert call(train_model.main, shlex.split(command)[2:]).status == 0
    assert call(attack_lira.main, [*run_copy.argv, "--attacks", "loss"]).status == 0


def test_without_the_run_no_folder_is_created_and_similar_runs_are_named(run_copy):
    similar = run_copy.models.name
    line = rejected(attack_lira.main, [*run_copy.argv, "--epochs", "31"])
    assert "6 of 6 models missing, the first is " in line
    assert "target_00.pt; " in line
    assert similar in line
    assert [path.name for path in run_copy.models.parent.iterdir()] == [similar]


def test_ctrl_c(run_copy, monkeypatch):
    def interrupt(*args, **settings):
        raise KeyboardInterrupt

    (run_copy.results / "scores.npz").unlink()
    monkeypatch.setattr(query, "query_model", interrupt)
    called = call(attack_lira.main, [*run_copy.argv, "--quiet"])
    assert called.status == 130
    assert called.err == "\nstopped: complete models are kept; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attacks", "lira,,lossy"], ["'lossy', did you mean loss?", "lira-offline"]),
        (["--network", "tests.helpers.networks:missing"], ["missing"]),
        (["--lr-step", "3"], ["lr_step", "80", "3"]),
    ],
)
def test_bad_input_is_rejected_and_writes_nothing(run_copy, queried, flags, words):
    before = stamps(run_copy.folder)
    line = rejected(attack_lira.main, [*run_copy.argv, *flags])
    for word in words:
        assert word in line
    assert queried == []
    assert stamps(run_copy.folder) == before


def test_corrupted_weights_are_named(run_copy, queried):
    path = run_copy.models / "shadow_01.pt"
    path.write_bytes(path.read_bytes()[:-100])
    (run_copy.results / "scores.npz").unlink()
    assert "shadow_01.pt is corrupted" in rejected(attack_lira.main, [*run_copy.argv, "--quiet"])


def test_a_network_that_changed_after_training_is_rejected(run_copy, queried, monkeypatch):
    (run_copy.results / "scores.npz").unlink()
    monkeypatch.setattr(networks, "mlp", networks.lazy)
    line = rejected(attack_lira.main, [*run_copy.argv, "--quiet"])
    assert "target_00.pt" in line
    assert "the weights of another network than --network makes now" in line


@pytest.mark.parametrize(
    ("main", "more"),
    [
        (attack_lira.main, []),
        (train_model.main, ["--n-shadows", "6"]),
        (train_model.main, ["--n-shadows", "6", "--shard", "8/8"]),
    ],
)
def test_an_edited_network_of_the_same_shapes_is_rejected(run_copy, queried, monkeypatch, main, more):
    """Its cached scores are not used, and no shadows are added to those of the network before the edit, not even by a
    shard that has no model yet."""

    def edited(num_classes, in_channels):
        model = original(num_classes, in_channels)
        model[3] = nn.Tanh()
        return model

    original, before = networks.mlp, stamps(run_copy.folder)
    monkeypatch.setattr(networks, "mlp", edited)
    called = call(main, [*run_copy.argv, "--n-shadows", "4", *more, "--quiet"])
    assert called.status == 2
    assert called.err.startswith(f"error: {run_copy.models / 'target_00.pt'} was trained with another network"), called
    assert stamps(run_copy.folder) == before
    assert queried == []


def test_lost_training_logs_do_not_stop_the_attack(run_copy):
    for log in (run_copy.results / "train").glob("shadow_*.csv"):
        log.unlink()
    (run_copy.results / "train" / "target_01.csv").write_text("")
    assert call(attack_lira.main, [*run_copy.argv, "--attacks", "loss"]).status == 0
    (run_copy.results / "train" / "target_00.csv").unlink()
    assert call(attack_lira.main, [*run_copy.argv, "--attacks", "loss"]).status == 0


# --- queries, subsets, classes ---------------------------------------------------------------------------------------


def test_classes_follow_from_the_samples(finished):
    samples, table = pd.read_csv(finished.results / "samples.csv"), pd.read_csv(finished.results / "classes.csv")
    assert list(zip(table.attack, table["class"].astype(str), strict=True)) == [
        (name, digit) for name in ATTACKS for digit in read_digits().class_names
    ]
    for place, row in enumerate(table.itertuples()):
        of_class = samples[samples.label == place % 10]
        assert row.n_guesses == len(of_class)
        accuracy = (of_class[f"{row.attack}_decision"] == of_class.member).mean()
        assert row.accuracy == pytest.approx(accuracy, abs=1e-12)
        areas = [auc(target[row.attack], target.member) for _, target in of_class.groupby("target")]
        assert row.auc == pytest.approx(np.mean(areas), abs=1e-12)


def test_three_queries_start_with_the_identity_and_are_cached(run_copy, queried):
    before, argv = scores(run_copy), [*run_copy.argv, "--n-queries", "3", "--attacks", "lira,loss"]
    assert call(attack_lira.main, argv).status == 0
    assert len(queried) == N_TARGETS + N_SHADOWS
    after = scores(run_copy)
    assert after["phi"].shape == (N_TARGETS + N_SHADOWS, N_SAMPLES, 3)
    np.testing.assert_allclose(after["phi"][..., 0], before["phi"][..., 0], rtol=1e-5, atol=1e-5)
    assert after["queries"].tolist() == [[0, 0, 0], [0, 1, 0], [0, -1, 0]]  # digits are not mirrored
    table = pd.read_csv(run_copy.results / "attack.csv")
    assert set(table.queries) == {3}
    results = attack_targets(after["phi"], after["member"], n_targets=N_TARGETS, attacks=["lira", "loss"])
    assert table.auc.tolist() == pytest.approx([auc(r.score, after["member"][r.target]) for r in results])
    assert call(attack_lira.main, argv).status == 0
    assert len(queried) == N_TARGETS + N_SHADOWS
    assert "--n-queries must be at most" in rejected(attack_lira.main, [*run_copy.argv, "--n-queries", "9999"])


def test_only_the_given_attacks_are_run_in_their_order(run_copy, queried):
    called = call(attack_lira.main, [*run_copy.argv, "--attacks", "loss,ratio"])
    assert called.status == 0
    for name in ("attack.csv", "classes.csv"):
        assert pd.read_csv(run_copy.results / name).attack.unique().tolist() == ["loss", "ratio"]
    columns = pd.read_csv(run_copy.results / "samples.csv").columns
    assert columns[9:].tolist() == [
        "loss",
        "loss_decision",
        "ratio",
        "ratio_decision",
        "p_member",
        "p_value",
        "q_value",
    ]
    assert [line.split()[0] for line in table_lines(called.out)[-5:]] == ["loss", "ratio", "†", "no", "*"]


# --- scores from elsewhere, further flags ----------------------------------------------------------------------------


@pytest.fixture
def attack(tmp_path, monkeypatch):
    """attack(inputs, *flags) calls main() with --scores in an empty folder and returns the folder of the results."""
    skip_figures(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "prepare", None)  # no dataset is read

    def attack(given_inputs, *flags, err=""):
        name = f"theirs{given_inputs.n_targets}+{given_inputs.n_shadows}"
        np.savez(f"{name}.npz", phi=given_inputs.phi, member=given_inputs.member, label=given_inputs.label)
        argv = ["--scores", f"{name}.npz", "--quiet", "-r", str(given_inputs.n_targets), *flags]
        called = call(attack_lira.main, argv)
        assert (called.status, called.err) == (0, err)
        return tmp_path / "result" / name

    return attack


def test_scores_need_no_data_and_create_no_model_folder(tmp_path):
    """The script in a subprocess, with figures."""
    theirs = inputs(n_targets=1)
    np.savez(tmp_path / "theirs.npz", phi=theirs.phi[..., 0], member=theirs.member)
    completed = script("attack_lira.py", ["--scores", "theirs.npz", "--quiet"], tmp_path)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert "theirs.npz: 1 target, 6 shadows\n" in completed.stdout
    drawn = ("roc_log", "roc_linear", "histogram", "reliability")
    files = {"attack.csv", "samples.csv", "classes.csv", "audit.csv", "attack.json", "report.html"}
    files |= {"exposed.csv", "reliability.csv", *(f"{name}{suffix}" for name in drawn for suffix in (".png", ".pdf"))}
    assert set(contents(tmp_path)) == {"theirs.npz", *(f"result/theirs/{name}" for name in files)}


def test_the_scores_of_a_run_give_the_tables_of_the_run(finished, tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    argv = ["--scores", finished.results / "scores.npz", "-r", "2", "--result-dir", tmp_path, "--quiet"]
    assert call(attack_lira.main, argv).status == 0
    for name in ("attack.csv", "samples.csv", "classes.csv"):
        assert (tmp_path / "scores" / name).read_bytes() == (finished.results / name).read_bytes(), name


def test_leave_one_out_has_one_row_per_shadow_and_attack(attack):
    theirs = inputs()
    folder = attack(theirs, "--leave-one-out", "--attacks", "lira,loss")
    table = pd.read_csv(folder / "leave_one_out.csv")
    assert list(zip(table.target, table.attack, strict=True)) == [
        (f"shadow_{index:02d}", name) for index in range(6) for name in ("lira", "loss")
    ]
    results = run.leave_one_out(theirs.phi, theirs.member, n_targets=2, attacks=["lira", "loss"])
    for name in ("lira", "loss"):
        areas = [auc(result.score, theirs.member[result.target]) for result in results if result.attack == name]
        assert table[table.attack == name].auc.mean() == pytest.approx(np.mean(areas))
    for row, result in zip(table.itertuples(), results, strict=True):
        decisions = result.score >= result.threshold
        assert row.accuracy == pytest.approx((decisions == theirs.member[result.target]).mean())
    assert list(table.columns) == list(pd.read_csv(folder / "attack.csv").columns)


def test_exposed_csv_lists_the_samples_below_the_rate(attack):
    """And the output and the page say how many of them are members."""
    theirs = inputs(n_shadows=8, gap=4.0)
    for rate, percent in ((0.02, "2%"), (0.25, "25%")):
        folder = attack(theirs, "--fdr", str(rate), "--attacks", "lira-pooled,loss")
        exposed, samples = pd.read_csv(folder / "exposed.csv"), pd.read_csv(folder / "samples.csv")
        samples = samples[samples.q_value <= rate]
        assert set(zip(exposed.target, exposed["sample"], strict=True)) == set(
            zip(samples.target, samples["sample"], strict=True)
        )
        line = f"At a false discovery rate of {percent}, the attack ({exposed.attack[0]}) identifies "
        line += f"{exposed.member.sum()} of 40 members of 2 targets. It takes {len(exposed)} samples for members, "
        line += f"of which {(~exposed.member).sum()} ({1 - exposed.member.mean():.1%}) are not."
        printed = call(attack_lira.main, ["--scores", f"{folder.name}.npz", "--report-only"]).out
        assert line in " ".join(printed.split())
        assert line in (folder / "report.html").read_text()
    assert exposed.member.sum() > 20


def test_the_curve_doubles_up_to_all_shadows(attack):
    theirs = inputs(n_shadows=10)
    folder = attack(theirs, "--curve")
    curve, table = pd.read_csv(folder / "curve.csv"), pd.read_csv(folder / "attack.csv")
    for name, group in curve.groupby("attack"):
        assert sorted(group.shadows.unique()) == ([8, 10] if name == "learned" else [4, 8, 10]), name
    assert set(curve.attack) == {*ATTACKS, "learned"}
    pd.testing.assert_frame_equal(curve[curve.shadows == 10].reset_index(drop=True), table)
    attack(theirs, "--attacks", "loss")
    assert not (folder / "curve.csv").exists(), "it would be that of an earlier attack"


def test_scores_of_the_name_of_a_run_are_not_written_over_its_results(run_copy):
    file = run_copy.folder / f"{run_copy.results.name}.npz"
    file.write_bytes((run_copy.results / "scores.npz").read_bytes())
    before = stamps(run_copy.folder)
    line = rejected(attack_lira.main, ["--scores", file, "-r", "2", *run_folders(run_copy.folder), "--quiet"])
    assert f"{run_copy.results} holds the results of the run {run_copy.results.name}" in line
    assert str(file) in line
    assert stamps(run_copy.folder) == before


def test_the_official_convention_changes_only_the_lira_rows(attack):
    theirs, tables = inputs(n_shadows=6), {}
    for convention in ("lira", "official"):
        folder = attack(theirs, "--convention", convention)
        tables[convention] = pd.read_csv(folder / "attack.csv").set_index("attack")
        assert set(tables[convention].convention) == {convention}
    changed = tables["lira"].threshold != tables["official"].threshold
    assert set(changed[changed].index) == {"lira", "lira-pooled", "lira-offline", "lira-offline-pooled"}
    results = attack_targets(theirs.phi, theirs.member, n_targets=2, attacks=["lira"], convention="official")
    areas = [auc(result.score, theirs.member[result.target]) for result in results]
    assert tables["official"].loc["lira"].auc.tolist() == pytest.approx(areas)


def test_learned_needs_eight_shadows(attack):
    warning = "warning: learned is left out: it needs more shadows than 6\n"
    for n_shadows, err in ((6, warning), (8, "")):
        folder = attack(inputs(n_shadows=n_shadows, n_targets=1), "--attacks", "loss,learned", err=err)
        assert ("learned" in set(pd.read_csv(folder / "attack.csv").attack)) == (n_shadows == 8)
    attack(inputs(n_shadows=6), "--attacks", "loss")
    line = rejected(attack_lira.main, ["--scores", "theirs2+6.npz", "--quiet", "-r", "2", "--attacks", "learned"])
    assert "--attacks learned needs more shadows than 6" in line


def test_bad_scores_are_rejected_and_write_nothing(tmp_path, monkeypatch):
    """All kinds of bad scores are in tests/storage/test_scores.py and tests/attacks/test_inputs.py."""
    monkeypatch.chdir(tmp_path)
    theirs = inputs()
    theirs.phi[0, 7] = np.nan
    np.savez("bad.npz", phi=theirs.phi, member=theirs.member)
    line = rejected(attack_lira.main, ["--scores", "bad.npz", "-r", "2"])
    for words in ("row 0", "column 7", "nan"):
        assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


# --- the user's images and network -----------------------------------------------------------------------------------


def test_images_from_a_folder_and_a_network_with_batch_norm(tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    write_images(tmp_path / "own")
    argv = ["--dataset", tmp_path / "own", "--data-root", tmp_path / "data", *run_folders(tmp_path)]
    argv += shlex.split(
        "--network tests.helpers.networks:normed --disable-dp --epochs 2 --n-shadows 4 --n-train 5 "
        "--train-batch-size 7 --target-inclusion coin"
    )
    assert call(train_model.main, argv).status == 0
    called = call(attack_lira.main, argv)
    assert called.status == 0, called.err
    (results,) = (tmp_path / "result").iterdir()
    assert len(pd.read_csv(results / "samples.csv")) == 6


# --- output ----------------------------------------------------------------------------------------------------------


def table_lines(out):
    """The lines of the table, between those of the headline and those of the audit."""
    headline, table, audit = out.rsplit("\n\n", 2)
    exposed = "No sample is listed as exposed: attack_lira.py lists them with 6 shadows or more."
    assert " ".join(headline.split()).endswith(exposed)
    assert audit.startswith("Guarantee: training without differential privacy guarantees no upper bound")
    return table.splitlines()


def test_the_output_ends_with_the_table_and_the_audit(finished):
    table, models = pd.read_csv(finished.results / "attack.csv"), pd.read_csv(finished.results / "models.csv")
    accuracy = models[models.role == "target"].test_accuracy.mean()
    expected = terminal_table(summary_table(table), strongest_attack(table)).splitlines()
    assert [line.split()[0] for line in expected[2:-3]] == ATTACKS
    assert expected[-1] == "* strongest by the AUC of the held-out shadows; 1,200 guesses per attack"
    assert table_lines(finished.attacked.out) == expected
    subject, sentence = finished.attacked.out.split("\n\n")[1:3]
    assert subject == f"test accuracy {accuracy:.1%} over 2 targets"
    assert sentence.startswith("Given an image, the strongest attack (")


def test_quiet_prints_the_same_and_shows_no_progress_bars(run_copy):
    called = call(attack_lira.main, [*run_copy.argv, "--quiet"])
    assert (called.status, called.err) == (0, "")
    (report_line,) = [line for line in run_copy.attacked.out.splitlines() if "/report.html: " in line]
    folder = report_line.partition("/report.html")[0]  # of the run that was copied
    assert called.out == run_copy.attacked.out.replace(folder, str(run_copy.results), 1)


def test_off_a_terminal_the_models_queried_and_the_steps_are_lines(finished):
    queried = [line for line in finished.attacked.err.splitlines() if line.endswith("queried")]
    assert queried == [f"{role}_{index:02d}: queried" for role, index in JOBS]
    assert "attacks: running" in finished.attacked.err
    assert "\r" not in finished.attacked.err
