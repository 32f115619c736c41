"""Figures that can be drawn from whatever there is."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from played import N, evidence, played, truths

from lira import figures, tables
from lira.attacks import ATTACKS, Scored, curve


def logs(models=("target_00", "shadow_00", "shadow_01"), epochs=3):
    return {
        name: pd.DataFrame(
            {
                "epoch": range(1, epochs + 1), "train_loss": 1.0, "train_accuracy": 0.5,
                "test_loss": [None] * (epochs - 1) + [1.2], "test_accuracy": [None] * (epochs - 1) + [0.4],
            }
        ).astype(float)
        for name in models
    }  # fmt: skip


def drawn(figure):
    """Draw with warnings as errors; returns the bytes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


def test_every_figure_is_drawn_without_a_warning():
    given, scored = played(pictures=True)
    drawings = figures.figures(scored, given, logs(), "lira", title="a run")
    assert set(drawings) == {"roc_log.png", "roc_linear.png", "histogram.png", "training.png", "exposed.png"}
    for figure in drawings.values():
        assert drawn(figure).startswith(b"\x89PNG")
        assert any("a run" in text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text")))


def test_curves_are_the_raw_steps_over_all_targets():
    """Against a loop over thresholds."""
    given, scored = played(attacks=["lira"])
    axes = figures.figures(scored, given, {}, "lira", title="")["roc_linear.png"].axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "lira"]
    score = np.concatenate([one.score for one in scored])
    truth = np.concatenate([given.member[one.target] for one in scored])
    cuts = [np.inf, *sorted(set(score), reverse=True)]
    np.testing.assert_allclose(line.get_xdata(), [(score[~truth] >= cut).mean() for cut in cuts])
    np.testing.assert_allclose(line.get_ydata(), [(score[truth] >= cut).mean() for cut in cuts])
    assert line.get_drawstyle() == "steps-post"


def test_histograms_hold_every_sample_once():
    given, scored = played(attacks=["lira", "loss"])
    figure = figures.figures(scored, given, {}, "lira", title="")["histogram.png"]
    for axes in figure.axes[:2]:
        heights = sum(patch.get_height() for patch in axes.patches)
        assert heights == 2 * N


@pytest.mark.parametrize(
    "models", [("target_00",), ("shadow_00",), ("target_03",), ("target_00", "target_01", "shadow_00")]
)
def test_training_curves_are_drawn_from_the_logs_there_are(models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(figures.training_figure(logs(models), title="x"))


def test_without_logs_there_is_no_training_figure():
    given, scored = played(attacks=["loss"])
    assert set(figures.figures(scored, given, {}, "loss", title="x")) == {
        "roc_log.png",
        "roc_linear.png",
        "histogram.png",
    }


@pytest.mark.parametrize("threshold", [0.0, np.inf, -np.inf, np.nan])
def test_equal_scores_and_any_threshold_can_be_drawn(threshold):
    """Where no guess is better than none the threshold is inf, and without left-out scores there is none."""
    score = np.zeros(10) if threshold == 0 else np.arange(10.0)
    scored = [Scored("loss", 0, score, threshold, 0.5, 6)]
    drawings = figures.figures(scored, truths([True, False] * 5), {}, "loss", title="x")
    assert set(drawings) == {"roc_log.png", "roc_linear.png", "histogram.png"}
    for figure in drawings.values():
        assert drawn(figure)


def test_samples_without_a_score_are_left_out_of_every_figure():
    given, (one,) = played(n_targets=1, attacks=["lira"], pictures=True)
    score = np.where(np.arange(N) % 4 == 0, np.nan, one.score)
    drawings = figures.figures([Scored("lira", 0, score, one.threshold, 0.5, 6)], given, {}, "lira", title="x")
    for figure in drawings.values():
        assert drawn(figure)
    known = ~np.isnan(score)
    assert sum(patch.get_height() for patch in drawings["histogram.png"].axes[0].patches) == known.sum()
    shown = [axes.get_title() for axes in drawings["exposed.png"].axes if axes.images]
    assert len(shown) == (given.member[0] & known).sum()
    assert not any("nan" in caption for caption in shown)


@pytest.mark.parametrize(
    ("truth", "score"), [([True] * 6, np.arange(6.0)), ([False] * 6, np.arange(6.0)), ([True, False] * 3, [np.nan] * 6)]
)
def test_an_attack_without_both_sides_has_no_curve_and_stops_nobody(truth, score):
    """Beside an attack that has both, and alone."""
    hopeless = Scored("lira", 0, np.array(score), 3.0, 0.5, 6)
    good = Scored("loss", 1, np.arange(6.0), 3.0, 0.5, 6)
    given = truths(truth, [True, False] * 3)
    drawings = figures.figures([hopeless, good], given, {}, "lira", title="x")
    for name in ("roc_log.png", "roc_linear.png"):
        labels = [line.get_label() for line in drawings[name].axes[0].lines]
        assert labels == ["loss", "guessing"]
    for figure in drawings.values():
        assert drawn(figure)
    for figure in figures.figures([hopeless], given, {}, "lira", title="x").values():
        assert drawn(figure)


# --- the most exposed ----------------------------------------------------------------------------------------------


def test_the_most_exposed_are_the_members_with_the_highest_scores():
    """Of the first target, by the strongest attack, highest first; each picture is its sample's."""
    given, scored = played(pictures=True, attacks=["lira", "loss"])
    figure = figures.figures(scored, given, {}, "loss", title="x")["exposed.png"]
    (loss,) = [one for one in scored if (one.attack, one.target) == ("loss", 0)]
    order = sorted(np.flatnonzero(given.member[0]), key=lambda sample: -loss.score[sample])
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == N // 2
    for axes, sample in zip(shown, order, strict=True):
        assert axes.get_title() == f"{'abcd'[given.label[sample]]}\n#{sample}: {loss.score[sample]:.3g}"
        np.testing.assert_array_equal(axes.images[0].get_array(), given.pictures[sample, 0])
    assert "target_00" in figure.get_suptitle()
    assert "loss" in figure.get_suptitle()


def test_class_names_are_shown_as_they_are():
    given, scored = played(pictures=True, n_targets=1, classes=2, attacks=["loss"])
    given = given.__class__(
        **{**vars(given), "class_names": ("$x_{$", "a\\b"), "pictures": given.pictures.repeat(3, 1)}
    )
    assert drawn(figures.figures(scored, given, {}, "loss", title="x")["exposed.png"])


# --- the curve -----------------------------------------------------------------------------------------------------


def test_the_curve_shows_the_mean_over_targets():
    given = evidence(n_shadows=10)
    points = curve(given.phi, given.member, n_targets=2)
    table = tables.curve_table(points, given.member, given.names, convention="lira", queries=given.phi.shape[2])
    figure = figures.curve_figure(table, title="a run")
    assert drawn(figure)
    for axes, column in zip(figure.axes, ("auc", "tpr_at_fpr_0.01"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert list(lines) == list(ATTACKS)
        assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines}) == len(ATTACKS)
        for name, line in lines.items():
            sizes = [8, 10] if name == "learned" else [4, 8, 10]
            rows = table[table.attack == name]
            assert line.get_xdata().tolist() == sizes
            means = [rows[rows.shadows == size][column].mean() for size in sizes]
            np.testing.assert_allclose(line.get_ydata(), means)
