"""Several runs side by side: what the page of --compare says and draws."""

from functools import partial

import numpy as np

from lira.report import figures, sections, text
from lira.report.figures import Panel
from lira.report.plots import ROC_SIZE, bars, baseline, floor
from lira.report.results import Results

_SHORTER = (
    ("without differential privacy", "no DP"), ("DP-SGD", "DP"), ("noise multiplier", "σ"), ("clipping norm", "C"),
    ("target epsilon", "ε"),
)  # fmt: skip
SHORT = 34  # letters that fit beside a line of the legend
HEAD = ["run", "test accuracy", "attack", *sections.HEAD[1:5]]


def labels(runs: list[Results]) -> list[str]:
    """A, B, C … with what sets the runs apart, as many settings as are short in all of them."""
    said = [""] * len(runs)
    for field, values in differences(runs).items():
        longer = [", ".join(filter(None, (one, _said(field, value)))) for one, value in zip(said, values, strict=True)]
        if max(map(len, longer)) > SHORT:
            break
        said = longer
    return [f"{_letter(number)}: {one}" if one else _letter(number) for number, one in enumerate(said)]


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"run {number + 1}"


def _said(field: str, value: str) -> str:
    if field in ("network", "dataset", "optimizer", "privacy"):
        for long, short in _SHORTER:
            value = value.replace(long, short)
        return value
    if field == "augment":
        return "augmented" if value == "True" else "not augmented"
    return f"{field.replace('_', ' ')} {value}"


def settings(run: Results) -> dict[str, str]:
    """What attack.csv says of an attack and config.json of a run, in words; its name where there is none."""
    attack = run.tables["attack.csv"]
    asked = {"targets": str(attack.target.nunique())} | {
        field: ", ".join(map(str, attack[field].unique()))
        for field in ("shadows", "queries", "convention")
        if field in attack
    }
    identity = dict(run.settings.get("identity", {}))
    if not identity:
        return {"run": run.name} | asked
    told = {"privacy": sections.privacy(identity)}
    for field in ("sigma", "max_grad_norm", "target_epsilon", "n_train_is_default"):
        identity.pop(field, None)
    identity["data_fingerprint"] = identity.get("data_fingerprint", "")[:12]
    return told | {field: str(value) for field, value in identity.items()} | asked


def differences(runs: list[Results]) -> dict[str, list[str]]:
    """Setting -> its value in each run, of the settings that are not the same in all."""
    known = [settings(run) for run in runs]
    fields = dict.fromkeys(field for one in known for field in one)
    found = {field: [one.get(field, "-") for one in known] for field in fields}
    return {field: values for field, values in found.items() if len(set(values)) > 1}


def plots(runs: list[Results]) -> dict[str, list[Panel]]:
    """The ROC of each run's strongest attack."""
    names = labels(runs)
    curves = {name: run.roc(run.strongest) for name, run in zip(names, runs, strict=True)}
    rows = {name: run.summary.loc[run.strongest] for name, run in zip(names, runs, strict=True)}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return {}
    found = [f"{name} ({rows[name].attack}) {text.rate(rows[name]['tpr_at_fpr_0.01'])}" for name in curves]
    alt = f"ROC on logarithmic axes. Members found at a false-positive rate of 1 %: {'; '.join(found)}; guessing 1 %."
    points = {name: bars(row) for name, row in rows.items()}
    low = min(map(floor, runs))
    draw = partial(figures.roc, curves=curves, bars=points, highlighted=list(curves), floor=low, columns=1)
    return {"roc_log": [Panel(draw, alt, ROC_SIZE)]}


def page(runs: list[Results]) -> dict:
    """All that the template of the page fills in, less the figure and the folder."""
    names, strong = labels(runs), [run.summary.loc[run.strongest] for run in runs]
    letters = list(map(_letter, range(len(runs))))
    guessing, differing = max(map(baseline, runs)), differences(runs)
    bounds = [_epsilon(run) for run in runs]
    known = not all(np.isnan(value) for pair in bounds for value in pair)
    scale = sections.ruler(list(zip(letters, strong, strict=True)), guessing)
    shown = bounds if known else [()] * len(runs)
    rows = [_row(*one) for one in zip(names, runs, strong, shown, strict=True)]
    return scale | {
        "title": f"{text.plural(len(runs), 'run')} side by side",
        "runs": list(zip(letters, _names(runs), strict=True)),
        "answer": _answer(names, strong, guessing),
        "head": [*HEAD, "epsilon from", "to"] if known else HEAD,
        "rows": rows,
        "note": "The attack of each run is the one that its shadows’ own held-out scores call strongest. † not "
        "resolvable with so few non-members. 95 % intervals, the shadows taken as given.",
        "caption": "The strongest attack of each run, with 95 % intervals where the samples resolve them.",
        "missing": "No run has a samples.csv: there is nothing to draw.",
        "settings": {
            "head": ["setting", *letters],
            "rows": [
                sections.line(field.replace("_", " "), [sections.cell(value) for value in values])
                for field, values in differing.items()
            ],
            "note": "Every setting that is not named here is the same in all of these runs."
            if all(run.settings for run in runs)
            else "A run without config.json is known by its name alone.",
        },
    }


def _names(runs: list[Results]) -> list[str]:
    """Names of the folders, or paths where two are called the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _epsilon(run: Results) -> tuple[float, float]:
    """(lower, upper): what the audit shows at least, and what the training promises; NaN where nothing is known."""
    audit, promise = run.tables.get("audit.csv"), run.target_models.get("epsilon")
    lower = np.nan if audit is None else audit.epsilon_lower.median()
    return lower, np.nan if promise is None or not len(promise) else promise.astype(float).max()


def _answer(names: list[str], strong: list, guessing: float) -> str:
    said = [f"{text.with_interval(*sections.accuracy(row))} in {name}" for name, row in zip(names, strong, strict=True)]
    return f"The attack is right in {'; '.join(said)}; {text.percent(guessing)} is guessing."


def _row(name: str, run: Results, row, bounds: tuple[float, ...]) -> dict:
    models = run.target_models
    test = text.percent(models.test_accuracy.mean()) if len(models) else "-"
    cells = [sections.cell(test), sections.cell(row.attack), *sections.figures(row)[:4]]
    return sections.line(name, [*cells, *(sections.cell(text.epsilon(value)) for value in bounds)])
