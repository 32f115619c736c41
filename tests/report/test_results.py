"""Reading a run back: what is refused, what is derived, against loops written here."""

import numpy as np
import pandas as pd
import pytest

from lira.attacks import run
from lira.errors import InputError
from lira.report import plots, results
from tests.helpers.attack_inputs import N, inputs
from tests.report.test_html import attacked


def test_the_strongest_is_that_of_the_shadows(tmp_path):
    given = inputs(n_targets=2, n_shadows=8)
    found = results.read(attacked(tmp_path, given, names=None, curve=False))
    assert found.strongest == run.strongest(run.attack_targets(given.phi, given.member, n_targets=2))
    assert found.highlighted == list(dict.fromkeys([found.strongest, "lira"]))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_roc_is_the_mean_over_targets_of_the_raw_steps(tmp_path, n_targets):
    """Against a loop over thresholds: the most members found by any cut that accuses no more than that."""
    found = results.read(attacked(tmp_path, inputs(n_targets=n_targets), curve=False))
    fpr, tpr = found.roc("lira")
    samples = pd.read_csv(tmp_path / "samples.csv")
    for x, y in zip(fpr[1:], tpr[1:], strict=True):
        best = []
        for _, own in samples.groupby("target"):
            cuts = [np.inf, *own.lira]
            inside, outside = own.lira[own.member], own.lira[~own.member]
            best.append(max((inside >= cut).mean() for cut in cuts if (outside >= cut).mean() <= x + 1e-12))
        assert y == pytest.approx(np.mean(best))
    assert len(fpr) >= N // 4


def test_the_roc_goes_through_the_figures_of_the_table(tmp_path):
    found = results.read(attacked(tmp_path, inputs(n_targets=3), curve=False))
    fpr, tpr = found.roc("lira")
    for rate in (0.01, 0.001):
        value = found.summary.loc["lira"][f"tpr_at_fpr_{rate}"]
        assert tpr[np.searchsorted(fpr, rate, side="right") - 1] == pytest.approx(value)


def test_bars_are_drawn_where_the_samples_resolve_the_rate(tmp_path):
    row = results.read(attacked(tmp_path, curve=False)).summary.loc["lira"].copy()
    assert plots.bars(row) == []
    row["resolvable_at_0.01"] = True
    ((x, low, high, y, *_),) = plots.bars(row)
    assert [x, low, high] == [row[f"fpr_at_0.01{end}"] for end in ("", "_low", "_high")]
    assert y == row["tpr_at_fpr_0.01"]


@pytest.mark.parametrize(
    ("corruption", "words"),
    [
        (lambda path: (path / "attack.csv").unlink(), ["attack.csv is missing", "run attack_lira.py"]),
        (lambda path: (path / "attack.csv").write_text(""), ["attack.csv cannot be read"]),
        (lambda path: (path / "attack.csv").write_text("attack,target\n"), ["no column", "accuracy"]),
        (lambda path: _cut(path / "samples.csv"), ["samples.csv has 5 rows of target_01", "counts 40", "cut"]),
        (lambda path: (path / "attack.json").write_text("{"), ["attack.json cannot be read"]),
        (lambda path: (path / "images.npz").write_bytes(b"x"), ["images.npz cannot be read"]),
        (lambda path: _old(path / "attack.csv"), ["no column strength", "older version"]),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, corruption, words):
    run = attacked(tmp_path, curve=False)
    corruption(tmp_path)
    with pytest.raises(InputError) as error:
        assert results.read(run).strongest
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def _cut(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: 1 + N + 5]))


def _old(path):
    pd.read_csv(path).drop(columns="held_out_auc").to_csv(path, index=False)


def test_tables_of_an_earlier_attack_are_not_shown(tmp_path):
    run = attacked(tmp_path)
    assert "curve.csv" in results.read(run).tables
    run.save_json("attack.json", {"earlier": ["curve.csv"]})
    found = results.read(run)
    assert "curve.csv" not in found.tables
    assert "earlier attack" in found.missing["curve.csv"]


def test_class_names_that_look_like_something_else_stay_names(tmp_path):
    given = inputs()
    given = given.__class__(**{**vars(given), "class_names": ("NA", "007", "1e5", "null")})
    assert results.read(attacked(tmp_path, given, curve=False)).class_names == ["NA", "007", "1e5", "null"]
