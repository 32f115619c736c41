"""attack_lira.py end to end: every file of a run, from oracles where there is one; what is asked again; the screen."""

import shlex

import numpy as np
import pandas as pd
import pytest
import torch

import attack_lira
import train_model
from common import make_split
from lira.attacks import run
from lira.attacks.metrics import auc, auc_interval
from lira.attacks.run import attack_targets
from lira.data.readers import read_digits
from tests.helpers import networks
from tests.helpers.attack_inputs import inputs
from tests.helpers.scripts import call, contents, rejected, run_folders, script, stamps

ATTACKS = ["lira", "lira-pooled", "lira-bayes", "lira-offline", "lira-offline-pooled", "rmia", "rmia-offline"]
ATTACKS += ["ratio", "ratio-offline", "loss"]  # learned needs 8 shadows
FIGURES = ["roc_log", "roc_linear", "histogram", "training", "exposed", "classes"]
NAMES = ["target_00", "target_01"]
TARGETS, SHADOWS, SAMPLES = 2, 4, 600
JOBS = [("target", 0), ("target", 1), *(("shadow", index) for index in range(4))]


@pytest.fixture
def asked(monkeypatch):
    """Counts the models that are asked, and draws no figures: they take longer than all else."""
    calls, real = [], attack_lira.query_model

    def query(*args, **settings):
        calls.append(1)
        return real(*args, **settings)

    monkeypatch.setattr(attack_lira, "query_model", query)
    monkeypatch.setattr(attack_lira.html.plots, "plots", lambda found: {})
    return calls


def scores(run):
    with np.load(run.results / "scores.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def by_hand(run, job):
    """phi of one model from its weights, by the definition, in extended precision where the machine has it."""
    images = read_digits()
    x = (images.x_test.float() / 255 - images.mean[0]) / images.std[0]
    model = networks.mlp(10, 1).eval()
    model.load_state_dict(torch.load(run.models / f"{job[0]}_{job[1]:02d}.pt", weights_only=True)["weights"])
    with torch.no_grad():
        logits = model(x).numpy().astype(np.longdouble)
    rows = []
    for z, label in zip(logits, images.y_test.tolist(), strict=True):
        others = np.delete(z, label)
        rows.append(z[label] - others.max() - np.log(np.exp(others - others.max()).sum()))
    return np.array(rows)


# --- files ---------------------------------------------------------------------------------------------------------


def test_every_file_of_the_design_is_written(finished):
    logs = {f"train/{role}_{index:02d}.csv" for role, index in JOBS}
    files = contents(finished.results)
    tables = {"attack.csv", "samples.csv", "classes.csv", "audit.csv", "models.csv", "scores.npz"}
    drawn = {f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".pdf")}
    assert set(files) == {*tables, "config.json", "attack.json", "images.npz", "report.html", *drawn, *logs}
    for name in FIGURES:
        assert files[f"{name}.png"].startswith(b"\x89PNG\r\n")
        assert files[f"{name}.pdf"].startswith(b"%PDF")
        assert min(len(files[f"{name}{suffix}"]) for suffix in (".png", ".pdf")) > 5_000


def test_scores_hold_phi_member_label_and_role_without_pickles(finished):
    found = scores(finished)
    assert found["phi"].shape == (TARGETS + SHADOWS, SAMPLES, 1)
    assert found["phi"].dtype == np.float32
    assert found["member"].shape == (TARGETS + SHADOWS, SAMPLES)
    assert found["member"].dtype == bool
    assert found["role"].tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(found["label"], read_digits().y_test)
    split = make_split(1197, SAMPLES, n_train=40, exp_idx=0, inclusion="half")
    for row, job in zip(found["member"], JOBS, strict=True):
        np.testing.assert_array_equal(row, split.member(*job))


def test_phi_is_that_of_the_stored_weights(finished):
    found = scores(finished)["phi"]
    for row, job in zip(found, JOBS, strict=True):
        np.testing.assert_allclose(row[:, 0], by_hand(finished, job).astype(float), rtol=1e-4, atol=1e-4)


def test_attack_table_has_the_columns_and_rows_of_the_design(finished):
    table = pd.read_csv(finished.results / "attack.csv")
    columns = ["attack", "target", "convention", "queries", "shadows", "threshold", "balanced_accuracy"]
    for name in ("accuracy", "auc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "tpr_at_fpr_0.0001"):
        columns += [name, f"{name}_low", f"{name}_high"]
    for rate in ("0.01", "0.001", "0.0001"):
        columns += [f"fpr_at_{rate}", f"fpr_at_{rate}_low", f"fpr_at_{rate}_high", f"resolvable_at_{rate}"]
    columns += ["precision_at_prior_0.01", "precision_at_prior_0.1", "n_members", "n_nonmembers"]
    assert set(columns) <= set(table.columns)
    assert list(zip(table.target, table.attack, strict=True)) == [(t, name) for t in NAMES for name in ATTACKS]
    assert set(table.convention) == {"lira"}
    assert set(table.queries) == {1}
    assert set(table.shadows) == {SHADOWS}
    assert set(table.n_members) == set(table.n_nonmembers) == {SAMPLES // 2}
    assert (table.accuracy_low < table.accuracy).all()
    assert (table.accuracy < table.accuracy_high).all()


def test_attack_table_follows_from_the_samples(finished):
    """Accuracy from the decisions, AUC from all pairs of a member and a non-member."""
    table, samples = pd.read_csv(finished.results / "attack.csv"), pd.read_csv(finished.results / "samples.csv")
    for row in table.itertuples():
        own = samples[samples.target == row.target]
        score, decision = own[row.attack].to_numpy(), own[f"{row.attack}_decision"].to_numpy()
        np.testing.assert_array_equal(decision, score >= row.threshold)
        assert row.accuracy == pytest.approx((decision == own.member).mean(), abs=1e-12)
        inside, outside = score[own.member][:, None], score[~own.member][None, :]
        assert row.auc == pytest.approx((inside > outside).mean() + 0.5 * (inside == outside).mean(), abs=1e-12)


def test_samples_table_follows_from_the_scores(finished):
    """Mean and deviation of each side by a loop over samples and shadows; lira from them by its formula."""
    found, table = scores(finished), pd.read_csv(finished.results / "samples.csv")
    head = ["target", "sample", "label", "member", "phi", "mean_in", "std_in", "mean_out", "std_out"]
    assert list(table.columns) == head + [f"{name}{end}" for name in ATTACKS for end in ("", "_decision")]
    assert len(table) == TARGETS * SAMPLES
    shadows, truth = found["phi"][TARGETS:, :, 0].astype(float), found["member"][TARGETS:]
    for place in range(0, TARGETS * SAMPLES, 7):
        row, (target, sample) = table.iloc[place], divmod(place, SAMPLES)
        inside, outside = shadows[truth[:, sample], sample], shadows[~truth[:, sample], sample]
        assert (row.target, row["sample"], row.label) == (NAMES[target], sample, found["label"][sample])
        assert row.member == found["member"][target, sample]
        assert row.phi == pytest.approx(found["phi"][target, sample, 0], rel=1e-6)
        moments = [inside.mean(), inside.std(ddof=1), outside.mean(), outside.std(ddof=1)]
        assert row[head[5:]].tolist() == pytest.approx(moments, rel=1e-6, abs=1e-9)
        log = [
            -0.5 * np.log(side.var(ddof=1) + 1e-5) - (row.phi - side.mean()) ** 2 / (2 * (side.var(ddof=1) + 1e-5))
            for side in (inside, outside)
        ]
        assert row.lira == pytest.approx(log[0] - log[1], rel=1e-6, abs=1e-6)


def test_models_learnt_by_heart_leak_and_shuffled_members_do_not(finished):
    """The same scores against the truth, and against memberships that are shuffled among the samples."""
    found, rng = scores(finished), np.random.default_rng(0)
    phi, member = found["phi"], found["member"]
    error = np.sqrt((2 * SAMPLES + 1) / (12 * SAMPLES**2))  # standard error of an AUC without signal, both targets
    for name in ("lira-pooled", "ratio"):
        scored = attack_targets(phi, member, n_targets=TARGETS, attacks=[name])
        score = np.concatenate([one.score for one in scored])
        assert auc_interval(score, member[:TARGETS].ravel())[1] > 0.5, name
        shuffled = [auc_interval(score, rng.permutation(member[:TARGETS].ravel())) for _ in range(100)]
        assert abs(np.mean([area for area, _, _ in shuffled]) - 0.5) < 4 * error / np.sqrt(len(shuffled))
        assert sum(low <= 0.5 <= high for _, low, high in shuffled) >= 86  # 95 are expected
    everything = member.copy()
    everything[:TARGETS] = [rng.permutation(row) for row in member[:TARGETS]]
    for one in attack_targets(phi, everything, n_targets=TARGETS):
        assert abs(auc(one.score, everything[one.target]) - 0.5) < 4.5 * np.sqrt(2) * error, one.attack


# --- again ---------------------------------------------------------------------------------------------------------


def test_a_second_run_of_both_scripts_gives_the_same_bytes(finished, tmp_path, asked):
    argv = [*finished.argv, *run_folders(tmp_path), "--quiet"]
    assert call(train_model.main, argv).status == 0
    assert call(attack_lira.main, argv).status == 0
    first, second = (contents(folder) for folder in (finished.results, tmp_path / "result" / finished.results.name))
    for name in ("attack.csv", "samples.csv", "classes.csv"):
        assert first[name] == second[name]
    assert len(asked) == TARGETS + SHADOWS


def test_scores_that_are_up_to_date_are_not_computed_again(own, asked):
    before, tables = stamps(own.results, "scores.npz"), contents(own.results, "*.csv")
    assert call(attack_lira.main, own.argv).status == 0
    assert asked == []
    assert stamps(own.results, "scores.npz") == before
    assert contents(own.results, "*.csv") == tables


def test_only_a_model_whose_weights_changed_is_asked_again(own, asked):
    """shadow_02 becomes another model: the one that an other seed trains."""
    before = scores(own)
    target = own.models / "shadow_02.pt"
    target.unlink()
    split = train_model.prepare.__globals__["make_split"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(split(4, 4, n_train=1, exp_idx=0, inclusion="half")), "seed", lambda *job: 7)
        assert call(train_model.main, own.argv).status == 0
    assert call(attack_lira.main, [*own.argv, "--attacks", "loss"]).status == 0
    assert len(asked) == 1
    after = scores(own)
    changed = [not np.array_equal(a, b) for a, b in zip(before["phi"], after["phi"], strict=True)]
    assert changed == [False, False, False, False, True, False]
    np.testing.assert_allclose(after["phi"][4, :, 0], by_hand(own, ("shadow", 2)).astype(float), rtol=1e-4, atol=1e-4)


def test_shadows_that_came_later_are_asked_alone(own, asked):
    argv = [*own.argv, "--n-shadows", "6", "--attacks", "loss"]
    before = scores(own)["phi"]
    assert call(train_model.main, argv).status == 0
    assert call(attack_lira.main, argv).status == 0
    assert len(asked) == 2
    np.testing.assert_array_equal(scores(own)["phi"][:6], before)
    assert set(pd.read_csv(own.results / "attack.csv").shadows) == {6}


@pytest.mark.parametrize("corruption", ["cut", "flipped", "emptied", "text", "gone"])
def test_corrupted_scores_are_made_anew(own, asked, corruption):
    path = own.results / "scores.npz"
    good = path.read_bytes()
    bad = {
        "cut": good[: len(good) // 2],
        "flipped": good[:5000] + bytes([good[5000] ^ 1]) + good[5001:],
        "emptied": b"",
        "text": b"no scores here",
        "gone": None,
    }[corruption]
    path.unlink() if bad is None else path.write_bytes(bad)
    called = call(attack_lira.main, [*own.argv, "--attacks", "loss"])
    assert called.status == 0, called.err
    assert len(asked) == TARGETS + SHADOWS
    assert path.read_bytes() == good


# --- what is missing or wrong --------------------------------------------------------------------------------------


def test_missing_models_are_named_with_the_command_that_makes_them(own, asked):
    for model in ("shadow_01", "shadow_03"):
        (own.models / f"{model}.pt").unlink()
    line = rejected(attack_lira.main, own.argv)
    assert "shadow_01.pt and 1 more of 6 models missing" in line
    command = f"python train_model.py {shlex.join(own.argv)}"
    assert command in line
    assert call(train_model.main, shlex.split(command)[2:]).status == 0
    assert call(attack_lira.main, [*own.argv, "--attacks", "loss"]).status == 0


def test_without_any_run_no_folder_is_made_and_near_runs_are_named(own):
    near = own.models.name
    line = rejected(attack_lira.main, [*own.argv, "--epochs", "31"])
    assert "target_00.pt and 5 more of 6 models missing" in line
    assert near in line
    assert [path.name for path in own.models.parent.iterdir()] == [near]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attacks", "oracle"], ["oracle", "lira-offline"]),
        (["--attacks", "lira,,Loss"], ["Loss", "lira-offline"]),
        (["--n-shadows", "7"], ["--n-shadows", "even"]),
        (["--device", "tpu"], ["tpu", "cuda"]),
        (["--network", "tests.helpers.networks:missing"], ["missing"]),
        (["--lr-step", "3"], ["lr_step", "80", "3"]),
    ],
)
def test_bad_input_is_one_line(own, asked, flags, words):
    before = stamps(own.folder)
    line = rejected(attack_lira.main, [*own.argv, *flags])
    for word in words:
        assert word in line
    assert asked == []
    assert stamps(own.folder) == before


def test_corrupted_weights_are_named(own, asked):
    path = own.models / "shadow_01.pt"
    good = path.read_bytes()
    for bad in (b"", b"text", good[:-100], good[:-9000] + bytes([good[-9000] ^ 1]) + good[-8999:]):
        path.write_bytes(bad)
        (own.results / "scores.npz").unlink(missing_ok=True)
        line = rejected(attack_lira.main, [*own.argv, "--quiet"])
        assert "shadow_01.pt is corrupted" in line


def test_a_network_that_changed_since_it_was_trained_is_one_line(own, asked, monkeypatch):
    """The user edited the factory: the weights on disk are those of another network."""
    (own.results / "scores.npz").unlink()
    monkeypatch.setattr(networks, "mlp", networks.lazy)
    line = rejected(attack_lira.main, [*own.argv, "--quiet"])
    assert "target_00.pt" in line
    assert "tests.helpers.networks:mlp" in line


def test_lost_training_logs_do_not_stop_the_attack(own):
    for log in (own.results / "train").glob("shadow_*.csv"):
        log.unlink()
    (own.results / "train" / "target_01.csv").write_text("")
    assert call(attack_lira.main, [*own.argv, "--attacks", "loss"]).status == 0
    (own.results / "train" / "target_00.csv").unlink()
    assert call(attack_lira.main, [*own.argv, "--attacks", "loss"]).status == 0


# --- queries, subsets, classes --------------------------------------------------------------------------------------


def test_classes_follow_from_the_samples(finished):
    samples, table = pd.read_csv(finished.results / "samples.csv"), pd.read_csv(finished.results / "classes.csv")
    assert list(zip(table.attack, table["class"].astype(str), strict=True)) == [
        (name, digit) for name in ATTACKS for digit in read_digits().class_names
    ]
    for place, row in enumerate(table.itertuples()):
        own = samples[samples.label == place % 10]
        assert row.n_guesses == len(own)
        assert row.accuracy == pytest.approx((own[f"{row.attack}_decision"] == own.member).mean(), abs=1e-12)
        areas = [auc(part[row.attack], part.member) for _, part in own.groupby("target")]
        assert row.auc == pytest.approx(np.mean(areas), abs=1e-12)


def test_three_queries_are_asked_once_the_plain_one_first(own, asked):
    before, argv = scores(own), [*own.argv, "--n-queries", "3", "--attacks", "lira,loss"]
    assert call(attack_lira.main, argv).status == 0
    assert len(asked) == TARGETS + SHADOWS
    after = scores(own)
    assert after["phi"].shape == (TARGETS + SHADOWS, SAMPLES, 3)
    np.testing.assert_allclose(after["phi"][..., 0], before["phi"][..., 0], rtol=1e-5, atol=1e-5)
    assert after["queries"].tolist() == [[0, 0, 0], [0, 1, 0], [0, -1, 0]]  # digits are not mirrored
    table = pd.read_csv(own.results / "attack.csv")
    assert set(table.queries) == {3}
    expected = attack_targets(after["phi"], after["member"], n_targets=TARGETS, attacks=["lira", "loss"])
    assert table.auc.tolist() == pytest.approx([auc(one.score, after["member"][one.target]) for one in expected])
    assert call(attack_lira.main, argv).status == 0
    assert len(asked) == TARGETS + SHADOWS
    assert "--n-queries must be at most" in rejected(attack_lira.main, [*own.argv, "--n-queries", "9999"])


def test_only_the_attacks_asked_for_are_run_in_that_order(own, asked):
    called = call(attack_lira.main, [*own.argv, "--attacks", "loss,ratio"])
    assert called.status == 0
    for name in ("attack.csv", "classes.csv"):
        assert pd.read_csv(own.results / name).attack.unique().tolist() == ["loss", "ratio"]
    columns = pd.read_csv(own.results / "samples.csv").columns
    assert columns[9:].tolist() == ["loss", "loss_decision", "ratio", "ratio_decision"]
    assert [line.split()[0] for line in until_the_verdict(called.out)[-4:]] == ["loss", "ratio", "†", "*"]


# --- scores from elsewhere, and what else can be asked ------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """attack(given, *flags, name=…) calls main() on scores in an empty folder; no figures: they take long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attack_lira.html.plots, "plots", lambda found: {})
    monkeypatch.setattr(attack_lira, "prepare", None)  # no data set is read

    def attack(given, *flags, name="their_scores.npz", said=""):
        np.savez(name, phi=given.phi, member=given.member, label=given.label)
        argv = ["--scores", name, "--quiet", "-r", str(given.n_targets), *flags]
        called = call(attack_lira.main, argv)
        assert (called.status, called.err) == (0, said)
        return called

    return attack


def test_scores_alone_need_no_data_and_make_no_model_folder(tmp_path):
    """The real script with nothing but --scores, figures included."""
    given = inputs(n_targets=1)
    np.savez(tmp_path / "their_scores.npz", phi=given.phi[..., 0], member=given.member)
    called = script("attack_lira.py", ["--scores", "their_scores.npz", "--quiet"], tmp_path)
    assert (called.returncode, called.stderr) == (0, "")
    assert "their_scores.npz: 1 target, 6 shadows\n" in called.stdout
    drawn = {f"{name}{suffix}" for name in ("roc_log", "roc_linear", "histogram") for suffix in (".png", ".pdf")}
    files = {"attack.csv", "samples.csv", "classes.csv", "audit.csv", "attack.json", "report.html", *drawn}
    assert set(contents(tmp_path)) == {"their_scores.npz", *(f"result/their_scores/{name}" for name in files)}


def test_the_scores_of_a_run_give_the_tables_of_the_run(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(attack_lira.html.plots, "plots", lambda found: {})
    argv = ["--scores", finished.results / "scores.npz", "-r", "2", "--result-dir", tmp_path, "--quiet"]
    assert call(attack_lira.main, argv).status == 0
    for name in ("attack.csv", "samples.csv", "classes.csv"):
        assert (tmp_path / "scores" / name).read_bytes() == (finished.results / name).read_bytes(), name


def test_leaving_one_out_gives_each_shadow_a_row(elsewhere, tmp_path):
    given = inputs()
    elsewhere(given, "--leave-one-out", "--attacks", "lira,loss")
    table = pd.read_csv(tmp_path / "result" / "their_scores" / "leave_one_out.csv")
    assert list(zip(table.target, table.attack, strict=True)) == [
        (f"shadow_{index:02d}", name) for index in range(6) for name in ("lira", "loss")
    ]
    expected = run.leave_one_out(given.phi, given.member, n_targets=2, attacks=["lira", "loss"])
    for name in ("lira", "loss"):
        areas = [auc(one.score, given.member[one.target]) for one in expected if one.attack == name]
        assert table[table.attack == name].auc.mean() == pytest.approx(np.mean(areas))
    for row, one in zip(table.itertuples(), expected, strict=True):
        assert row.accuracy == pytest.approx(((one.score >= one.threshold) == given.member[one.target]).mean())
    assert list(table.columns) == list(pd.read_csv(tmp_path / "result" / "their_scores" / "attack.csv").columns)


def test_the_curve_doubles_up_to_all_shadows(elsewhere, tmp_path):
    elsewhere(inputs(n_shadows=10), "--curve")
    folder = tmp_path / "result" / "their_scores"
    curve, table = pd.read_csv(folder / "curve.csv"), pd.read_csv(folder / "attack.csv")
    for name, group in curve.groupby("attack"):
        assert sorted(group.shadows.unique()) == ([8, 10] if name == "learned" else [4, 8, 10]), name
    assert set(curve.attack) == {*ATTACKS, "learned"}
    pd.testing.assert_frame_equal(curve[curve.shadows == 10].reset_index(drop=True), table)


def test_the_official_convention_changes_the_lira_rows_alone(elsewhere, tmp_path):
    given, tables = inputs(n_shadows=6), {}
    for convention in ("lira", "official"):
        elsewhere(given, "--convention", convention)
        tables[convention] = pd.read_csv(tmp_path / "result" / "their_scores" / "attack.csv").set_index("attack")
        assert set(tables[convention].convention) == {convention}
    changed = tables["lira"].threshold != tables["official"].threshold
    assert set(changed[changed].index) == {"lira", "lira-pooled", "lira-offline", "lira-offline-pooled"}
    scored = attack_targets(given.phi, given.member, n_targets=2, attacks=["lira"], convention="official")
    areas = [auc(one.score, given.member[one.target]) for one in scored]
    assert tables["official"].loc["lira"].auc.tolist() == pytest.approx(areas)


def test_the_official_convention_leaves_one_of_four_out(elsewhere, tmp_path):
    """With a pair left out for the threshold too nothing is left to compare with: scores, but no accuracy."""
    given = inputs(n_shadows=4)
    elsewhere(given, "--convention", "official", "--leave-one-out", "--attacks", "lira,loss")
    table = pd.read_csv(tmp_path / "result" / "their_scores" / "leave_one_out.csv").set_index("attack")
    assert table.auc.notna().all()
    assert table.loc["lira"].accuracy.isna().all()
    assert table.loc["loss"].accuracy.notna().all()


def test_learned_needs_eight_shadows(elsewhere, tmp_path):
    table = tmp_path / "result" / "their_scores" / "attack.csv"
    for n_shadows, there in ((6, False), (8, True)):
        said = "" if there else "learned is left out: it needs more shadows than 6\n"
        elsewhere(inputs(n_shadows=n_shadows, n_targets=1), "--attacks", "loss,learned", said=said)
        assert ("learned" in set(pd.read_csv(table).attack)) == there
    table.unlink()
    elsewhere(inputs(n_shadows=6), "--attacks", "loss")
    line = rejected(attack_lira.main, ["--scores", "their_scores.npz", "--quiet", "-r", "2", "--attacks", "learned"])
    assert "--attacks learned needs more shadows than 6" in line


def test_samples_that_no_shadow_can_judge_have_empty_cells(elsewhere, tmp_path):
    given = inputs(n_targets=1)
    given.member[1:, :10] = True
    elsewhere(given)
    table = pd.read_csv(tmp_path / "result" / "their_scores" / "samples.csv", keep_default_na=False)
    assert set(table.lira[:10]) == set(table.lira_decision[:10]) == {""}
    assert set(table.lira_decision[10:].astype(str)) == {"True", "False"}
    assert "" not in set(table.loss_decision)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda given: {"phi": given.phi[:, :5]}, ["member", "(8, 5)", "(8, 40)"]),
        (lambda given: {"phi": np.where(np.arange(40) == 7, np.nan, given.phi[..., 0])}, ["row 0", "column 7", "nan"]),
        (lambda given: {"member": np.ones((8, 40), dtype=bool)}, ["no sample has both"]),
        (lambda given: {"phi": given.phi[:5], "member": given.member[:5]}, ["4 shadows", "3 shadows"]),
        (lambda given: {"phi": np.array([["a"] * 40] * 8, dtype=object)}, ["allow_pickle=False"]),
    ],
)
def test_bad_scores_are_one_line_and_leave_nothing(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    given = inputs()
    np.savez("bad.npz", **({"phi": given.phi, "member": given.member} | change(given)))
    line = rejected(attack_lira.main, ["--scores", "bad.npz", "-r", "2"])
    for word in words:
        assert word in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


# --- the user's own ------------------------------------------------------------------------------------------------


def test_own_images_and_network_with_batch_norm_go_end_to_end(tmp_path):
    from tests.helpers.datasets import write_images

    write_images(tmp_path / "own")
    argv = [
        "--dataset",
        tmp_path / "own",
        "--data-root",
        tmp_path / "data",
        "--network",
        "tests.helpers.networks:normed",
    ]
    argv += shlex.split(
        "--disable-dp --epochs 2 --n-shadows 4 --n-train 5 --train-batch-size 7 --target-inclusion coin"
    )
    argv += run_folders(tmp_path)
    assert call(train_model.main, argv).status == 0
    called = call(attack_lira.main, argv)
    assert called.status == 0, called.err
    (results,) = (tmp_path / "result").iterdir()
    assert len(pd.read_csv(results / "samples.csv")) == 6


# --- the screen ----------------------------------------------------------------------------------------------------


def until_the_verdict(out):
    """The lines of the screen before the empty one and the verdict."""
    table, _, verdict = out.rpartition("\n\n")
    assert verdict.startswith("at 95% confidence the epsilon of this training is at least ")
    return table.splitlines()


def test_the_last_lines_are_the_table_and_the_verdict(finished):
    table, models = pd.read_csv(finished.results / "attack.csv"), pd.read_csv(finished.results / "models.csv")
    found, lines = scores(finished), until_the_verdict(finished.attacked.out)
    heads = len(lines) - len(ATTACKS) - 5
    accuracy = models[models.role == "target"].test_accuracy.mean()
    assert lines[heads] == f"test accuracy {accuracy:.1%} over 2 targets"
    assert " ".join(lines[heads + 1].split()) == "attack accuracy [95 % interval] AUC TPR at 1 % 0.1 % FPR"
    assert set(lines[heads + 2]) == {"-"}
    strongest = run.strongest(attack_targets(found["phi"], found["member"], n_targets=TARGETS))
    for line, name in zip(lines[heads + 3 : -2], ATTACKS, strict=True):
        assert (" * " in line) == (name == strongest)
        rows, (attack, share, low, high, area, *tpr) = table[table.attack == name], line.replace(" *", "").split()
        assert attack == name
        assert share == f"{rows.accuracy.mean():.1%}"
        assert float(low.strip("[%,")) < float(share.strip("%")) < float(high.strip("%]"))
        assert area == f"{rows.auc.mean():.3f}"
        assert tpr == [f"{rows['tpr_at_fpr_0.01'].mean():.2%}", f"{rows['tpr_at_fpr_0.001'].mean():.2%}†"]
    assert lines[-1] == "* strongest by the shadows' own held-out scores; 1,200 guesses an attack"
    assert max(map(len, finished.attacked.out.splitlines()[heads:])) <= 80


def test_the_real_script_is_quiet_and_ends_in_the_table(own):
    called = script("attack_lira.py", [*own.argv, "--quiet"], own.folder)
    assert called.returncode == 0
    assert called.stderr == ""
    lines = until_the_verdict(called.stdout)
    assert lines[-3].startswith("loss ")
    assert lines[-1].startswith("* strongest")
    assert called.stdout == finished_output(own)


def finished_output(own):
    """What main() said in another folder, with this folder's name."""
    (first,) = [line for line in own.attacked.out.splitlines() if "/report.html: " in line]
    return own.attacked.out.replace(first.partition("/report.html")[0], str(own.results), 1)


def test_the_bar_counts_the_models_asked(finished):
    assert "6/6" in finished.attacked.err
    assert "asking" in finished.attacked.err
