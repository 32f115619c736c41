"""The result in one sentence, shared by terminal and page: accuracy and TPR of the strongest attack, then of lira as
published, each against guessing, and what so few samples could have shown where it is no better."""

from math import isnan

import pandas as pd

from lira.attacks.metrics import most_shown
from lira.attacks.tables import exceeds_guessing
from lira.report import text
from lira.report.results import Results


def parts(results: Results) -> list[str]:
    """The sentence on the strongest attack: text and the figures to be emphasized in turn, text first and last."""
    noun = "an image" if results.noun == "image" else "a sample"
    name = "lira, as published" if results.strongest == "lira" else results.strongest
    return _figures(
        results, results.strongest, f"Given {noun}, the strongest attack ({name}) is correct in ", " of cases"
    )


def lines(results: Results) -> list[str]:
    """The sentence on the strongest attack, that on lira, and what could have been shown."""
    return ["".join(parts(results)), *further(results)]


def further(results: Results) -> list[str]:
    """lines() without the first."""
    said = []
    if results.highlighted[-1] != results.strongest:  # lira
        said.append("".join(_figures(results, "lira", "The attack as published (lira) is correct in ", "")))
    no_better = [
        _exceeds(results, attack, metric) is False for attack in results.highlighted for metric in _metrics(results)
    ]
    return said + (_shown_at_most(results) if any(no_better) or not results.lowest_rate else [])


def _metrics(results: Results) -> list[str]:
    return ["accuracy", *([f"tpr_at_fpr_{results.lowest_rate}"] if results.lowest_rate else [])]


def _guessing(results: Results, metric: str) -> float:
    return results.guessing if metric == "accuracy" else float(results.lowest_rate or 0)


def _exceeds(results: Results, attack: str, metric: str) -> bool | None:
    return exceeds_guessing(results.summary.loc[attack], metric, _guessing(results, metric))


def _figures(results: Results, attack: str, before: str, after: str) -> list[str]:
    row = results.summary.loc[attack]
    if isnan(row.accuracy):
        said = [f"The accuracy of the attack ({attack}) is not defined: its shadows give no threshold"]
    else:
        said = [before, *_figure(results, row, "accuracy", ".1%", after)]
    if not results.lowest_rate:
        return [*said[:-1], f"{said[-1]}."]
    tpr = f"tpr_at_fpr_{results.lowest_rate}"
    value, against = _figure(results, row, tpr, ".2%", "")
    return [*said[:-1], f"{said[-1]}; its TPR at {text.rate_name(results.lowest_rate)} FPR is ", value, f"{against}."]


def _figure(results: Results, row: pd.Series, metric: str, spec: str, after: str) -> list[str]:
    """The value, and its interval with what guessing would give."""
    low, high, guessing = row[f"{metric}_low"], row[f"{metric}_high"], _guessing(results, metric)
    interval = "" if isnan(low) else f" {text.interval(low, high, spec)}"
    number = f"{guessing:.0%}" if guessing >= 0.01 and round(guessing, 2) == guessing else f"{100 * guessing:.3g}%"
    if exceeds_guessing(row, metric, guessing) is not False:
        return [f"{row[metric]:{spec}}", f"{interval}{after} (guessing: {number})"]
    against = f", no better than guessing ({number})"
    if metric == "accuracy" and row.leakage_low > guessing:
        against += " over repetitions, although an exact test on these guesses rejects it"
    return [f"{row[metric]:{spec}}", f"{interval}{after}{against}"]


def _shown_at_most(results: Results) -> list[str]:
    counts = results.tables["attack.csv"].drop_duplicates("target")
    n_members, n_nonmembers = counts.n_members.to_numpy(), counts.n_nonmembers.to_numpy()
    samples = f"{text.counts(n_members)} members and {text.counts(n_nonmembers)} non-members"
    of_targets = f" of each of {len(counts)} targets" if len(counts) > 1 else ""
    said = f"{samples}{of_targets} could have shown an accuracy of at most {most_shown(n_members, n_nonmembers):.1%}"
    if results.lowest_rate:
        tpr = most_shown(n_members, n_nonmembers, float(results.lowest_rate))
        said += f" and a TPR at {text.rate_name(results.lowest_rate)} FPR of at most {tpr:.1%}"
    said += ", by an attack without an error"
    if not results.lowest_rate:
        said += f"; they resolve no FPR of {text.rate_name(text.RATES[0])} or less"
    return [f"{said}."]
