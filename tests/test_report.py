"""attack_lira.py --report-only and --compare."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import attack_lira
import train_model
from lira.report import results
from lira.storage.runs import Run
from tests.helpers.attack_inputs import inputs
from tests.helpers.html_tree import parse, section
from tests.helpers.report import skip_figures, totals, two_runs
from tests.helpers.scripts import call, contents, rejected, run_folders, script, stamps

# --- --report-only -------------------------------------------------------------------------------------------------


def test_the_report_is_repeated_from_the_results_alone(finished, run_copy, tmp_path):
    """Without models and dataset, by the real script from another folder: page and figures are the same bytes."""
    shutil.rmtree(run_copy.models)
    config = json.loads((run_copy.results / "config.json").read_text())
    config["flags"]["--dataset"] = "gone.npz"
    run_copy.results.joinpath("config.json").write_text(json.dumps(config))
    original = contents(finished.results) | contents(run_copy.results, "config.json")
    for name in original:
        if name.endswith((".png", ".pdf", ".html")):
            (run_copy.results / name).unlink()
    (tmp_path / "other").mkdir()
    called = script("attack_lira.py", ["--run", run_copy.results, "--report-only"], tmp_path / "other")
    assert (called.returncode, called.stderr) == (0, "")
    assert called.stdout.endswith(run_copy.attacked.out.partition("report.html")[2])
    for name, content in contents(run_copy.results).items():
        expected = original[name].replace(f"<code>{finished.results}".encode(), f"<code>{run_copy.results}".encode())
        assert content == expected, name
    assert set(contents(run_copy.results)) == set(original)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--run {name} --epochs 7", ["--epochs 7", "made with --epochs 30"]),
        ("--run {name} --lr-step 3", ["--lr-step 3", "made with --lr-step 80"]),
        ("--scores none.npz", ["none/attack.json is missing"]),
    ],
)
def test_a_missing_run_is_rejected(run_copy, monkeypatch, flags, words):
    skip_figures(monkeypatch)
    before, name = stamps(run_copy.folder), run_copy.results.name
    flags = flags.format(name=name).split()
    line = rejected(attack_lira.main, [*flags, *run_folders(run_copy.folder), "--report-only"])
    for word in words:
        assert word.format(name=name) in line
    assert stamps(run_copy.folder) == before


def test_scores_from_elsewhere_have_a_report_too(tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    monkeypatch.chdir(tmp_path)
    attack_inputs = inputs(n_targets=1)
    np.savez("theirs.npz", phi=attack_inputs.phi, member=attack_inputs.member)
    first = call(attack_lira.main, ["--scores", "theirs.npz", "--quiet"])
    page = tmp_path / "result" / "theirs" / "report.html"
    before = page.read_bytes()
    page.unlink()
    (tmp_path / "theirs.npz").unlink()
    again = call(attack_lira.main, ["--scores", "theirs.npz", "--report-only"])
    assert (first.status, again.status, again.out) == (0, 0, first.out)
    assert page.read_bytes() == before
    np.savez("theirs.npz", phi=-attack_inputs.phi, member=attack_inputs.member)
    line = rejected(attack_lira.main, ["--scores", "theirs.npz", "--report-only"])
    assert f"{page.parent.relative_to(tmp_path)} holds the results of --scores {tmp_path}/theirs.npz" in line
    assert page.read_bytes() == before


# --- --compare -----------------------------------------------------------------------------------------------------


def test_a_comparison_has_its_own_figure(tmp_path):
    two_runs(tmp_path)
    called = call(attack_lira.main, ["--result-dir", tmp_path, "--compare", "dp", "plain"])
    path = Path(called.out.split()[0])
    assert called.status == 0
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "roc_log.png", "roc_log.pdf"}
    (image,) = section(parse(path.read_text()), "roc").iter("img")
    for name in ("dp", "plain"):
        run = Run(tmp_path / name, tmp_path / name)
        assert f"{totals(run, results.read(run).strongest)[2]['tpr_at_fpr_0.01']:.2%}" in image.get("alt")


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    two_runs(tmp_path)
    line = rejected(attack_lira.main, ["--result-dir", str(tmp_path), "--compare", "dp", "other"])
    for word in ("--compare other", "no folder of this name with attack.csv", "dp, plain"):
        assert word in line
    (tmp_path / "plain" / "attack.csv").unlink()
    line = rejected(attack_lira.main, ["--result-dir", str(tmp_path), "--compare", "dp", "plain"])
    assert "--compare plain: no folder of this name with attack.csv" in line


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (train_model.main, ["--report-only"]),
        (train_model.main, ["--compare", "dp"]),
        (train_model.main, ["--scores", "theirs.npz"]),
        (attack_lira.main, ["--plan"]),
    ],
)
def test_flags_of_the_other_script_are_rejected(run_copy, main, flags):
    before = stamps(run_copy.folder)
    assert f"{flags[0]} is a flag of " in rejected(main, [*run_copy.argv, *flags])
    assert stamps(run_copy.folder) == before
