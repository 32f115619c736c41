"""Several runs side by side: the text, the tables and the figure of the page of --compare."""

import textwrap
from functools import partial

import numpy as np
import pandas as pd

from lira.errors import plural
from lira.report import figures, sections, text
from lira.report.figures import Panel
from lira.report.plots import intervals, min_rate, square_size
from lira.report.results import Results

MAX_LABEL = 34  # characters that fit beside a line of the legend
HEAD = ["run", "test accuracy", "attack", *sections.HEAD[1:5]]


def labels(runs: list[Results]) -> list[str]:
    """A, B, C …, each with the parts of the run's name that not all runs share, if there are any. Of labels that are
    too long, kinds of parts are left out in all that tell no two runs apart, those of the privacy last."""
    names = [run.name.split("_") for run in runs]
    shared = set(names[0]).intersection(*names)
    suffixes = _shortened([[part for part in name if part not in shared] for name in names])
    return [f"{_letter(number)}: {suffix}" if suffix else _letter(number) for number, suffix in enumerate(suffixes)]


def _shortened(labels: list[list[str]]) -> list[str]:
    """labels: the parts of each."""
    kinds = list(dict.fromkeys(_kind(part) for parts in labels for part in reversed(parts)))
    for kind in sorted(kinds, key=lambda kind: kind in ("sigma", "eps")):
        without = [[part for part in parts if _kind(part) != kind] for parts in labels]
        n_before, n_after = (len(set(map(tuple, each))) for each in (labels, without))
        if max(map(len, map(" ".join, labels))) > MAX_LABEL and n_after == n_before and all(without):
            labels = without
    return [textwrap.shorten(" ".join(parts), MAX_LABEL, placeholder=" …") for parts in labels]


def _kind(part: str) -> str:
    """lr of lr0.05."""
    return part.rstrip("0123456789.")


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"run {number + 1}"


def settings(run: Results) -> dict[str, str]:
    """Settings of the run from config.json, or its name without that file, then those of the attack from attack.csv."""
    attack = run.tables["attack.csv"]
    attack_settings = {"targets": str(attack.target.nunique())} | {
        field: ", ".join(map(str, attack[field].unique()))
        for field in ("shadows", "queries", "convention")
        if field in attack
    }
    identity = dict(run.settings.get("identity", {}))
    if not identity:
        return {"run": run.name} | attack_settings
    privacy = sections.privacy(identity)
    for field in ("sigma", "max_grad_norm", "target_epsilon", "n_train_is_default"):
        identity.pop(field, None)
    identity["data_fingerprint"] = identity.get("data_fingerprint", "")[:12]
    return {"privacy": privacy} | {field: str(value) for field, value in identity.items()} | attack_settings


def differences(runs: list[Results]) -> dict[str, list[str]]:
    """Setting -> its value in each run, of the settings that are not the same in all."""
    by_run = [settings(run) for run in runs]
    fields = dict.fromkeys(field for values in by_run for field in values)
    by_field = {field: [values.get(field, "-") for values in by_run] for field in fields}
    return {field: values for field, values in by_field.items() if len(set(values)) > 1}


def plots(runs: list[Results]) -> dict[str, list[Panel]]:
    """The ROC of each run's strongest attack."""
    by_label = dict(zip(labels(runs), runs, strict=True))
    rows = {label: run.summary.loc[run.strongest] for label, run in by_label.items()}
    curves = {label: curve for label, run in by_label.items() if (curve := run.roc(run.strongest))}
    if not curves:
        return {}
    tpr = [f"{label} ({rows[label].attack}) {text.rate(rows[label]['tpr_at_fpr_0.01'])}" for label in curves]
    alt = f"ROC on logarithmic axes. TPR at 1 % FPR: {'; '.join(tpr)}; guessing 1 %."
    points, low = {label: intervals(row) for label, row in rows.items()}, min(map(min_rate, runs))
    draw = partial(figures.roc, curves=curves, intervals=points, labelled=list(curves), min_rate=low, legend_below=True)
    return {"roc_log": [Panel(draw, alt, square_size(len(curves) + 1))]}


def page(runs: list[Results]) -> dict:
    """All that compare.html fills in, except the figure and the folder."""
    names, strongest = labels(runs), [run.summary.loc[run.strongest] for run in runs]
    letters = [_letter(number) for number in range(len(runs))]
    guessing = max(run.guessing for run in runs)
    accuracies = [f"{text.percent(row.accuracy)} ({name})" for name, row in zip(letters, strongest, strict=True)]
    bounds = [_epsilon(run) for run in runs]
    has_bounds = not np.isnan(bounds).all()
    return sections.accuracy_scale(list(zip(letters, strongest, strict=True)), guessing) | {
        "title": f"{plural(len(runs), 'run')} side by side",
        "runs": list(zip(letters, _folders(runs), strict=True)),
        "accuracy": f"Correct in {', '.join(accuracies)}; guessing: {_range(runs)}.",
        "head": [*HEAD, "epsilon at least", "guarantee"] if has_bounds else HEAD,
        "rows": [
            _row(name, run, row, pair if has_bounds else ())
            for name, run, row, pair in zip(names, runs, strongest, bounds, strict=True)
        ],
        "note": f"The attack of each run is the {text.STRONGEST}. † not resolvable with so few non-members. "
        f"{text.INTERVALS}.",
        "caption": "The strongest attack of each run, with 95 % intervals where the samples resolve them.",
        "missing": "No run has a samples.csv: there is nothing to draw.",
        "settings": {
            "head": ["setting", *letters],
            "rows": [sections.line(field.replace("_", " "), values) for field, values in differences(runs).items()],
            "note": "Every setting that is not named here is the same in all of these runs."
            if all(run.settings for run in runs)
            else "Runs without config.json are compared by name only.",
        },
    }


def _range(runs: list[Results]) -> str:
    """The accuracy of guessing, or its range."""
    return " to ".join(dict.fromkeys(text.percent(end(run.guessing for run in runs)) for end in (min, max)))


def _folders(runs: list[Results]) -> list[str]:
    """Names of the folders, or their paths where two have the same name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _epsilon(run: Results) -> tuple[float, float]:
    """(lower, upper): the bound of the audit and the guarantee of the training; NaN where there is none."""
    audit = run.tables.get("audit.csv")
    row = None if audit is None else text.verdict(audit)
    return np.nan if row is None else row.epsilon_lower, run.accounted_epsilon


def _row(name: str, run: Results, row: pd.Series, bounds: tuple[float, ...]) -> dict:
    models = run.target_models
    test = text.percent(models.test_accuracy.mean()) if len(models) else "-"
    return sections.line(name, [test, row.attack, *sections.metric_cells(row)[:4], *map(text.epsilon, bounds)])
