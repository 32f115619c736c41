"""What people look at: the table on the terminal and the figures. Draws numbers, computes none."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lira.attacks import Scored, Statistics
from lira.metrics import evaluate, pooled_accuracy, roc

# Okabe and Ito's palette: told apart by the colour-blind, and in print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#F0E442")
STYLES = ("-", "--", "-.", ":")


# --- tables --------------------------------------------------------------------------------------------------------


def attack_table(scored: Sequence[Scored], member: np.ndarray, *, queries: int, shadows: int) -> pd.DataFrame:
    """attack.csv: a row an attack and target. member: bool (M, N), the truth of every row that was attacked."""
    return pd.DataFrame(
        {"attack": one.attack, "target": one.target, "convention": "lira", "queries": queries, "shadows": shadows}
        | evaluate(one.score, member[one.target], threshold=one.threshold)
        for one in scored
    )


def samples_table(
    scored: Sequence[Scored], phi: np.ndarray, member: np.ndarray, label: np.ndarray, *, n_targets: int
) -> pd.DataFrame:
    """samples.csv: a row a target and sample, with what the shadows say of it and each attack's score and decision.

    phi: float (M, N, A), of which the table shows the mean over queries; member: bool (M, N); label: int64 (N,)."""
    phi = phi.mean(axis=2, dtype=np.float64)
    known = Statistics.from_shadows(phi[n_targets:], member[n_targets:])
    tables = []
    for target in range(n_targets):
        columns = {"target": target, "sample": np.arange(len(label)), "label": label, "member": member[target]}
        columns |= {"phi": phi[target]}
        for side in ("in", "out"):
            columns[f"mean_{side}"] = getattr(known, f"mean_{side}")[:, 0]
            columns[f"std_{side}"] = np.sqrt(getattr(known, f"var_{side}")[:, 0])
        for one in scored:
            if one.target == target:
                columns |= {one.attack: one.score, f"{one.attack}_decision": one.score >= one.threshold}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def terminal_summary(table: pd.DataFrame, models: pd.DataFrame, *, n_targets: int) -> str:
    """The last lines on the screen, narrow enough for 80 columns. table: attack.csv; models: models.csv."""
    targets = models[models.role == "target"].test_accuracy.iloc[:n_targets]
    several = f" over {n_targets} targets" if n_targets > 1 else ""
    heads = ("attack", "accuracy [95 % interval]", "AUC", "TPR at 1 %", "at 0.1 % FPR")
    rows = [heads]
    for attack, group in table.groupby("attack", sort=False):
        scored = group.n_members + group.n_nonmembers
        accuracy, low, high = pooled_accuracy((group.accuracy * scored).round(), scored)
        tpr = group["tpr_at_fpr_0.01"].mean(), group["tpr_at_fpr_0.001"].mean()
        interval = f"{accuracy:.1%} [{low:.1%}, {high:.1%}]"
        rows.append((attack, interval, f"{group.auc.mean():.3f}", f"{tpr[0]:.2%}", f"{tpr[1]:.2%}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    n_samples = int(scored.sum())
    return "\n".join(
        [
            f"test accuracy {targets.mean():.1%}{several}; {n_samples:,} guesses an attack, 50 % is guessing",
            lines[0],
            rule,
            *lines[1:],
        ]
    )


# --- figures -------------------------------------------------------------------------------------------------------


def figures(
    scored: Sequence[Scored], member: np.ndarray, logs: Mapping[str, pd.DataFrame], *, title: str
) -> dict[str, Figure]:
    """File name -> figure. Scores of several targets are drawn as one sample."""
    curves, scores = {}, {}
    for attack in dict.fromkeys(one.attack for one in scored):
        own = [one for one in scored if one.attack == attack]
        score, truth = np.concatenate([one.score for one in own]), np.concatenate([member[one.target] for one in own])
        curves[attack] = roc(score, truth)[:2]
        scores[attack] = (score[truth], score[~truth], np.mean([one.threshold for one in own]))
    floor = 1 / max(10, min(len(part) for part in scores[attack][:2]))
    result = {
        "roc_log.png": roc_figure(curves, title=title, log=True, floor=floor),
        "roc_linear.png": roc_figure(curves, title=title, log=False, floor=floor),
        "histogram.png": histogram_figure(scores, title=title),
    }
    if logs:
        result["training.png"] = training_figure(logs, title=title)
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
        axes.legend(fontsize=8)
    figure.suptitle(f"{title}; shaded: from the lowest to the highest shadow", fontsize=9)
    return figure
