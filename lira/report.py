"""What people look at: the table on the terminal and the figures. Draws numbers, computes none."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by the colour-blind, and in print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#F0E442")
STYLES = ("-", "--", "-.", ":")


def terminal_table(summary: pd.DataFrame) -> str:
    """The final table, narrow enough for 80 columns. summary: a row an attack, as metrics.summarise() returns it."""
    heads = ("attack", "accuracy [95 % interval]", "AUC", "TPR at 1 %", "at 0.1 % FPR")
    rows = [
        (
            row.attack,
            f"{row.accuracy:.1%} [{row.accuracy_low:.1%}, {row.accuracy_high:.1%}]",
            f"{row.auc:.3f}",
            f"{row['tpr_at_fpr_0.01']:.2%}",
            f"{row['tpr_at_fpr_0.001']:.2%}",
        )
        for _, row in summary.iterrows()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]))


def roc_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str, log: bool, floor: float) -> Figure:
    """The ROC of every attack. curves: attack -> (fpr, tpr); floor: the smallest rate drawn on log axes."""
    figure = Figure(figsize=(5.2, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for place, (attack, (fpr, tpr)) in enumerate(curves.items()):
        style = STYLES[place // len(COLOURS) % len(STYLES)]
        axes.plot(fpr, tpr, style, color=COLOURS[place % len(COLOURS)], label=attack, drawstyle="steps-post", lw=1.6)
    low = floor if log else 0
    axes.plot([low, 1], [low, 1], color="0.6", lw=1, ls=(0, (4, 3)), label="guessing")
    if log:
        axes.set(xscale="log", yscale="log")
    axes.set(xlim=(low, 1), ylim=(low, 1), xlabel="false-positive rate", ylabel="true-positive rate")
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def histogram_figure(scores: Mapping[str, tuple[np.ndarray, np.ndarray, float]], *, title: str) -> Figure:
    """Members' and non-members' scores of every attack. scores: attack -> (members, non-members, threshold).

    The tails beyond the outer 0.5 % are gathered at the edges, so that one extreme sample does not flatten the rest."""
    figure = Figure(figsize=(4.2 * min(len(scores), 3), 2.8 * -(-len(scores) // 3)), dpi=150, layout="constrained")
    panels = figure.subplots(-(-len(scores) // 3), min(len(scores), 3), squeeze=False).ravel()
    for axes, (attack, (members, nonmembers, threshold)) in zip(panels, scores.items(), strict=False):
        low, high = np.quantile(np.concatenate([members, nonmembers]), [0.005, 0.995])
        bins = np.linspace(low, high if high > low else low + 1, 61)
        for values, name, colour in ((nonmembers, "non-members", COLOURS[0]), (members, "members", COLOURS[1])):
            axes.hist(np.clip(values, low, high), bins, color=colour, alpha=0.55, label=name)
        axes.axvline(threshold, color="black", lw=1, ls="--", label="threshold")
        axes.set_title(attack, fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("samples")
    panels[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def training_figure(logs: Mapping[str, pd.DataFrame], *, title: str) -> Figure:
    """Loss and accuracy by epoch: each target a line, the shadows a band from their smallest to their largest.

    logs: model name -> its log, as in result/<run>/train/*.csv."""
    figure = Figure(figsize=(8, 3), dpi=150, layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for colour, part in ((COLOURS[0], "train"), (COLOURS[1], "test")):
            column = f"{part}_{quantity}"
            shadows = pd.concat([log for name, log in logs.items() if name.startswith("shadow")])
            band = shadows.dropna(subset=column).groupby("epoch")[column].agg(["min", "max"])
            axes.fill_between(band.index, band["min"], band["max"], color=colour, alpha=0.25, lw=0)
            for name, log in logs.items():
                if name.startswith("target"):
                    drawn = log.dropna(subset=column)
                    label = f"{part}, target" if name == "target_00" else None
                    axes.plot(
                        drawn["epoch"], drawn[column], color=colour, lw=1.2, marker="." * (part == "test"), label=label
                    )
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(f"{title}; shaded: from the lowest to the highest shadow", fontsize=9)
    return figure
