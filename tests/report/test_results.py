"""Reading a run back: what is rejected, and what is derived, against naive loops."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lira.attacks.tables import strongest_attack
from lira.report import results
from tests.helpers.attack_inputs import N, inputs
from tests.helpers.errors import input_error_line
from tests.helpers.report import attacked_run, sign, two_runs


def test_the_strongest_attack_and_lira_are_highlighted(tmp_path):
    read = results.read(attacked_run(tmp_path, inputs(n_targets=2, n_shadows=8), names=None, curve=False))
    assert read.strongest == strongest_attack(pd.read_csv(tmp_path / "attack.csv"))
    assert read.highlighted == list(dict.fromkeys([read.strongest, "lira"]))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_roc_is_the_mean_over_targets_of_the_raw_steps(tmp_path, n_targets):
    """Against a loop over thresholds: the highest TPR of any whose FPR is at most that of the point."""
    fpr, tpr = results.read(attacked_run(tmp_path, inputs(n_targets=n_targets), curve=False)).roc("lira")
    samples = pd.read_csv(tmp_path / "samples.csv")
    for x, y in zip(fpr[1:], tpr[1:], strict=True):
        best = []
        for _, rows in samples.groupby("target"):
            members, nonmembers = rows.lira[rows.member], rows.lira[~rows.member]
            allowed = [t for t in (np.inf, *rows.lira) if (nonmembers >= t).mean() <= x + 1e-12]
            best.append(max((members >= threshold).mean() for threshold in allowed))
        assert y == pytest.approx(np.mean(best))
    assert len(fpr) >= N // 4


def test_the_roc_passes_through_the_points_of_the_table(tmp_path):
    read = results.read(attacked_run(tmp_path, inputs(n_targets=3), curve=False))
    fpr, tpr = read.roc("lira")
    for rate in (0.01, 0.001):
        value = read.summary.loc["lira"][f"tpr_at_fpr_{rate}"]
        assert tpr[np.searchsorted(fpr, rate, side="right") - 1] == pytest.approx(value)


@pytest.mark.parametrize(
    ("corruption", "words"),
    [
        (lambda path: (path / "attack.csv").unlink(), ["attack.csv cannot be read", "run attack_lira.py"]),
        (lambda path: _truncate(path / "samples.csv"), ["samples.csv is corrupted (it is not what the attack"]),
        (lambda path: (path / "attack.json").unlink(), ["attack.json is missing", "run attack_lira.py"]),
        (lambda path: (path / "attack.json").write_text("{"), ["attack.json is corrupted"]),
        (lambda path: (path / "config.json").write_text("{"), ["config.json is corrupted"]),
        (lambda path: (path / "config.json").write_text('{"identity": {}}'), ["config.json has format 1"]),
        (lambda path: (path / "images.npz").write_bytes(b"x"), ["images.npz is corrupted"]),
        (lambda path: (path / "models.csv").write_text("role\n"), ["models.csv cannot be read", "no column"]),
    ],
)
def test_a_corrupted_file_is_named(tmp_path, corruption, words):
    run = attacked_run(tmp_path, curve=False)
    corruption(tmp_path)
    line = input_error_line(results.read, run)
    for word in words:
        assert word in line


def _truncate(path):
    """At the end of a row."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: 1 + N + 5]))


@pytest.mark.parametrize(
    ("run", "file", "old", "new", "words"),
    [
        ("dp", "models.csv", "3.4", "0.1", "it gives target_01 epsilon 0.1, and the attack found 3.4 in its weights"),
        ("plain", "models.csv", ",\n", ",0.1\n", "it gives target_00 epsilon 0.1, and the attack found nan"),
        ("dp", "audit.csv", "3.4", "0.1", "it is not what the attack of attack.json wrote"),
        (
            "dp",
            "config.json",
            '"sigma": 1.0',
            '"sigma": 4.0',
            "its settings are not those of the run that was attacked",
        ),
    ],
)
def test_an_edited_guarantee_is_named(tmp_path, run, file, old, new, words):
    run = {run.name: run for run in two_runs(tmp_path)}[run]
    content = (run.results / file).read_text()
    assert old in content
    results.read(run)
    (run.results / file).write_text(content.replace(old, new))
    line = input_error_line(results.read, run)
    assert line.startswith(f"{run.results / file} is corrupted")
    assert words in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "attack.csv").write_text(""), ["attack.csv cannot be read"]),
        (lambda path: (path / "attack.csv").write_text("attack,target\n"), ["no column", "accuracy"]),
        (lambda path: (path / "attack.csv").unlink(), ["attack.json names no attack.csv"]),
        (lambda path: (path / "images.npz").write_bytes(b"x"), ["images.npz cannot be read"]),
        (lambda path: _remove_held_out_auc(path / "attack.csv"), ["no column held_out_auc", "attack_lira.py again"]),
    ],
)
def test_a_file_that_another_version_wrote_is_named(tmp_path, change, words):
    """Its digest is right."""
    run = attacked_run(tmp_path, curve=False)
    change(tmp_path)
    line = input_error_line(results.read, sign(run))
    for word in words:
        assert word in line


def _remove_held_out_auc(path):
    pd.read_csv(path).drop(columns="held_out_auc").to_csv(path, index=False)


def test_a_table_that_is_no_part_of_the_attack_is_not_read(tmp_path):
    run = attacked_run(tmp_path)
    assert "curve.csv" in results.read(run).tables
    content = (tmp_path / "curve.csv").read_bytes()
    attacked_run(tmp_path, curve=False)
    assert not (tmp_path / "curve.csv").exists()
    (tmp_path / "curve.csv").write_bytes(content)
    read = results.read(run)
    assert "curve.csv" not in read.tables
    assert "attack_lira.py with --curve writes it" in read.missing["curve.csv"]


def test_class_names_are_read_as_text(tmp_path):
    names = ("NA", "007", "1e5", "null")
    run = attacked_run(tmp_path, dataclasses.replace(inputs(), class_names=names), curve=False)
    assert results.read(run).class_names == list(names)
