"""Tables from numbers, and figures that can be drawn from whatever there is."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest

from lira import report
from lira.attacks import ATTACKS, Scored, attack_targets
from lira.metrics import clopper_pearson

N = 40


def played(n_targets=2, n_shadows=6, attacks=None, seed=0, gap=2.0):
    """Scores of models whose members answer `gap` higher."""
    rng = np.random.default_rng(seed)
    half = np.array([rng.permutation(N) < N // 2 for _ in range(n_shadows // 2)])
    shadows = np.stack([half, ~half], axis=1).reshape(n_shadows, N)
    member = np.concatenate([[rng.permutation(N) < N // 2 for _ in range(n_targets)], shadows])
    phi = (rng.normal(size=(len(member), N, 1)) + gap * member[:, :, None]).astype(np.float32)
    return phi, member, attack_targets(phi, member, n_targets=n_targets, attacks=attacks)


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
        figure.savefig(file, format="png")
    return file.getvalue()


def test_attack_table_has_a_row_for_each_attack_and_target():
    _, member, scored = played()
    table = report.attack_table(scored, member, queries=1, shadows=6)
    assert len(table) == 2 * len(ATTACKS)
    assert set(zip(table.attack, table.target, strict=True)) == {
        (name, target) for name in ATTACKS for target in (0, 1)
    }
    for one, row in zip(scored, table.itertuples(), strict=True):
        right = sum(
            (score >= one.threshold) == truth for score, truth in zip(one.score, member[one.target], strict=True)
        )
        assert row.accuracy == pytest.approx(right / N)
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(clopper_pearson(right, N))
        assert (row.queries, row.shadows, row.n_members, row.n_nonmembers) == (1, 6, N // 2, N // 2)


def test_samples_table_shows_the_mean_over_queries():
    rng = np.random.default_rng(0)
    phi, member, scored = played(n_targets=1, attacks=["loss"])
    phi = np.concatenate([phi, rng.normal(size=phi.shape).astype(np.float32)], axis=2)
    table = report.samples_table(scored, phi, member, np.arange(N), n_targets=1)
    mean = phi.astype(float).mean(axis=2)
    np.testing.assert_allclose(table.phi, mean[0])
    for sample in range(N):
        inside = mean[1:][member[1:, sample], sample]
        assert table.mean_in[sample] == pytest.approx(inside.mean())
        assert table.std_in[sample] == pytest.approx(inside.std(ddof=1))
    assert table["loss_decision"].tolist() == (scored[0].score >= scored[0].threshold).tolist()


@pytest.mark.parametrize("n_targets", [1, 3])
def test_summary_pools_the_guesses_of_all_targets(n_targets):
    _, member, scored = played(n_targets=n_targets, attacks=["lira", "loss"])
    table = report.attack_table(scored, member, queries=1, shadows=6)
    models = pd.DataFrame({"role": ["target"] * 5 + ["shadow"], "test_accuracy": [0.5, 0.6, 0.7, 0.0, 0.0, 0.0]})
    lines = report.terminal_summary(table, models, n_targets=n_targets).splitlines()
    assert lines[0].startswith(f"test accuracy {np.mean([0.5, 0.6, 0.7][:n_targets]):.1%}")
    assert f"{n_targets * N} guesses an attack" in lines[0]
    assert ("3 targets" in lines[0]) == (n_targets == 3)
    for line, name in zip(lines[3:], ("lira", "loss"), strict=True):
        own = [one for one in scored if one.attack == name]
        right = sum(int(((one.score >= one.threshold) == member[one.target]).sum()) for one in own)
        low, high = clopper_pearson(right, n_targets * N)
        assert line.split()[:4] == [name, f"{right / (n_targets * N):.1%}", f"[{low:.1%},", f"{high:.1%}]"]


def test_summary_fits_80_columns_for_many_targets():
    _, member, scored = played(n_targets=20)
    table = report.attack_table(scored, member, queries=1, shadows=6)
    table[["n_members", "n_nonmembers"]] = 5000
    models = pd.DataFrame({"role": ["target"] * 20, "test_accuracy": [0.9] * 20})
    assert max(map(len, report.terminal_summary(table, models, n_targets=20).splitlines())) <= 80


# --- figures -------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_without_a_warning():
    _, member, scored = played()
    figures = report.figures(scored, member, logs(), title="a run")
    assert set(figures) == {"roc_log.png", "roc_linear.png", "histogram.png", "training.png"}
    for figure in figures.values():
        assert drawn(figure).startswith(b"\x89PNG")
        assert any("a run" in text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text")))


def test_curves_are_the_raw_steps_over_all_targets():
    """Against a loop over thresholds."""
    _, member, scored = played(attacks=["lira"])
    axes = report.figures(scored, member, {}, title="")["roc_linear.png"].axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "lira"]
    score = np.concatenate([one.score for one in scored])
    truth = np.concatenate([member[one.target] for one in scored])
    cuts = [np.inf, *sorted(set(score), reverse=True)]
    np.testing.assert_allclose(line.get_xdata(), [(score[~truth] >= cut).mean() for cut in cuts])
    np.testing.assert_allclose(line.get_ydata(), [(score[truth] >= cut).mean() for cut in cuts])
    assert line.get_drawstyle() == "steps-post"


def test_histograms_hold_every_sample_once():
    _, member, scored = played(attacks=["lira", "loss"])
    figure = report.figures(scored, member, {}, title="")["histogram.png"]
    for axes in figure.axes[:2]:
        heights = sum(patch.get_height() for patch in axes.patches)
        assert heights == 2 * N


@pytest.mark.parametrize(
    "models", [("target_00",), ("shadow_00",), ("target_03",), ("target_00", "target_01", "shadow_00")]
)
def test_training_curves_are_drawn_from_the_logs_there_are(models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(report.training_figure(logs(models), title="x"))


def test_without_logs_there_is_no_training_figure():
    _, member, scored = played(attacks=["loss"])
    assert "training.png" not in report.figures(scored, member, {}, title="x")


def test_scores_that_are_all_equal_can_be_drawn():
    member = np.array([[True, False] * 5])
    scored = [Scored("loss", 0, np.zeros(10), 0.0, 0.5)]
    for figure in report.figures(scored, member, {}, title="x").values():
        assert drawn(figure)


def test_an_infinite_threshold_can_be_drawn():
    """Where no guess is better than none, the threshold is inf."""
    member = np.array([[True, False] * 5])
    scored = [Scored("loss", 0, np.arange(10.0), np.inf, 0.5)]
    for figure in report.figures(scored, member, {}, title="x").values():
        assert drawn(figure)
