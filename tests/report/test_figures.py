"""Each kind of panel, as PNG, PDF and SVG, in light and in dark colours."""

import re
import warnings
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from lira.attacks.registry import ATTACKS
from lira.report import figures
from lira.report.figures import Panel


def axes_of(draw, *args, **settings):
    """The axes of one panel, after it was written as PNG, PDF and both SVGs with warnings as errors."""
    panel = Panel(lambda axes: draw(axes, *args, **settings), "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = figures.paper([panel], title="a run")
        light, dark = figures.svg(panel)
    assert files[".png"].startswith(b"\x89PNG")
    assert files[".pdf"].startswith(b"%PDF")
    for text in (light, dark):
        assert ElementTree.fromstring(text).tag.endswith("svg")
    with figures._style():
        axes = Figure(figsize=panel.size, layout="constrained").subplots()
        panel.draw(axes)
        assert overlapping(axes.figure) == []
    return axes


def overlapping(figure):
    """Pairs of texts, or of a text and a legend, whose boxes overlap, once the figure is laid out."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legends = [child for child in axes.get_children() if isinstance(child, Legend)]
    texts = [axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [text for text in texts if text.get_visible() and text.get_text() and axes.axison]
    boxes = [(artist, artist.get_window_extent()) for artist in [*shown, *legends]]
    assert all(figure.bbox.padded(1).contains(*corner) for _, box in boxes for corner in box.corners()), "cut off"
    return [(str(a), str(b)) for (a, box), (b, other) in combinations(boxes, 2) if box.overlaps(other)]


def logs(models=("target_00", "shadow_00", "shadow_01"), epochs=3):
    columns = {
        "epoch": range(1, epochs + 1),
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "test_loss": [None] * (epochs - 1) + [1.2],
        "test_accuracy": [None] * (epochs - 1) + [0.4],
    }
    return {name: pd.DataFrame(columns).astype(float) for name in models}


def curves(names):
    return {name: (np.array([0, 0.1, 0.5]), np.array([0.1, 0.4, 0.9])) for name in names}


# --- colours -------------------------------------------------------------------------------------------------------


def test_the_dark_figure_is_the_light_one_in_other_colours():
    panel = Panel(lambda axes: figures.roc(axes, curves(ATTACKS), {}, labelled=["lira", "loss"], min_rate=0.01), "")
    light, dark = figures.svg(panel)
    assert {colour.lower() for colour in re.findall("#[0-9a-fA-F]{6}", light)} <= set(figures.DARK)
    assert {colour.lower() for colour in re.findall("#[0-9a-fA-F]{6}", dark)} <= set(figures.DARK.values())
    assert len(set(figures.DARK.values())) == len(figures.DARK)


def test_equal_figures_are_equal_bytes():
    panel = Panel(lambda axes: figures.roc(axes, curves(["lira"]), {}, labelled=["lira"]), "")
    assert figures.paper([panel], title="x") == figures.paper([panel], title="x")
    assert figures.svg(panel) == figures.svg(panel)


def test_three_lines_are_labelled_and_the_others_grey_and_thin_with_a_legend_of_their_own():
    """No two lines have one colour, and no two greys of one dash are near each other."""
    labelled = ["learned", "lira", "loss"]
    axes = axes_of(figures.roc, curves(ATTACKS), {}, labelled=labelled, min_rate=0.01)
    lines = [line for line in axes.lines if line.get_label() in ATTACKS]
    assert len({to_hex(line.get_color()) for line in lines}) == len(ATTACKS)
    assert [line.get_label() for line in lines][:3] == labelled
    greys = {line.get_label(): int(to_hex(line.get_color())[1:3], 16) for line in lines[3:]}
    assert set(greys) == set(ATTACKS) - set(labelled)
    for line, other in combinations(lines[3:], 2):
        if line._unscaled_dash_pattern == other._unscaled_dash_pattern:
            assert abs(greys[line.get_label()] - greys[other.get_label()]) >= 20
    assert all(line.get_lw() < 1 < other.get_lw() for line in lines[3:] for other in lines[:3])
    legends = [child for child in axes.get_children() if isinstance(child, Legend)]
    names = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert names == [[*labelled, "guessing"], [name for name in ATTACKS if name not in labelled]]


def test_runs_differ_in_colour_or_dash():
    runs = axes_of(figures.roc, curves("ABCDEFGH"), {}, labelled=list("ABCDEFGH"), min_rate=0.01).lines[:8]
    assert len({(to_hex(line.get_color()), str(line._unscaled_dash_pattern)) for line in runs}) == 8


def test_text_has_contrast_on_both_pages():
    """WCAG contrast with the page: text above 7, secondary text above 4.5, lines above 2."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(*colours):
        dark, bright = sorted(map(luminance, colours))
        return (bright + 0.05) / (dark + 0.05)

    for page, colours in (("#fbfaf7", list(figures.DARK)), ("#141517", list(figures.DARK.values()))):
        assert contrast(page, colours[0]) > 7
        assert contrast(page, colours[1]) > 4.5
        assert contrast(page, colours[3]) > 4.5, "text has the accent colour too"
        assert all(contrast(page, colour) > 2 for colour in colours[3:])


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_curves_are_drawn_as_steps_with_their_intervals():
    intervals = {"lira": [(0.1, 0.4, 0.3, 0.5), (0.5, 0.9, 0.0, 0.95), (0.2, 0.4, np.nan, np.nan)]}
    axes = axes_of(figures.roc, curves(["lira", "loss"]), intervals, labelled=["lira"], min_rate=0.01)
    (line,) = [line for line in axes.lines if line.get_label() == "lira"]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [0, 0.1, 0.5, 1]
    assert line.get_ydata().tolist() == [0.1, 0.4, 0.9, 1]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert ([0.1, 0.1], [0.3, 0.5]) in drawn
    assert ([0.5, 0.5], [0.01, 0.95]) in drawn, "to the lower edge"
    assert all(x != [0.2, 0.2] for x, _ in drawn), "without an interval"


def test_histograms_count_every_sample_once():
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(2, 1, 300), rng.normal(0, 9, 200)
    axes = axes_of(figures.histogram, "lira", members, nonmembers, [0.5, 0.7])
    heights = [patch.get_data().values.sum() for patch in axes.patches]
    assert sorted(heights) == [200, 200, 300, 300], "filled and outlined"


@pytest.mark.parametrize("threshold", [0.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("score", [np.zeros(10), np.arange(10.0), np.empty(0)])
def test_equal_scores_and_any_threshold_can_be_drawn(score, threshold):
    """The threshold is inf where guessing no member is best, and NaN without held-out scores."""
    axes_of(figures.histogram, "loss", score, score[: len(score) // 2], [threshold])


@pytest.mark.parametrize(
    "models", [("target_00",), ("shadow_00",), ("target_03",), ("target_00", "target_01", "shadow_00")]
)
def test_training_curves_are_drawn_for_any_models(models):
    axes = axes_of(figures.training, logs(models), "accuracy")
    assert len(axes.lines) == 2 * sum(name.startswith("target") for name in models)
    assert len(axes.collections) == 2 * ("shadow_00" in models)


def test_the_band_is_from_the_lowest_to_the_highest_shadow():
    shadow_logs = logs(("shadow_00", "shadow_01", "shadow_02"))
    for number, log in enumerate(shadow_logs.values()):
        log["train_accuracy"] = 0.3 + 0.1 * number
    band = axes_of(figures.training, shadow_logs, "accuracy").collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.3)
    assert band[:, 1].max() == pytest.approx(0.5)


def test_the_curve_has_a_point_for_every_number_of_shadows():
    table = pd.DataFrame({"shadows": [4, 8, 10], "auc": [0.5, 0.6, 0.7], "auc_low": 0.4, "auc_high": 0.8})
    axes = axes_of(figures.curve, {"loss": table.iloc[1:], "lira": table}, "auc", "AUC", labelled=["lira"])
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["lira", "loss"]
    assert lines["loss"].get_xdata().tolist() == [8, 10]
    assert lines["lira"].get_ydata().tolist() == [0.5, 0.6, 0.7]
    assert len(axes.collections[0].get_segments()) == 3
    legend = axes_of(figures.curve_legend, ["loss", "lira", "rmia"], labelled=["lira"])
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["lira", "loss", "rmia"]


def test_marks_at_the_edge_are_not_clipped():
    axes = axes_of(figures.roc, curves(["lira"]), {"lira": [(0.1, 0.4, 0.3, 0.5)]}, labelled=["lira"], min_rate=0.1)
    marks = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
    bins = pd.DataFrame({"p_member": [0.0, 1.0], "share": [0.0, 1.0], "share_low": 0.0, "share_high": 1.0})
    reliability = axes_of(figures.reliability, {"target": bins}, {"target": 0.0})
    assert not any(artist.get_clip_on() for artist in (*marks, reliability.lines[1], reliability.collections[0]))
    assert len(marks) == 2


def test_classes_that_are_left_out_are_a_break():
    names = [f"class {number}" for number in range(6)]
    table = pd.DataFrame({"class": names, "accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7})
    axes = axes_of(figures.classes, table, guessing=0.5, overall=0.6, n_left_out=76)
    assert [text.get_text() for text in axes.texts] == ["76 classes between"]
    assert axes.get_yticks().tolist() == [7, 6, 5, 2, 1, 0]
    assert axes.patches[0].get_extents().height > 0


def test_class_names_and_images_are_drawn_unchanged():
    names = ["$x_{$", "a\\b", "<&>", "猫", "long " * 20]
    table = pd.DataFrame({"class": names, "accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7})
    axes = axes_of(figures.classes, table, guessing=0.5, overall=0.6)
    assert [label.get_text() for label in axes.get_yticklabels()][:4] == names[:4]
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    axes = axes_of(figures.exposed, [list(zip(images, names, strict=True)), []], ["most", "least"])
    for drawn, image in zip(axes.images, images, strict=True):
        np.testing.assert_array_equal(drawn.get_array(), image.transpose(1, 2, 0))
