"""What each section of the report says: from Results to sentences, rows and cells."""

import numpy as np
import pandas as pd

from lira import numbers, words
from lira.attacks import ATTACKS
from lira.plots import baseline
from lira.results import Results


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
    parts = [results.name, f"{numbers.plural(len(results.targets), 'target')}, {numbers.counts(table.shadows)} shadows"]
    models = target_models(results)
    if len(models):
        parts.append(f"test accuracy {numbers.percent(models.test_accuracy.mean())}")
        parts.append(f"training accuracy {numbers.percent(models.train_accuracy.mean())}")
    return " · ".join(parts)


def target_models(results: Results) -> pd.DataFrame:
    """The rows of models.csv that were attacked."""
    models = results.tables.get("models.csv", pd.DataFrame(columns=["role"]))
    return models[models.role == "target"].iloc[: len(results.targets)]


# --- the answer --------------------------------------------------------------------------------------------------


def answer(results: Results) -> dict:
    """The sentence, the ruler below it, and whose figure it is."""
    row, guessing = results.summary.loc[results.strongest], baseline(results)
    thing = "picture" if results.settings or results.pictures else "sample"
    if np.isnan(row.accuracy):
        unknown = f"How often the attack is right about a {thing} cannot be said: its shadows give no threshold."
        said = {"before": unknown, "share": "", "interval": "", "after": ""}
    else:
        said = {
            "before": f"Given a {thing}, the attack is right in ",
            "share": numbers.percent(row.accuracy),
            "interval": numbers.interval(row.accuracy_low, row.accuracy_high),
            "after": f" of cases; {_bare(guessing)} is guessing.",
        }
    scale = ruler([(name, results.summary.loc[name]) for name in results.marked], guessing)
    return said | scale | {"lines": _whose(results, row, guessing)}


def _bare(value: float) -> str:
    """50% where it is exactly that."""
    return numbers.percent(value, 0) if float(f"{value:.2f}") == value else numbers.percent(value)


def _whose(results: Results, row: pd.Series, guessing: float) -> list[str]:
    several = f" over {row.targets} targets" if row.targets > 1 else ""
    lines = [
        f"The attack is “{row.attack}”, the one that the shadows’ own left-out scores call strongest; "
        f"{row.guesses:,} guesses{several}, with its threshold set on the shadows alone."
    ]
    if "lira" in results.summary.index and row.attack != "lira":
        lira = results.summary.loc["lira"]
        lines[0] += f" The attack as published, “lira”, is right in {numbers.with_interval(*accuracy(lira))}."
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
    known = [(text, row) for text, row in rows if not np.isnan(row.accuracy)]
    start = np.floor(min([0.5, *(row.accuracy_low for _, row in known)]) * 10) / 10

    def left(value: float) -> float:
        return round(100 * (value - start) / (1 - start), 2)

    marks = [
        {
            "text": text, "value": numbers.percent(row.accuracy), "left": left(row.accuracy),
            "low": left(row.accuracy_low), "width": round(left(row.accuracy_high) - left(row.accuracy_low), 2),
        }
        for text, row in known
    ]  # fmt: skip
    values = np.arange(round(start * 10), 11) / 10
    ticks = [{"left": left(value), "text": numbers.percent(value, 0)} for value in values]
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
            cell(row.attack), cell(numbers.epsilon(row.epsilon_lower)), cell(numbers.epsilon(row.epsilon_upper)),
            cell(f"{row.delta:g}"), cell(f"{row.right:,} of {row.guesses:,}", f"{row.audited:,} audited"),
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
    least = numbers.epsilon(known.epsilon_lower.median())
    lines = [f"At {sure} confidence the epsilon of this training is at least {least}{several}. "]
    if known.epsilon_lower.median() <= 0:
        lines[0] += "The audit shows no leak, which is no proof of none. "
    if several:
        lines[0] += "Each target’s bound holds by itself at that confidence, not all of them together."
    promised = known.dropna(subset="epsilon_upper")
    if not len(promised):
        return [*lines, "Training without differential privacy promises no upper bound."]
    most = f"{numbers.epsilon(promised.epsilon_upper.median())} at delta {promised.delta.iloc[0]:g}"
    lines.append(f"By the accountant it is at most {most}: each model’s promise, for its own training set.")
    for row in promised[promised.epsilon_lower > promised.epsilon_upper].itertuples():
        bounds = (
            f"{numbers.epsilon(row.epsilon_lower)} or more, above the promised {numbers.epsilon(row.epsilon_upper)}"
        )
        lines.append(f"Violation: {row.target} shows epsilon {bounds}. Its training is not as private as it says.")
    return lines


def _promise(results: Results) -> list[str]:
    spent = target_models(results).get("epsilon", pd.Series(dtype=float)).astype(float).max()
    return [] if np.isnan(spent) else [f"The accounting of the training promises at most {numbers.epsilon(spent)}."]


# --- the attacks -------------------------------------------------------------------------------------------------

HEAD = ["attack", "accuracy", "AUC", "TPR at 1 % FPR", "at 0.1 %", "at 0.01 %"]


def attacks(results: Results) -> dict:
    table = results.tables["attack.csv"]
    by_target = [
        line(f"{row.target}, {row.attack}", figures(row)) for _, row in table.iterrows() if row.attack in results.marked
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
        "explained": [(name, ATTACKS[name].about if name in ATTACKS else "") for name in results.summary.index],
    }


RATES = ("0.01", "0.001", "0.0001")


def figures(row: pd.Series, rates: tuple[str, ...] = RATES) -> list[dict]:
    """The cells of one attack, from a row of summary_table(), attack.csv or classes.csv (which knows no rates)."""
    cells = [
        cell(numbers.percent(row.accuracy), numbers.interval(row.accuracy_low, row.accuracy_high)),
        cell(numbers.area(row.auc), numbers.areas(row.get("auc_low", np.nan), row.get("auc_high", np.nan))),
    ]
    for rate in rates:
        value, low, high = (row[f"tpr_at_fpr_{rate}{end}"] for end in ("", "_low", "_high"))
        cells.append(cell(numbers.rate(value, row[f"resolvable_at_{rate}"]), numbers.interval(low, high, 2)))
    return cells


def _attacks_note(results: Results) -> str:
    said = (
        f"★ strongest by the shadows’ own left-out scores; {numbers.counts(results.summary.guesses)} guesses an attack."
    )
    if not results.summary[[name for name in results.summary if name.startswith("resolvable_at_")]].all(axis=None):
        said += " † not resolvable with so few non-members: this is the TPR at FPR 0."
    table = results.tables["attack.csv"]
    for column, usual, text in (("convention", "lira", "{} convention"), ("queries", 1, "{} queries a sample")):
        if column in table and table[column].iloc[0] != usual:
            said += f" {text.format(table[column].iloc[0])}.".capitalize()
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
    hardware = [provenance.get("device"), provenance.get("threads") and numbers.plural(provenance["threads"], "thread")]
    rows.append(("device", ", ".join(filter(None, hardware))))
    versions = provenance | own.get("versions", {})
    known = ("python", "torch", "opacus", "numpy", "scipy", "scikit-learn")
    rows.append(("versions", ", ".join(f"{name} {versions[name]}" for name in known if name in versions)))
    models = results.tables.get("models.csv")
    if models is not None and len(models):
        hours = models.seconds.sum() / 3600
        rows.append(("training time", f"{hours:.2f} hours for {numbers.plural(len(models), 'model')}"))
    if "seconds" in own:
        rows.append(("attack time", f"{own['seconds']:.0f} seconds"))
    return [(name, str(value)) for name, value in rows if value]


def threat(results: Results) -> dict:
    therefore = words.THEREFORE if results.settings else f"{words.THEREFORE} {words.FROM_ELSEWHERE}"
    return {"knows": words.KNOWS, "ignorant": words.DOES_NOT_KNOW, "therefore": therefore}
