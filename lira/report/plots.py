"""Which figures a run has: each is one row of PLOTS, with its panels and its text on the page."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from lira.attacks.exposed import calibration_error, reliability_bins
from lira.attacks.tables import classes_outside, curve_summary
from lira.report import figures, text
from lira.report.figures import Panel
from lira.report.results import Results, exposed_members

MAX_CLASSES = 24  # of more, the figure has the most and the least exposed; the table of the page has all


def plots(results: Results) -> dict[str, list[Panel]]:
    """Name of a figure -> its panels, without the figures whose files are missing."""
    return {plot.name: panels for plot in PLOTS if (panels := plot.panels(results))}


def min_rate(results: Results) -> float:
    """Where logarithmic axes start: the rate of one sample among a target's members or non-members."""
    table = results.tables["attack.csv"]
    return 1 / max(10, int(table[["n_members", "n_nonmembers"]].min(axis=1).max()))


def intervals(row: pd.Series) -> list[tuple[float, ...]]:
    """The points of one attack's ROC whose intervals figures.roc() draws: the rates that the samples resolve."""
    resolved = [rate for rate in text.RATES if row[f"resolvable_at_{rate}"]]
    return [(float(rate), *(row[f"tpr_at_fpr_{rate}{end}"] for end in ("", "_low", "_high"))) for rate in resolved]


def square_size(n_rows: int) -> tuple[float, float]:
    """Inches of a square figure with so many rows of legend below it."""
    return 4.6, 4.25 + 0.19 * n_rows


def _roc(results: Results, *, log: bool) -> list[Panel]:
    summary = results.summary
    curves = {attack: curve for attack in summary.index if (curve := results.roc(attack))}
    if not curves:
        return []
    rows = {attack: summary.loc[attack] for attack in curves}
    tpr = [f"{name} {text.rate(row['tpr_at_fpr_0.01'], row['resolvable_at_0.01'])}" for name, row in rows.items()]
    alt = f"ROC on {'logarithmic' if log else 'linear'} axes. TPR at 1 % FPR: {', '.join(tpr)}; guessing 1 %."
    points = {attack: intervals(summary.loc[attack]) for attack in results.highlighted} if log else {}
    low = min_rate(results) if log else None
    draw = partial(figures.roc, curves=curves, intervals=points, labelled=results.labelled, min_rate=low)
    n_rows = -(-len(set(curves) - set(results.labelled)) // 3)
    return [Panel(draw, alt, square_size(n_rows))]


def _histograms(results: Results) -> list[Panel]:
    """One panel per attack, the highlighted ones first: the page has only these."""
    attacks = [*results.highlighted, *(name for name in results.summary.index if name not in results.highlighted)]
    if not any(map(results.scores, attacks)):
        return []
    table, panels = results.tables["attack.csv"], list[Panel]()
    for attack in attacks:
        pairs = results.scores(attack) or [(np.empty(0), np.empty(0, dtype=bool))]
        score, member = map(np.concatenate, zip(*pairs, strict=True))
        members, nonmembers = score[member], score[~member]
        medians = [text.number(np.median(part), ".3g") if len(part) else "-" for part in (members, nonmembers)]
        thresholds = table[table.attack == attack].threshold
        alt = f"Scores of {attack}: the median is {medians[0]} for members and {medians[1]} for non-members; "
        alt += f"threshold {text.number(thresholds.mean(), '.3g')}{' on average' if len(thresholds) > 1 else ''}."
        draw = partial(figures.histogram, attack=attack, members=members, nonmembers=nonmembers, thresholds=thresholds)
        panels.append(Panel(partial(draw, with_legend=not panels), alt, (4.6, 3.0)))
    return panels


def _curves(results: Results) -> list[Panel]:
    table = results.tables.get("curve.csv")
    if table is None:
        return []
    summary = curve_summary(table)
    points = {attack: summary[summary.attack == attack] for attack in table.attack.unique()}
    panels = []
    for column, name in (("accuracy", "attack accuracy"), ("tpr_at_fpr_0.01", "TPR at 1 % FPR")):
        values = [
            f"{attack} " + ", ".join(f"{text.percent(row[column])} at {row.shadows}" for _, row in rows.iterrows())
            for attack, rows in points.items()
            if attack in results.highlighted
        ]
        alt = f"{name[0].upper()}{name[1:]} against the number of shadow models: {'; '.join(values)}."
        draw = partial(figures.curve, points=points, column=column, name=name, labelled=results.labelled)
        panels.append(Panel(draw, alt))
    draw = partial(figures.curve_legend, attacks=points, labelled=results.labelled)
    size = (4.6, 0.3 + 0.2 * -(-len(points) // 3))
    return [*panels, Panel(draw, f"Colours of the {len(points)} attacks in both figures.", size, is_legend=True)]


def _exposed(results: Results) -> list[Panel]:
    rows = [
        [
            (results.images[row.sample], f"{figures.shorten(results.class_name(row.label), 12)}\n{row.score:.3g}")
            for row in members.itertuples()
            if row.sample in results.images
        ]
        for members in exposed_members(results.tables)
    ]
    if not any(rows):
        return []
    titles = [f"{side} exposed members of {results.targets[0]}, {results.strongest}" for side in ("most", "least")]
    size = (max(5, 0.62 * max(map(len, rows))), 2.4)
    return [Panel(partial(figures.exposed, rows=rows, titles=titles), "; ".join(titles), size)]


def _reliability(results: Results) -> list[Panel]:
    shadows, samples = results.tables.get("reliability.csv"), results.exposure
    if shadows is None or samples is None:
        return []
    name = "targets" if len(results.targets) > 1 else "target"
    curves = {
        name: reliability_bins(samples.p_member.to_numpy(), samples.member.to_numpy()),
        "held-out shadows": shadows,
    }
    errors = {name: calibration_error(bins) for name, bins in curves.items()}
    alt = "Share of members among samples of a p_member; mean distance from it: "
    alt += f"{', '.join(f'{name} {error:.3f}' for name, error in errors.items())}."
    return [Panel(partial(figures.reliability, curves=curves, errors=errors), alt, square_size(2))]


def classes_table(results: Results) -> pd.DataFrame | None:
    """The rows of classes.csv for the strongest attack, the most exposed class first."""
    table = results.tables.get("classes.csv")
    if table is None:
        return None
    scored = table[(table.attack == results.strongest) & (table.n_guesses > 0)]
    return scored.sort_values("accuracy", ascending=False, kind="stable")


def _classes(results: Results) -> list[Panel]:
    table = classes_table(results)
    if table is None or len(table) < 2:
        return []
    most, least = table.iloc[0], table.iloc[-1]
    alt = f"Accuracy of {results.strongest} by class: from {most['class']} {text.percent(most.accuracy)} "
    alt += f"to {least['class']} {text.percent(least.accuracy)}."
    n_left_out = max(0, len(table) - MAX_CLASSES)
    if n_left_out:
        alt += f" {n_left_out} classes between are left out."
        table = pd.concat([table.iloc[: MAX_CLASSES // 2], table.iloc[-MAX_CLASSES // 2 :]])
    draw = partial(figures.classes, table=table, guessing=results.guessing, n_left_out=n_left_out)
    draw = partial(draw, overall=results.summary.loc[results.strongest].accuracy)
    return [Panel(draw, alt, (4.6, 1.1 + 0.24 * (len(table) + 2 * bool(n_left_out))))]


def words(results: Results) -> dict[str, str]:
    """What stands in braces in the titles and captions of PLOTS."""
    attacks = {"labelled": text.listed(results.labelled), "bold": text.listed(results.highlighted)}
    return attacks | {"strongest": results.strongest, "noun": results.noun, "by_chance": _by_chance(results)}


def _by_chance(results: Results) -> str:
    """How many classes lie outside the accuracy of all, and how many would by chance."""
    table = classes_table(results)
    if table is None or len(table) < 2:
        return ""
    outside, expected = classes_outside(table, results.summary.loc[results.strongest].accuracy)
    return (
        f"The intervals of {outside} of {len(table)} classes miss the accuracy of all classes; were all alike, about "
        f"{expected:.3g} would by chance."
    )


def _training(results: Results) -> list[Panel]:
    if not results.logs:
        return []
    panels: list[Panel] = []
    for quantity, number in (("accuracy", text.percent), ("loss", "{:.3f}".format)):
        ends = []
        for role in ("target", "shadow"):
            rows = [log.iloc[-1] for name, log in results.logs.items() if name.startswith(role) and len(log)]
            for part in ("train", "test") if rows else ():
                values = pd.Series([row[f"{part}_{quantity}"] for row in rows], dtype=float)
                span = " to ".join(dict.fromkeys((number(values.min()), number(values.max()))))
                ends.append(f"{role}s {part} {span}")
        alt = f"{quantity.capitalize()} by epoch; at the end: {', '.join(ends)}."
        draw = partial(figures.training, logs=results.logs, quantity=quantity, with_legend=not panels)
        panels.append(Panel(draw, alt))
    return panels


@dataclass(frozen=True)
class Plot:
    """One figure: <name>.png and <name>.pdf in result/<run>/ and, with a title, the section <name> of the page.

    panels: [] where the files do not allow the figure; needs: the files of result/<run>/ that it is drawn from;
    columns: of panels in the PNG and PDF; title, caption: with the words() of the run in braces; caption_over_targets:
    added where there are several targets; reading: how to read it; n_on_page: panels on the page, None for all."""

    name: str
    panels: Callable[[Results], list[Panel]]
    needs: tuple[str, ...] = ("samples.csv",)
    columns: int = 2
    title: str = ""
    caption: str = ""
    caption_over_targets: str = ""
    reading: str = ""
    n_on_page: Callable[[Results], int | None] = lambda results: None


PLOTS = (
    Plot(
        "roc_log",
        partial(_roc, log=True),
        title="ROC on logarithmic axes",
        caption="In colour: {labelled}; of {bold} with 95 % intervals where the samples resolve them.",
        caption_over_targets=" Mean over the targets.",
        reading="Each point is a threshold: to the right, the share of non-members taken for members; upwards, the "
        "share of members identified. The dotted diagonal is guessing; what matters for privacy is how far the curve "
        "lies above it at the left edge. Vertical lines are 95 % intervals of the TPR at that FPR, the errors of the "
        "threshold and of the models included. Steps are raw, nothing is smoothed; "
        "over several targets it is the mean TPR at each FPR.",
    ),
    Plot("roc_linear", partial(_roc, log=False)),
    Plot(
        "histogram",
        _histograms,
        columns=3,
        title="Scores of members and non-members",
        caption=f"Scores of the target samples; the outermost {100 * figures.TAIL:g} % on either side are counted in "
        "the outermost bins.",
        caption_over_targets=" All targets together.",
        reading="The more the two outlines overlap, the less the model reveals. The dotted line is the threshold, "
        "fitted on the shadows.",
        n_on_page=lambda results: len(results.highlighted),
    ),
    Plot(
        "curve",
        _curves,
        needs=("curve.csv",),
        title="Accuracy against the number of shadows",
        caption="In colour: {labelled}, with 95 % intervals.",
        caption_over_targets=" All targets together.",
        reading="Where a curve still rises at its right end, an attacker with more shadow models would do better than "
        "this page says. Vertical lines are 95 % intervals.",
    ),
    Plot(
        "exposed",
        _exposed,
        needs=("samples.csv", "images.npz"),
        title="The most and the least exposed {noun}s",
        reading="The members with the highest scores beside those with the lowest, which look most like "
        "non-members to the attack. Those that are unlike the rest of their class are usually the exposed ones.",
        n_on_page=lambda results: 0,  # the page has the images themselves, with a text for each
    ),
    Plot(
        "reliability",
        _reliability,
        needs=("reliability.csv",),
        title="How far p_member can be trusted",
        caption="p_member of {strongest}.",
        caption_over_targets=" All targets together.",
        reading="To the right p_member, in 15 bins; upwards, the share of members among the samples of a bin, with its "
        "95 % interval over the samples, the models taken as given. On the dotted diagonal the probabilities are "
        "right. Those of the targets come from the held-out shadows alone, those of the shadows from other shadows: "
        "where only the targets leave the diagonal, they differ from the shadows, which share training images. "
        "ECE, the expected calibration error, is the mean distance from the diagonal over the samples; where they are "
        "few, chance alone keeps it above 0.",
    ),
    Plot(
        "classes",
        _classes,
        needs=("classes.csv",),
        title="Exposure by class",
        caption="Accuracy of {strongest} on the samples of each class. {by_chance}",
        reading="Each dot is the attack accuracy on one class, with its 95 % interval over the samples of the class, "
        "the models taken as given. Of classes that are all alike, one in twenty intervals misses the accuracy of all "
        "classes by chance.",
    ),
    Plot(
        "training",
        _training,
        needs=("train/*.csv",),
        title="Training curves",
        caption="Lines: the targets. Bands: from the lowest to the highest shadow.",
        reading="A wide gap between training and test accuracy is overfitting, which the attack exploits. The lines "
        "are the targets; the bands range from the lowest to the highest shadow. Training accuracy is the running one, "
        "over the batches of the epoch.",
    ),
)
