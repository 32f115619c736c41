"""Which figures a run has, and the numbers in their alternative texts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lira.attacks.exposed import calibration_error, reliability_bins
from lira.report import plots, results
from tests.helpers.attack_inputs import N, inputs
from tests.helpers.report import attacked_run, sign


def test_the_curve_has_the_numbers_of_curve_csv(tmp_path):
    read = results.read(attacked_run(tmp_path, inputs(n_shadows=10)))
    table = pd.read_csv(tmp_path / "curve.csv")
    table = table[table.attack == read.strongest]
    *panels, legend = plots.plots(read)["curve"]
    assert legend.is_legend
    for panel, column in zip(panels, ("accuracy", "tpr_at_fpr_0.01"), strict=True):
        values = [f"{rows[column].mean():.1%} at {shadows}" for shadows, rows in table.groupby("shadows")]
        assert f"{read.strongest} {', '.join(values)}" in panel.alt
        axes = Figure().subplots()
        panel.draw(axes)
        assert axes.lines[0].get_label() == read.strongest


def test_the_reliability_is_that_of_the_samples_and_of_the_held_out_shadows(tmp_path):
    read = results.read(attacked_run(tmp_path, curve=False))
    (panel,) = plots.plots(read)["reliability"]
    axes = Figure().subplots()
    panel.draw(axes)
    samples, shadows = pd.read_csv(tmp_path / "samples.csv"), pd.read_csv(tmp_path / "reliability.csv")
    bins = reliability_bins(samples.p_member.to_numpy(), samples.member.to_numpy())
    for line, drawn, name in zip(axes.lines[1:], (bins, shadows), ("targets", "held-out shadows"), strict=True):
        assert line.get_xdata().tolist() == pytest.approx(drawn.p_member.tolist())
        assert line.get_ydata().tolist() == pytest.approx(drawn.share.tolist())
        assert f"{name} {calibration_error(drawn):.3f}" in panel.alt
        assert line.get_label() == f"{name}, ECE {calibration_error(drawn):.3f}"


def test_of_many_classes_the_most_and_the_least_exposed_are_drawn(tmp_path):
    many = dataclasses.replace(inputs(), label=np.arange(N) % 30, class_names=tuple(f"class {k}" for k in range(30)))
    read = results.read(attacked_run(tmp_path, many, curve=False))
    names = plots.classes_table(read)["class"].tolist()
    (panel,) = plots.plots(read)["classes"]
    axes = Figure().subplots()
    panel.draw(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == [*names[:12], *names[-12:]]
    assert [text.get_text() for text in axes.texts] == ["6 classes between"]
    table, accuracy = plots.classes_table(read), read.summary.loc[read.strongest].accuracy
    n = sum(not row.accuracy_low <= accuracy <= row.accuracy_high for row in table.itertuples())
    said = f"{n} of 30 classes miss the accuracy of all classes; were all alike, about 1.5 would by chance."
    assert plots.words(read)["by_chance"] == f"The intervals of {said}"


def test_a_run_with_attack_csv_alone_has_no_figures(tmp_path):
    run = attacked_run(tmp_path, images=False)
    for name in ("samples.csv", "classes.csv", "curve.csv"):
        (tmp_path / name).unlink()
    assert plots.plots(results.read(sign(run))) == {}


def test_intervals_are_drawn_where_the_samples_resolve_the_rate(tmp_path):
    row = results.read(attacked_run(tmp_path, curve=False)).summary.loc["lira"].copy()
    assert plots.intervals(row) == []
    row["resolvable_at_0.01"] = True
    assert plots.intervals(row) == [(0.01, *(row[f"tpr_at_fpr_0.01{end}"] for end in ("", "_low", "_high")))]
