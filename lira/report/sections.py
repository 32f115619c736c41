"""What each section of the report says: from Results to sentences, rows and cells."""

import numpy as np
import pandas as pd

from lira.attacks.registry import ATTACKS
from lira.report import text
from lira.report.plots import baseline
from lira.report.results import Results


def cell(value: str, below: str = "") -> dict:
    return {"value": value, "below": "" if below == "-" else below}


def line(name: str, cells: list[dict], *, strongest: bool = False) -> dict:
    return {"name": name, "cells": cells, "strongest": strongest}


# --- names -------------------------------------------------------------------------------------------------------


def privacy(identity: dict) -> str:
    if "max_grad_norm" not in identity:
        return "without differential privacy"
    noise = "target_epsilon" if identity.get("target_epsilon") else "sigma"
    said = {"target_epsilon": "target epsilon", "sigma": "noise multiplier"}[noise]
    return f"DP-SGD, {said} {identity.get(noise)}, clipping norm {identity['max_grad_norm']}"


def title(results: Results) -> str:
    identity = results.settings.get("identity")
    return f"{identity['network']} on {identity['dataset']}, {privacy(identity)}" if identity else results.name


def subtitle(results: Results) -> str:
    table = results.tables["attack.csv"]
    parts = [results.name, f"{text.plural(len(results.targets), 'target')}, {text.counts(table.shadows)} shadows"]
    models = results.target_models
    if len(models):
        parts.append(f"test accuracy {text.percent(models.test_accuracy.mean())}")
        parts.append(f"training accuracy {text.percent(models.train_accuracy.mean())}")
    return " · ".join(parts)


# --- the answer --------------------------------------------------------------------------------------------------


def answer(results: Results) -> dict:
    """The sentence, the ruler below it, and whose figure it is."""
    row, guessing = results.summary.loc[results.strongest], baseline(results)
    thing = "image" if results.settings or results.images else "sample"
    if np.isnan(row.accuracy):
        unknown = f"How often the attack is right about a {thing} cannot be said: its shadows give no threshold."
        said = {"before": unknown, "share": "", "interval": "", "after": ""}
    else:
        said = {
            "before": f"Given a {thing}, the attack is right in ",
            "share": text.percent(row.accuracy),
            "interval": text.interval(row.accuracy_low, row.accuracy_high),
            "after": f" of cases; {_bare(guessing)} is guessing.",
        }
    scale = ruler([(name, results.summary.loc[name]) for name in results.highlighted], guessing)
    return said | scale | {"lines": _whose(results, row, guessing)}


def _bare(value: float) -> str:
    """50% where it is exactly that."""
    return text.percent(value, 0) if float(f"{value:.2f}") == value else text.percent(value)


def _whose(results: Results, row: pd.Series, guessing: float) -> list[str]:
    several = f" over {row.n_targets} targets" if row.n_targets > 1 else ""
    lines = [
        f"The attack is “{row.attack}”, the one that the shadows’ own held-out scores call strongest; "
        f"{row.n_guesses:,} guesses{several}, with its threshold set on the shadows alone."
    ]
    if "lira" in results.summary.index and row.attack != "lira":
        lira = results.summary.loc["lira"]
        lines[0] += f" The attack as published, “lira”, is right in {text.with_interval(*accuracy(lira))}."
    if row.accuracy_low > guessing:
        lines.append("The interval lies above guessing: this training gives its members away.")
    elif not np.isnan(row.accuracy):
        lines.append(
            "The interval does not lie above guessing: at this threshold no leak was shown, which is no proof of none."
        )
    return lines


def accuracy(row: pd.Series) -> tuple[float, float, float]:
    return row.accuracy, row.accuracy_low, row.accuracy_high


def ruler(rows: list[tuple[str, pd.Series]], guessing: float) -> dict:
    """Accuracies on one scale that ends at 100 %, as parts of its width in percent: marks, ticks, guess."""
    known = [(label, row) for label, row in rows if not np.isnan(row.accuracy)]
    start = np.floor(min([0.5, *(row.accuracy_low for _, row in known)]) * 10) / 10

    def left(value: float) -> float:
        return round(100 * (value - start) / (1 - start), 2)

    marks = [
        {
            "text": label, "value": text.percent(row.accuracy), "left": left(row.accuracy),
            "low": left(row.accuracy_low), "width": round(left(row.accuracy_high) - left(row.accuracy_low), 2),
        }
        for label, row in known
    ]  # fmt: skip
    values = np.arange(round(start * 10), 11) / 10
    ticks = [{"left": left(value), "text": text.percent(value, 0)} for value in values]
    return {"marks": marks, "ticks": ticks, "guess": left(guessing)}


# --- epsilon -----------------------------------------------------------------------------------------------------


def epsilon(results: Results) -> dict:
    """The verdict of audit.csv, or why there is none."""
    table = results.tables.get("audit.csv")
    if table is None:
        lines = [f"No verdict. {results.missing['audit.csv']}", *_promise(results)]
        return {"lines": lines, "rows": [], "head": []}
    rows = [
        line(row.target, [
            cell(row.attack), cell(text.epsilon(row.epsilon_lower)), cell(text.epsilon(row.epsilon_upper)),
            cell(f"{row.delta:g}"), cell(f"{row.n_correct:,} of {row.n_guesses:,}", f"{row.n_audited:,} audited"),
        ])
        for row in table.itertuples()
    ]  # fmt: skip
    head = ["target", "attack", "epsilon at least", "at most", "delta", "right guesses"]
    return {"lines": _verdict(table), "rows": rows, "head": head}


def _verdict(table: pd.DataFrame) -> list[str]:
    known = table.dropna(subset="epsilon_lower")
    if not len(known):
        return ["No verdict: the members of these targets were not drawn in the way that the audit was told."]
    sure, several = f"{known.confidence.iloc[0]:.0%}", f", the median over {len(known)} targets" * (len(known) > 1)
    least = text.epsilon(known.epsilon_lower.median())
    lines = [f"At {sure} confidence the epsilon of this training is at least {least}{several}. "]
    if known.epsilon_lower.median() <= 0:
        lines[0] += "The audit shows no leak, which is no proof of none. "
    if several:
        lines[0] += "Each target’s bound holds by itself at that confidence, not all of them together."
    promised = known.dropna(subset="epsilon_upper")
    if not len(promised):
        return [*lines, "Training without differential privacy promises no upper bound."]
    most = f"{text.epsilon(promised.epsilon_upper.median())} at delta {promised.delta.iloc[0]:g}"
    lines.append(f"By the accountant it is at most {most}: each model’s promise, for its own training set.")
    for row in promised[promised.epsilon_lower > promised.epsilon_upper].itertuples():
        bounds = f"{text.epsilon(row.epsilon_lower)} or more, above the promised {text.epsilon(row.epsilon_upper)}"
        lines.append(f"Violation: {row.target} shows epsilon {bounds}. Its training is not as private as it says.")
    return lines


def _promise(results: Results) -> list[str]:
    spent = results.target_models.get("epsilon", pd.Series(dtype=float)).astype(float).max()
    return [] if np.isnan(spent) else [f"The accounting of the training promises at most {text.epsilon(spent)}."]


# --- the attacks -------------------------------------------------------------------------------------------------

HEAD = ["attack", "accuracy", "AUC", "TPR at 1 % FPR", "at 0.1 %", "at 0.01 %"]


def attacks(results: Results) -> dict:
    table = results.tables["attack.csv"]
    by_target = [
        line(f"{row.target}, {row.attack}", figures(row))
        for _, row in table.iterrows()
        if row.attack in results.highlighted
    ]
    return {
        "head": HEAD,
        "rows": [
            line(row.attack, figures(row), strongest=row.attack == results.strongest)
            for _, row in results.summary.iterrows()
        ],
        "note": _attacks_note(results),
        "target_head": ["target", *HEAD[1:]],
        "targets": by_target if len(results.targets) > 1 else [],
        "explained": [(name, ATTACKS[name].description if name in ATTACKS else "") for name in results.summary.index],
    }


RATES = ("0.01", "0.001", "0.0001")


def figures(row: pd.Series, rates: tuple[str, ...] = RATES) -> list[dict]:
    """The cells of one attack, from a row of summary_table(), attack.csv or classes.csv (which knows no rates)."""
    cells = [
        cell(text.percent(row.accuracy), text.interval(row.accuracy_low, row.accuracy_high)),
        cell(text.area(row.auc), text.areas(row.get("auc_low", np.nan), row.get("auc_high", np.nan))),
    ]
    for rate in rates:
        value, low, high = (row[f"tpr_at_fpr_{rate}{end}"] for end in ("", "_low", "_high"))
        cells.append(cell(text.rate(value, row[f"resolvable_at_{rate}"]), text.interval(low, high, 2)))
    return cells


def _attacks_note(results: Results) -> str:
    said = (
        f"★ strongest by the shadows’ own held-out scores; {text.counts(results.summary.n_guesses)} guesses an attack."
    )
    if not results.summary[[name for name in results.summary if name.startswith("resolvable_at_")]].all(axis=None):
        said += " † not resolvable with so few non-members: this is the TPR at FPR 0."
    table = results.tables["attack.csv"]
    for column, usual, words in (("convention", "lira", "{} convention"), ("queries", 1, "{} queries a sample")):
        if column in table and table[column].iloc[0] != usual:
            said += f" {words.format(table[column].iloc[0])}.".capitalize()
    return said


# --- how it was made ---------------------------------------------------------------------------------------------


def made(results: Results) -> list[tuple[str, str]]:
    """Command, settings, versions, seed, fingerprint, hours: what is known of them."""
    identity, provenance, own = (
        results.settings.get("identity", {}),
        results.settings.get("provenance", {}),
        results.made,
    )
    rows = [("trained by", provenance.get("command")), ("attacked by", own.get("command"))]
    rows += [("started", provenance.get("started")), ("attacked", own.get("started"))]
    shown = {name: value for name, value in identity.items() if name not in ("data_fingerprint", "n_train_is_default")}
    rows.append(("settings", ", ".join(f"{name} {value}" for name, value in shown.items())))
    if "exp_idx" in identity:
        rows.append(("seeds", f"every draw starts from (exp_idx {identity['exp_idx']}, role, index of the model)"))
    rows.append(("data", "; ".join(own.get("data", "").splitlines())))
    rows.append(("data fingerprint", identity.get("data_fingerprint")))
    hardware = [provenance.get("device"), provenance.get("threads") and text.plural(provenance["threads"], "thread")]
    rows.append(("device", ", ".join(filter(None, hardware))))
    versions = provenance | own.get("versions", {})
    known = ("python", "torch", "opacus", "numpy", "scipy", "scikit-learn")
    rows.append(("versions", ", ".join(f"{name} {versions[name]}" for name in known if name in versions)))
    models = results.tables.get("models.csv")
    if models is not None and len(models):
        hours = models.seconds.sum() / 3600
        rows.append(("training time", f"{hours:.2f} hours for {text.plural(len(models), 'model')}"))
    if "seconds" in own:
        rows.append(("attack time", f"{own['seconds']:.0f} seconds"))
    return [(name, str(value)) for name, value in rows if value]


def threat(results: Results) -> dict:
    therefore = THEREFORE if results.settings else f"{THEREFORE} {FROM_ELSEWHERE}"
    return {"knows": KNOWS, "ignorant": DOES_NOT_KNOW, "therefore": therefore}


# --- sentences that do not depend on the figures ---

KNOWS = (
    "which images might have been trained on, and their right labels",
    "data of the same kind that the target never saw, enough to train models of its own (the shadows)",
    "how the target was trained: network, optimizer, epochs, privacy settings",
    "the target's answers: its confidence in every class, as often as it likes",
)
DOES_NOT_KNOW = (
    "which of the images the target was trained on",
    "the target's weights, gradients or earlier states",
    "the rest of the target's training set",
)
THEREFORE = (
    "Someone who sees labels alone, or who cannot train models like this one, will usually do worse; someone who also "
    "knows the weights, or slips in images of their own before training, can do better. The figures hold for this "
    "training recipe and these samples, with the shadows as they are."
)
FROM_ELSEWHERE = "These scores came from elsewhere: whether this describes how they were made, their makers know."

READING = (
    ("attacks", "Table of attacks", "Accuracy is what an attacker reaches who sets the threshold on the shadows alone; "
     "AUC and TPR at FPR are drawn with the truth at hand: how well the scores sort members from non-members, and the "
     "share of members found while at most that share of non-members is accused. In brackets 95 % intervals, which "
     "take the shadows as given; over several targets the ends for AUC and TPR are means, as wide as for one target."),
    ("roc", "ROC", "Each point is a threshold: to the right, how many non-members are wrongly accused; upwards, how "
     "many members are found. On the dotted diagonal the attack guesses; what counts for privacy is how far the curve "
     "lies above it at the left edge. Crosses are 95 % intervals of both rates. Steps are raw, nothing is smoothed; "
     "several targets are averaged upwards."),
    ("histogram", "Score histograms", "The more the two outlines overlap, the less the model gives away. The dotted "
     "line is the threshold, set on the shadows; the outermost 2.5 % of scores are gathered at the edges."),
    ("curve", "Number of shadows", "A curve that still climbs on the right says that an attacker with more shadow "
     "models would do better than this page shows. Upright lines are 95 % intervals."),
    ("exposed", "Images", "Members that the attack is surest of, beside members that it takes for images "
     "never seen. Images that look unlike the rest of their class are usually the exposed ones."),
    ("classes", "Classes", "Each dot is how often the attack is right about the images of one class, with its 95 % "
     "interval; of many classes some lie far out by chance alone."),
    ("training", "Training curves", "A wide gap between training and test accuracy is learning by heart, which is what "
     "the attack feeds on. The lines are the targets; the bands reach from the lowest to the highest shadow. Training "
     "accuracy is the running one, over the batches of the epoch."),
)  # fmt: skip
