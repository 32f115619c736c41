"""The text and the tables of each section of the page: from Results to sentences, rows and cells."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lira.attacks.exposed import at_prior
from lira.attacks.registry import ATTACKS
from lira.errors import plural
from lira.report import headline, text
from lira.report.plots import classes_table
from lira.report.results import Results

PROBABILITIES = (0.5, 0.9, 0.99)  # of membership, for the table of what changes with the share of members
HEAD = ["attack", "accuracy", "AUC", *(f"TPR at {text.rate_name(rate)} FPR" for rate in text.RATES)]
AUDIT_KINDS = {  # of audit.csv -> their labels on the scale
    "canary-f-dp": "canaries, Gaussian",
    "canary-one-run": "canaries, any mechanism",
    "f-dp": "model, Gaussian",
    "one-run": "model, any mechanism",
}


def cell(value: str, below: str = "") -> dict:
    """below: a second line in small print."""
    return {"value": value, "below": "" if below == "-" else below}


def line(name: str, cells: Sequence[dict | str], *, strongest: bool = False) -> dict:
    cells = [cell(content) if isinstance(content, str) else content for content in cells]
    return {"name": name, "cells": cells, "strongest": strongest}


def privacy(identity: Mapping) -> str:
    """identity: as in config.json."""
    if "max_grad_norm" not in identity:
        return "without differential privacy"
    target, sigma = identity.get("target_epsilon"), identity.get("sigma")
    noise = f"target epsilon {target}" if target else f"noise multiplier {sigma}"
    nominal = ", nominal: noise from a known seed" if "noise_seed" in identity else ""
    return f"DP-SGD, {noise}, clipping norm {identity['max_grad_norm']}{nominal}"


def title(results: Results) -> str:
    identity = results.settings.get("identity")
    if not identity:
        return results.name
    run = f"{identity['network']} on {identity['dataset']}, {privacy(identity)}"
    return f"{', '.join(results.target_files)}: shadows {run}" if results.target_files else run


def subtitle(results: Results) -> str:
    table = results.tables["attack.csv"]
    parts = [results.name] if results.settings else []
    parts.append(f"{plural(len(results.targets), 'target')}, {text.counts(table.shadows)} shadows")
    models = results.target_models
    if len(models):
        parts.append(f"test accuracy {text.percent(models.test_accuracy.mean())}")
        parts.append(f"training accuracy {text.percent(models.train_accuracy.mean())}")
    return " · ".join(parts)


def accuracy(results: Results) -> dict:
    """The headline, accuracies on a scale, and what they are based on."""
    rows = [(name, results.summary.loc[name]) for name in results.highlighted]
    return accuracy_scale(rows, results.guessing) | {
        "parts": headline.parts(results),
        "said": [*headline.further(results), text.exposed_lines(results)[0]],
        "lines": _accuracy_lines(results, rows[0][1]),
    }


def _accuracy_lines(results: Results, row: pd.Series) -> list[str]:
    several = f" over {row.n_targets} targets" if row.n_targets > 1 else ""
    lines = [
        f"The strongest attack is the one with the highest AUC on the held-out shadows; {row.n_guesses:,} guesses"
        f"{several}, with its threshold fitted on the shadows alone."
    ]
    lines += text.member_share(results)
    if np.isnan(row.accuracy):
        return lines
    if np.isnan(row.accuracy_low):
        lines.append(f"There is {text.NO_INTERVALS}.")
    else:
        lines.append(READING_INTERVALS)
    test = f"An exact test on these {row.n_guesses:,} guesses"
    if row.leakage_low > results.guessing:
        lines.append(f"{test} rejects guessing: this training reveals its members.")
    else:
        lines.append(
            f"{test} does not reject guessing: at this threshold no leakage is detected, which does not prove that "
            "there is none."
        )
    return lines


def accuracy_scale(rows: list[tuple[str, pd.Series]], guessing: float) -> dict:
    """Accuracies on a scale that ends at 100 %. rows: (label, row of summary_table())."""
    defined = [(label, row) for label, row in rows if not np.isnan(row.accuracy)]
    ends = [row[["accuracy_low", "accuracy_high"]].astype(float).fillna(row.accuracy).tolist() for _, row in defined]
    start = np.floor(min([0.5, *(low for low, _ in ends)]) * 10) / 10
    marks = [
        (label, text.percent(row.accuracy), row.accuracy, *pair)
        for (label, row), pair in zip(defined, ends, strict=True)
    ]
    ticks = {text.percent(value, 0): value for value in np.arange(round(start * 10), 11) / 10}
    return scale(marks, ticks, start=start, end=1.0, line=guessing)


def scale(
    marks: Sequence[tuple[str, str, float, float, float]],
    ticks: Mapping[str, float],
    *,
    start: float,
    end: float,
    line: float,
) -> dict:
    """Places on a scale from start to end, in percent of its width.

    marks: (label, number in words, value, low and high end of its bar); ticks: label -> value; line: value of the
    dotted line, NaN for none."""

    def left(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    return {
        "marks": [
            {"text": label, "value": words, "left": left(value)}
            | {"low": left(low), "width": round(left(high) - left(low), 2)}
            for label, words, value, low, high in marks
        ],
        "ticks": [{"left": left(value), "text": label} for label, value in ticks.items()],
        "line": None if np.isnan(line) else left(line),
    }


def epsilon_scale(audit: pd.DataFrame) -> dict | None:
    """Each kind of bound, its bar up to the most that so many could have shown; the dotted line is the guarantee."""
    rows = {label: text.verdict(audit, kind) for kind, label in AUDIT_KINDS.items()}
    marks = [
        (label, text.epsilon(row.epsilon_lower), row.epsilon_lower, row.epsilon_lower, row.epsilon_max)
        for label, row in rows.items()
        if row is not None and not np.isnan(row.epsilon_lower)
    ]
    upper = audit.epsilon_upper.max()
    if not np.isnan(upper):
        marks.insert(0, ("guarantee", text.epsilon(upper), upper, 0.0, upper))
    if not marks:
        return None
    end = max(high for *_, high in marks) or 1.0
    step = next(unit * 10.0**power for power in range(-3, 6) for unit in (1, 2, 5) if end <= 8 * unit * 10.0**power)
    ticks = {f"{value:g}": value for value in np.arange(0, end + step / 1e6, step)}
    return scale(marks, ticks, start=0.0, end=end, line=upper)


def epsilon(results: Results) -> dict:
    """The audit in sentences and as a table, or why there is none."""
    table = results.tables.get("audit.csv")
    if table is None:
        lines = [f"No lower bound on epsilon. {results.missing['audit.csv']}"]
        if not np.isnan(results.accounted_epsilon):
            lines += [
                f"By the accountant it is at most {text.epsilon(results.accounted_epsilon)}.",
                NOT_FOR_PUBLICATION,
            ]
        return {"lines": lines, "rows": [], "head": [], "scale": None}
    guaranteed, rows = table.epsilon_upper.notna().any(), []
    for row in table.itertuples():
        guesses = cell(f"{row.n_correct:,} of {row.n_guesses:,}", f"{row.n_audited:,} audited")
        cells: list[dict | str] = [
            cell(row.kind, row.attack),
            text.epsilon(row.epsilon_lower),
            text.epsilon(row.epsilon_max),
        ]
        cells += [f"{row.delta:g}", guesses]
        if guaranteed:
            cells += [text.epsilon(row.epsilon_upper), text.number(getattr(row, "p_value", np.nan), ".2g")]
        rows.append(line(row.target, cells))
    head = ["target", "bound", "epsilon at least", "could have shown", "delta", "correct guesses"]
    head += ["guarantee", "p-value"] if guaranteed else []
    lines = text.audit_of(results) + ([NOT_FOR_PUBLICATION] if not np.isnan(results.accounted_epsilon) else [])
    return {"lines": lines, "rows": rows, "head": head, "scale": epsilon_scale(table)}


def exposed(results: Results) -> dict:
    """Whom the attack identifies, in sentences, and a table of what changes with the share of members."""
    rows = []
    if results.exposure is not None:
        for prior, share in text.shares_identified(results):
            posteriors = map(text.percent, at_prior(np.array(PROBABILITIES), prior))
            rows.append(line(text.percent(prior, 0), [text.percent(share, 2), *posteriors]))
    head = ["members among the samples", "of them identified"]
    head += [f"a p_member of {text.percent(p_member, 0)} becomes" for p_member in PROBABILITIES]
    return {"lines": text.exposed_lines(results), "assumes": EXPOSED_ASSUMES, "rows": rows, "head": head}


def attacks(results: Results) -> dict:
    table, summary = results.tables["attack.csv"], results.summary
    bold = table[table.attack.isin(results.highlighted)] if len(results.targets) > 1 else table[:0]
    strongest = results.strongest
    return {
        "head": HEAD,
        "rows": [line(name, metric_cells(row), strongest=name == strongest) for name, row in summary.iterrows()],
        "note": _attacks_note(results),
        "lines": text.repetition_lines(results),
        "target_head": ["target", *HEAD[1:]],
        "targets": [line(f"{row.target}, {row.attack}", metric_cells(row)) for _, row in bold.iterrows()],
        "explained": [(name, ATTACKS[name].description if name in ATTACKS else "") for name in summary.index],
    }


def metric_cells(row: pd.Series, rates: tuple[str, ...] = text.RATES) -> list[dict]:
    """Accuracy, AUC and TPR at `rates`; row: of summary_table(), attack.csv or, without rates, classes.csv."""
    auc_low, auc_high = row.get("auc_low", np.nan), row.get("auc_high", np.nan)  # classes.csv has none
    cells = [
        cell(text.percent(row.accuracy), text.interval(row.accuracy_low, row.accuracy_high)),
        cell(text.number(row.auc, ".3f"), text.interval(auc_low, auc_high, ".3f")),
    ]
    for rate in rates:
        value, low, high = (row[f"tpr_at_fpr_{rate}{end}"] for end in ("", "_low", "_high"))
        cells.append(cell(text.rate(value, row[f"resolvable_at_{rate}"]), text.interval(low, high, ".2%")))
    return cells


def _attacks_note(results: Results) -> str:
    note = f"★ {text.STRONGEST}; {text.counts(results.summary.n_guesses)} guesses per attack. "
    note += f"{text.intervals_note(results.summary).capitalize()}."
    if not results.summary[[f"resolvable_at_{rate}" for rate in text.RATES]].all(axis=None):
        note += f" {text.UNRESOLVED_NOTE}."
    table = results.tables["attack.csv"]
    for column, default, words in (("convention", "lira", "{} convention"), ("queries", 1, "{} queries per sample")):
        if column in table and table[column].iloc[0] != default:
            note += f" {words.format(table[column].iloc[0])}."
    return note


def classes(results: Results) -> dict | None:
    """The table below the figure of the classes: summary, head and rows; None without classes.csv."""
    table = classes_table(results)
    if table is None or not len(table):
        return None
    rows = [line(row["class"], [*metric_cells(row, rates=()), f"{row.n_guesses:,}"]) for _, row in table.iterrows()]
    summary = f"All {len(rows)} classes" if len(rows) > 1 else "The class"
    return {"summary": summary, "head": ["class", "accuracy", "AUC", "guesses"], "rows": rows}


def provenance(results: Results) -> list[tuple[str, str]]:
    """Commands, settings, seeds, fingerprint, versions and hours, as far as the files record them."""
    identity, training = (results.settings.get(key, {}) for key in ("identity", "provenance"))
    attack = results.attack_info
    hidden = ("data_fingerprint", "n_train_is_default")
    settings = [f"{name} {value}" for name, value in identity.items() if name not in hidden]
    seeds = f"every draw is seeded by (exp_idx {identity.get('exp_idx')}, role, index of the model)"
    device = [training.get("device"), training.get("threads") and plural(training["threads"], "thread")]
    versions = training.get("privacy", {}) | training.get("versions", {}) | attack.get("versions", {})
    n_canaries = training.get("privacy", {}).get("canaries")
    packages = ("python", "torch", "opacus", "numpy", "scipy", "scikit-learn")
    rows = [
        ("shadows trained by" if results.target_files else "trained by", training.get("command")),
        ("attacked by", attack.get("command")),
        ("started", training.get("started")),
        ("attacked", attack.get("started")),
        ("settings", ", ".join(settings)),
        ("canaries", n_canaries and f"every target trained with {n_canaries:,} gradient canaries beside its images"),
        ("seeds", seeds if "exp_idx" in identity else ""),
        ("data", "; ".join(attack.get("data", "").splitlines())),
        ("data fingerprint", identity.get("data_fingerprint")),
        ("device", ", ".join(filter(None, device))),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in packages if name in versions)),
    ]
    models = results.tables.get("models.csv")
    if models is not None and len(models):
        hours = models.seconds.sum() / 3600
        rows.append(("training time", f"{hours:.2f} hours for {plural(len(models), 'model')}"))
    if "seconds" in attack:
        rows.append(("attack time", f"{attack['seconds']:.0f} seconds"))
    return [(name, str(value)) for name, value in rows if value]


def threat(results: Results) -> dict:
    implication = IMPLICATION if results.settings else f"{IMPLICATION} {FROM_ELSEWHERE}"
    lists = ([line.format(noun=results.noun) for line in lines] for lines in (KNOWS, DOES_NOT_KNOW))
    return dict(zip(("knows", "does_not_know"), lists, strict=True)) | {"implication": implication}


NOT_FOR_PUBLICATION = (
    "The guarantee is that of the weights files alone. Training logs, scores, tables and this page follow from the "
    "training images without noise: they are the auditor's, not for publication."
)
KNOWS = (
    "which {noun}s might have been trained on, and their true labels",
    "data of the same kind that the target was not trained on, enough to train models of its own (the shadows)",
    "how the target was trained: network, optimizer, epochs, privacy settings",
    "the target's outputs: its confidence in every class, for any number of queries",
)
DOES_NOT_KNOW = (
    "which of the {noun}s the target was trained on",
    "the target's weights, gradients or earlier states",
    "the rest of the target's training set",
)
IMPLICATION = (
    "An attacker who sees labels alone, or who cannot train models like this one, will usually do worse; one who also "
    "knows the weights, or adds to the training set, can do better. The figures hold for this training recipe "
    "and samples of this kind."
)
FROM_ELSEWHERE = "These scores were computed elsewhere; whether this threat model describes them is not known here."

READING_EPSILON = (
    "Each dot is a lower bound, at 95 % confidence by itself; its bar ends at the most that so many samples or "
    "canaries could have shown. The dotted line is the upper bound of the accountant. Canaries test the mechanism as "
    "an attacker would who sees every step; the published model is attacked from outside. The bound for any mechanism "
    "is that of Steinke et al. (arXiv 2305.08846). That for Gaussian curves (Mahloujifar et al., arXiv 2410.22235) is "
    "tighter, since it assumes how privacy depends on delta. A violation holds at 95 % over all tests of the run "
    "together. Its p-value is that of the guarantee or, for Gaussian curves, of the curve of the accounted mechanism."
)
READING_INTERVALS = (
    "The 95 % interval covers the mean accuracy of this attack if the whole experiment is repeated, with other samples "
    "of the same kind, other targets and other shadows; the variation between models is measured on the shadows held "
    "out. The accuracy on one more model can lie outside."
)
EXPOSED_ASSUMES = (
    "The rate and p_member assume that the target's non-members score like those of the shadows, which share training "
    "images that the target lacks. Where half of the samples are members, there is room for a difference, and on "
    "overfitted CIFAR-10 models it was enough (benchmarks/RESULTS.md, “Who is exposed”); where few are, there is none."
)
READING_EXPOSED = (
    "exposed.csv lists the samples that the attack takes for members, chosen so that at most the stated share of them "
    "are not, on average over repetitions, not in each (Benjamini and Hochberg, on p-values against the non-members of "
    "the held-out shadows). Where half of the samples are members, about half of the stated share is expected. "
    "p_member is the probability of membership where every second sample is a member. The table says what becomes of "
    "both where members are rarer, as for an attacker who looks for them among many others."
)
READING_ATTACKS = (
    "Accuracy is that of an attacker who fits the threshold on the shadows alone. AUC and TPR at FPR are measured with "
    "the true membership: how well the scores separate members from non-members, and the share of members identified "
    "while at most that share of non-members is taken for members. In brackets 95 % intervals, of the mean over the "
    "targets or of one target by itself; they include the errors of thresholds and the variation between models."
)
