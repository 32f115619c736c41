"""The files of a report, --report-only and --compare, by the real scripts."""

import numpy as np
import pandas as pd
import pytest

import attack_lira
import train_model
from lira.attacks.metrics import clopper_pearson
from lira.report import html, results
from lira.storage.runs import Run
from tests.helpers.attack_inputs import inputs
from tests.helpers.html_tree import parse, section, table, text
from tests.helpers.scripts import call, contents, rejected, script, stamps
from tests.report.test_html import attacked, summary

FIGURES = ["roc_log", "roc_linear", "histogram", "exposed", "classes", "training"]


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without figures, which take long to draw."""
    monkeypatch.setattr(html.plots, "plots", lambda found: {})
    monkeypatch.setattr(html.comparison, "plots", lambda found: {})


# --- --report-only -------------------------------------------------------------------------------------------------


def test_the_report_comes_back_from_the_results_alone(finished, own, tmp_path, monkeypatch):
    """No model, no data set, from another folder; the page and every figure are the same bytes."""
    for path in own.models.iterdir():
        path.unlink()
    kept = contents(finished.results)
    for name in kept:
        if name.endswith((".png", ".pdf", ".html")):
            (own.results / name).unlink()
    monkeypatch.setattr(attack_lira, "prepare", None)
    called = call(attack_lira.main, [*own.argv, "--report-only"])
    assert (called.status, called.err) == (0, "")
    assert called.out.endswith(own.attacked.out.partition("report.html")[2])
    for name, content in contents(own.results).items():
        expected = kept[name].replace(f"<code>{finished.results}".encode(), f"<code>{own.results}".encode())
        assert content == expected, name
    assert set(contents(own.results)) == set(kept)


def test_a_run_on_other_hardware_is_found_by_its_other_precision(own, undrawn):
    argv = [word if word != "fp32" else "auto" for word in own.argv]
    assert call(attack_lira.main, [*argv, "--report-only"]).status == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "7"], ["_e7_", "does not exist", "nothing to report on", "_e30_"]),
        (["--lr-step", "3"], ["lr_step = 80", "3"]),
        (["--scores", "none.npz"], ["attack.csv is missing"]),
    ],
)
def test_what_is_not_there_is_one_line(own, undrawn, flags, words):
    before = stamps(own.folder)
    line = rejected(attack_lira.main, [*own.argv, *flags, "--report-only"])
    for word in words:
        assert word in line
    assert stamps(own.folder) == before


def test_scores_from_elsewhere_have_a_report_too(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    given = inputs(n_targets=1)
    np.savez("theirs.npz", phi=given.phi, member=given.member)
    first = call(attack_lira.main, ["--scores", "theirs.npz", "--quiet"])
    page = tmp_path / "result" / "theirs" / "report.html"
    before = page.read_bytes()
    page.unlink()
    (tmp_path / "theirs.npz").unlink()
    again = call(attack_lira.main, ["--scores", "theirs.npz", "--report-only"])
    assert (first.status, again.status, again.out) == (0, 0, first.out)
    assert page.read_bytes() == before


# --- --compare -----------------------------------------------------------------------------------------------------


def two_runs(folder):
    """DP against none, as far as their files go."""
    runs = [
        attacked(folder / name, inputs(gap=gap, seed=seed)) for name, gap, seed in (("dp", 0.5, 1), ("plain", 3, 2))
    ]
    common = {"dataset": "digits", "network": "ConvNet", "epochs": 3, "data_fingerprint": "f" * 64}
    runs[0].save_json("config.json", {"identity": common | {"sigma": 1.0, "max_grad_norm": 0.1}})
    runs[1].save_json("config.json", {"identity": common})
    models = {"role": "target", "test_accuracy": [0.6, 0.7], "train_accuracy": 0.9, "seconds": 1.0}
    models = pd.DataFrame({"index": [0, 1]} | models)
    runs[0].save_table("models.csv", models.assign(epsilon=[3.2, 3.4]))
    runs[1].save_table("models.csv", models.assign(epsilon=np.nan))
    return runs


def test_two_runs_stand_side_by_side(tmp_path, undrawn):
    runs = two_runs(tmp_path)
    path = html.compare(str(tmp_path), ["dp", str(tmp_path / "plain")])
    tree = parse(path.read_text())
    rows = table(section(tree, "runs"))
    assert rows[0][-2:] == ["epsilon from", "to"]
    for row, run, label in zip(rows[1:], runs, ("A: DP, σ 1.0, C 0.1", "B: no DP"), strict=True):
        strongest = results.read(run).strongest
        n_correct, n_guesses, mean = summary(run, strongest)
        low, high = clopper_pearson(n_correct, n_guesses)
        assert row[0] == label
        assert row[1:4] == ["65.0%", strongest, f"{n_correct / n_guesses:.1%}|[{low:.1%}, {high:.1%}]"]
        assert row[4].startswith(f"{mean.auc:.3f}|")
        assert f"{n_correct / n_guesses:.1%} [{low:.1%}, {high:.1%}]" in text(section(tree, "answer"))
    assert [row[-1] for row in rows[1:]] == ["3.40", "-"]
    settings = {row[0]: row[1:] for row in table(section(tree, "settings"))[1:]}
    assert settings == {"privacy": ["DP-SGD, noise multiplier 1.0, clipping norm 0.1", "without differential privacy"]}


def test_the_comparison_has_a_figure_of_its_own(tmp_path):
    two_runs(tmp_path)
    called = call(attack_lira.main, ["--result-dir", tmp_path, "--compare", "dp", "plain"])
    path = html.Path(called.out.split()[0])
    assert called.status == 0
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "roc_log.png", "roc_log.pdf"}
    (image,) = section(parse(path.read_text()), "roc").iter("img")
    for name in ("dp", "plain"):
        run = Run(tmp_path / name, tmp_path / name)
        assert f"{summary(run, results.read(run).strongest)[2]['tpr_at_fpr_0.01']:.2%}" in image.get("alt")


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    two_runs(tmp_path)
    line = rejected(attack_lira.main, ["--result-dir", str(tmp_path), "--compare", "dp", "other"])
    for word in ("--compare other", "no such run", "dp, plain"):
        assert word in line
    (tmp_path / "plain" / "attack.csv").unlink()
    assert "attack.csv is missing" in rejected(
        attack_lira.main, ["--result-dir", str(tmp_path), "--compare", "dp", "plain"]
    )


def test_runs_of_one_name_are_two_and_the_same_run_is_one(tmp_path, undrawn):
    two_runs(tmp_path / "first")
    two_runs(tmp_path / "second")
    here, other, third = (str(tmp_path / path) for path in ("first/plain", "second/plain", "second/dp"))
    path = html.compare(str(tmp_path), [here, f"{here}/../plain", other])
    tree = parse(path.read_text())
    assert len(table(section(tree, "runs"))) == 3
    assert here in text(tree)
    assert other in text(tree)
    assert path != html.compare(str(tmp_path), [here, third])


def test_another_number_of_shadows_is_a_difference(tmp_path, undrawn):
    plain = two_runs(tmp_path)[1]
    attack = pd.read_csv(plain.results / "attack.csv")
    plain.save_table("attack.csv", attack.assign(shadows=16))
    tree = parse(html.compare(str(tmp_path), ["dp", "plain"]).read_text())
    settings = {row[0]: row[1:] for row in table(section(tree, "settings"))[1:]}
    assert settings["shadows"] == [str(attack.shadows.iloc[0]), "16"]


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (train_model.main, ["--report-only"]),
        (train_model.main, ["--compare", "dp"]),
        (train_model.main, ["--scores", "theirs.npz"]),
        (attack_lira.main, ["--plan"]),
    ],
)
def test_what_only_the_other_script_does_is_refused(own, main, flags):
    before = stamps(own.folder)
    assert f"{flags[0]} is a flag of " in rejected(main, [*own.argv, *flags])
    assert stamps(own.folder) == before


# --- elsewhere -----------------------------------------------------------------------------------------------------


def test_the_template_is_found_from_any_folder(finished, tmp_path):
    argv = [*finished.argv, "--report-only"]
    before = contents(finished.results)["report.html"]
    called = script("attack_lira.py", argv, tmp_path)
    assert (called.returncode, called.stderr) == (0, "")
    assert contents(finished.results)["report.html"] == before
