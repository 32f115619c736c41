"""Which figures a run has, with what they show in words: from Results to panels."""

from functools import partial

import numpy as np
import pandas as pd

from lira.attacks.tables import summary_table
from lira.report import figures, text
from lira.report.figures import Panel
from lira.report.results import Results

ROC_SIZE = (4.6, 5.0)
MAX_CLASSES = 24  # of more, the most and the least exposed are drawn; the table of the page has all
RATES = ("0.01", "0.001", "0.0001")


def plots(results: Results) -> dict[str, list[Panel]]:
    """Name of a figure -> its panels. What the files on disk do not allow is left out."""
    found = {
        "roc_log": _roc(results, log=True),
        "roc_linear": _roc(results, log=False),
        "histogram": _histograms(results),
        "curve": _curves(results),
        "exposed": _exposed(results),
        "classes": _classes(results),
        "training": _training(results),
    }
    return {name: panels for name, panels in found.items() if panels}


# --- ROC ---------------------------------------------------------------------------------------------------------


def floor(results: Results) -> float:
    """The smallest rate on log axes: one of the non-members of a target."""
    table = results.tables["attack.csv"]
    return 1 / max(10, int(table[["n_members", "n_nonmembers"]].min(axis=1).max()))


def bars(row: pd.Series) -> list[tuple]:
    """The points of one attack that have intervals, as figures.roc() draws them: those that the samples resolve."""
    keys = ("fpr_at_{}", "fpr_at_{}_low", "fpr_at_{}_high", "tpr_at_fpr_{}", "tpr_at_fpr_{}_low", "tpr_at_fpr_{}_high")
    return [tuple(row[key.format(rate)] for key in keys) for rate in RATES if row[f"resolvable_at_{rate}"]]


def _roc(results: Results, *, log: bool) -> list[Panel]:
    curves = {attack: results.roc(attack) for attack in results.summary.index}
    curves = {attack: curve for attack, curve in curves.items() if curve}
    if not curves:
        return []
    points = {attack: bars(results.summary.loc[attack]) for attack in results.highlighted} if log else {}
    found = ", ".join(
        f"{row.attack} {text.rate(row['tpr_at_fpr_0.01'], row['resolvable_at_0.01'])}"
        for _, row in results.summary.iterrows()
        if row.attack in curves
    )
    alt = f"ROC on {'logarithmic' if log else 'linear'} axes. Members found at a false-positive rate of 1 %: {found}; "
    low = floor(results) if log else None
    draw = partial(figures.roc, curves=curves, bars=points, highlighted=results.highlighted, floor=low)
    return [Panel(draw, alt + "guessing finds 1 %.", ROC_SIZE)]


# --- scores ------------------------------------------------------------------------------------------------------


def _histograms(results: Results) -> list[Panel]:
    """The marked attacks first: the page shows these."""
    table, panels = results.tables["attack.csv"], []
    order = [*results.highlighted, *(name for name in results.summary.index if name not in results.highlighted)]
    for attack in order if results.scores(order[0]) or results.scores(order[-1]) else []:
        pairs = results.scores(attack) or [(np.empty(0), np.empty(0, dtype=bool))]
        score, truth = map(np.concatenate, zip(*pairs, strict=True))
        middle = [text.score(np.median(part)) if len(part) else "-" for part in (score[truth], score[~truth])]
        cuts = table[table.attack == attack].threshold
        alt = f"Scores of {attack}: the median is {middle[0]} for members and {middle[1]} for non-members; "
        alt += f"threshold {text.score(cuts.mean())}" + " on average" * (len(cuts) > 1) + "."
        draw = partial(figures.histogram, attack=attack, members=score[truth], others=score[~truth], thresholds=cuts)
        panels.append(Panel(draw, alt, (4.6, 3.0)))
    return panels


# --- number of shadows -------------------------------------------------------------------------------------------


def _curves(results: Results) -> list[Panel]:
    if "curve.csv" not in results.tables:
        return []
    table = results.tables["curve.csv"]
    by_size = [summary_table(part).assign(shadows=size) for size, part in table.groupby("shadows")]
    whole = pd.concat(by_size)
    points = {attack: whole[whole.attack == attack] for attack in table.attack.unique()}
    panels = []
    for column, name in (("accuracy", "attack accuracy"), ("tpr_at_fpr_0.01", "TPR at 1 % FPR")):
        shown = [
            f"{attack} " + ", ".join(f"{text.percent(row[column])} at {row.shadows}" for _, row in part.iterrows())
            for attack, part in points.items()
            if attack in results.highlighted
        ]
        alt = f"{name[0].upper()}{name[1:]} against the number of shadow models: {'; '.join(shown)}."
        draw = partial(figures.curve, points=points, column=column, name=name, highlighted=results.highlighted)
        panels.append(Panel(draw, alt, (4.6, 4.0)))
    return panels


# --- images and classes ----------------------------------------------------------------------------------------


def _exposed(results: Results) -> list[Panel]:
    rows = [
        [
            (results.images[row.sample], f"{figures.short(results.class_name(row.label), 12)}\n{row.score:.3g}")
            for row in part.itertuples()
            if row.sample in results.images
        ]
        for part in results.exposed()
    ]
    if not any(rows):
        return []
    names = [f"{kind} exposed members of {results.targets[0]}, {results.strongest}" for kind in ("most", "least")]
    size = (max(5, 0.62 * max(map(len, rows))), 2.4)
    return [Panel(partial(figures.exposed, rows=rows, names=names), names[0] + "; " + names[1], size)]


def classes_table(results: Results) -> pd.DataFrame | None:
    """The rows of classes.csv that the strongest attack has, most exposed first."""
    table = results.tables.get("classes.csv")
    if table is None:
        return None
    own = table[(table.attack == results.strongest) & (table.n_guesses > 0)]
    return own.sort_values("accuracy", ascending=False, kind="stable")


def baseline(results: Results) -> float:
    """How often who knows only the share of members is right: the larger share."""
    counts = results.tables["attack.csv"][["n_members", "n_nonmembers"]].sum()
    return counts.max() / counts.sum()


def _classes(results: Results) -> list[Panel]:
    table = classes_table(results)
    if table is None or len(table) < 2:
        return []
    most, least = table.iloc[0], table.iloc[-1]
    alt = f"Accuracy of {results.strongest} by class: from {most['class']} {text.percent(most.accuracy)} "
    alt += f"to {least['class']} {text.percent(least.accuracy)}."
    if len(table) > MAX_CLASSES:
        table = pd.concat([table.iloc[: MAX_CLASSES // 2], table.iloc[-MAX_CLASSES // 2 :]])
    draw = partial(figures.classes, table=table, baseline=baseline(results))
    return [Panel(draw, alt, (4.6, 0.9 + 0.24 * len(table)))]


# --- training ----------------------------------------------------------------------------------------------------


def _training(results: Results) -> list[Panel]:
    panels = []
    for quantity in ("accuracy", "loss") if results.logs else ():
        write = text.percent if quantity == "accuracy" else "{:.3f}".format
        ends = {
            role: [log.iloc[-1] for name, log in results.logs.items() if name.startswith(role) and len(log)]
            for role in ("target", "shadow")
        }
        said = []
        for role, rows in ends.items():
            for part in ("train", "test") if rows else ():
                values = pd.Series([row[f"{part}_{quantity}"] for row in rows], dtype=float)
                span = " to ".join(dict.fromkeys((write(values.min()), write(values.max()))))
                said.append(f"{role}s {part} {span}")
        alt = f"{quantity.capitalize()} by epoch; at the end: {', '.join(said)}."
        panels.append(Panel(partial(figures.training, logs=results.logs, quantity=quantity), alt))
    return panels
