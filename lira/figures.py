"""The figures. Statistics come from elsewhere."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lira.attacks import Scored
from lira.evidence import Evidence
from lira.metrics import roc

# Okabe and Ito's palette, its yellow and grey replaced by two of Tol's: told apart by the colour-blind, and in print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#999933")
STYLES = ("-", "--", "-.", ":")


def figures(
    scored: Sequence[Scored], evidence: Evidence, logs: Mapping[str, pd.DataFrame], strongest: str, *, title: str
) -> dict[str, Figure]:
    """File name -> figure. Scores of several targets are drawn as one sample.

    Samples without a score are left out; an attack left without members or without non-members has no ROC."""
    curves, scores = {}, {}
    for attack in dict.fromkeys(one.attack for one in scored):
        own = [one for one in scored if one.attack == attack]
        score = np.concatenate([one.score for one in own])
        truth = np.concatenate([evidence.member[one.target] for one in own])[~np.isnan(score)]
        score = score[~np.isnan(score)]
        if truth.any() and not truth.all():
            curves[attack] = roc(score, truth)[:2]
        scores[attack] = (score[truth], score[~truth], np.mean([one.threshold for one in own]))
    floor = 1 / max([10, *(min(map(len, scores[attack][:2])) for attack in curves)])
    result = {
        "roc_log.png": roc_figure(curves, title=title, log=True, floor=floor),
        "roc_linear.png": roc_figure(curves, title=title, log=False, floor=floor),
        "histogram.png": histogram_figure(scores, title=title),
    }
    if logs:
        result["training.png"] = training_figure(logs, title=title)
    if evidence.pictures is not None:
        best = next(one for one in scored if one.attack == strongest and one.target == 0)
        result["exposed.png"] = most_exposed_figure(best, evidence, title=title)
    return result


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

    The tails beyond the outer 1 % are gathered at the edges, so that one extreme sample does not flatten the rest."""
    figure = Figure(figsize=(4.2 * min(len(scores), 3), 2.8 * -(-len(scores) // 3)), dpi=150, layout="constrained")
    panels = figure.subplots(-(-len(scores) // 3), min(len(scores), 3), squeeze=False).ravel()
    for axes, (attack, (members, nonmembers, threshold)) in zip(panels, scores.items(), strict=False):
        if not len(members) + len(nonmembers):
            axes.set_title(f"{attack}: no scores", fontsize=9)
            continue
        low, high = np.quantile(np.concatenate([members, nonmembers]), [0.01, 0.99])
        bins = np.linspace(low, high if high > low else low + 1, 61)
        for values, name, colour in ((nonmembers, "non-members", COLOURS[0]), (members, "members", COLOURS[1])):
            axes.hist(np.clip(values, low, high), bins, color=colour, alpha=0.55, label=name)
        if not np.isnan(threshold):
            axes.axvline(threshold, color="black", lw=1, ls="--", label="threshold")
        axes.set_xlim(bins[0], bins[-1])
        outside = "" if bins[0] <= threshold <= bins[-1] else f" (threshold {threshold:.3g})"
        axes.set_title(f"{attack}{outside}", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("samples")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def curve_figure(curve: pd.DataFrame, *, title: str) -> Figure:
    """AUC and TPR at 1 % FPR against the number of shadows, means over the targets. curve: as in curve.csv."""
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (column, name) in zip(panels, (("auc", "AUC"), ("tpr_at_fpr_0.01", "TPR at 1 % FPR")), strict=True):
        for place, (attack, group) in enumerate(curve.groupby("attack", sort=False)):
            mean = group.groupby("shadows")[column].mean()
            style = STYLES[place // len(COLOURS) % len(STYLES)]
            axes.plot(mean.index, mean, "o" + style, ms=3, color=COLOURS[place % len(COLOURS)], label=attack)
        axes.set(xscale="log", xlabel="shadow models", ylabel=name)
        axes.set_xticks(sorted(curve.shadows.unique()), labels=map(str, sorted(curve.shadows.unique())), minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def most_exposed_figure(scored: Scored, evidence: Evidence, *, title: str) -> Figure:
    """The members that the attack is surest of, first those with the highest scores."""
    rows, columns = 4, 8
    members = np.flatnonzero(evidence.member[scored.target] & ~np.isnan(scored.score))
    shown = members[np.argsort(-scored.score[members], kind="stable")][: rows * columns]
    figure = Figure(figsize=(1.3 * columns, 1.6 * rows + 0.3), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, sample in zip(panels, shown, strict=False):
        picture = evidence.pictures[sample].transpose(1, 2, 0).squeeze()
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        caption = f"{evidence.class_names[evidence.label[sample]]}\n#{sample}: {scored.score[sample]:.3g}"
        axes.set_title(caption, fontsize=7, parse_math=False)
    figure.suptitle(f"most exposed members of {evidence.names[scored.target]}, {scored.attack}; {title}", fontsize=9)
    return figure


def training_figure(logs: Mapping[str, pd.DataFrame], *, title: str) -> Figure:
    """Loss and accuracy by epoch: each target a line, the shadows a band from their smallest to their largest.

    logs: model name -> its log, as in result/<run>/train/*.csv."""
    figure = Figure(figsize=(8, 3), dpi=150, layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for colour, part in ((COLOURS[0], "train"), (COLOURS[1], "test")):
            column = f"{part}_{quantity}"
            shadows = [log for name, log in logs.items() if name.startswith("shadow")]
            if shadows:
                band = pd.concat(shadows).dropna(subset=column).groupby("epoch")[column].agg(["min", "max"])
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
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.suptitle(f"{title}; shaded: from the lowest to the highest shadow", fontsize=9)
    return figure
