"""How numbers are formatted, the text of the audit, and what attack_lira.py prints at the end.

A value that is NaN, because it is not defined (no threshold, or members alone), is printed as a dash."""

import os
import sys
import textwrap
from collections.abc import Collection
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd

from lira.attacks.exposed import MIN_SHADOWS, share_identified
from lira.attacks.metrics import FALSE_POSITIVE_RATES, MIN_PAIRS
from lira.attacks.tables import POOLED, PRIORS
from lira.report.results import Results

WIDTH = 80  # columns of the terminal
RATES = tuple(f"{rate:g}" for rate in FALSE_POSITIVE_RATES)  # as in the names of columns: tpr_at_fpr_0.01
BOLD, PLAIN = "\033[1m", "\033[0m"
UNRESOLVED = "†"
UNRESOLVED_NOTE = f"{UNRESOLVED} not resolvable with so few non-members: this is the TPR at FPR 0"
STRONGEST = "strongest by the AUC of the held-out shadows"
INTERVALS = "95 % intervals cover repetitions: other samples, targets and shadows"
NO_INTERVALS = f"no interval with fewer than {MIN_PAIRS} pairs of held-out shadows ({2 * MIN_PAIRS} shadows)"


def number(value: float, spec: str) -> str:
    return "-" if isnan(value) else f"{value:{spec}}"


def percent(value: float, digits: int = 1) -> str:
    return number(value, f".{digits}%")


def interval(low: float, high: float, spec: str = ".1%") -> str:
    return "-" if isnan(low) or isnan(high) else f"[{low:{spec}}, {high:{spec}}]"


def accuracy(row: pd.Series) -> str:
    """The accuracy of an attack with its interval. row: of summary_table()."""
    return "-" if isnan(row.accuracy) else f"{percent(row.accuracy)} {interval(row.accuracy_low, row.accuracy_high)}"


def intervals_note(summary: pd.DataFrame) -> str:
    """What the intervals of summary_table() cover, or why there are none."""
    defined = summary[summary.accuracy.notna()]
    return NO_INTERVALS if len(defined) and defined.accuracy_low.isna().all() else INTERVALS


def rate(value: float, resolvable: bool = True) -> str:
    """A TPR at a low FPR; marked where the FPR is less than one non-member."""
    return "-" if isnan(value) else percent(value, 2) + ("" if resolvable else UNRESOLVED)


def epsilon(value: float) -> str:
    return number(value, ".2f")


def counts(values: Collection[int]) -> str:
    """40,000, or 39,990 to 40,000 where they differ."""
    return " to ".join(f"{count:,}" for count in sorted({min(values), max(values)}))


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def verdict(audit: pd.DataFrame) -> pd.Series:
    """The row of audit.csv that stands for all targets: the pooled one, or that of the only target."""
    pooled = audit[audit.target == POOLED]
    return (pooled if len(pooled) else audit).iloc[0]


def audit_lines(audit: pd.DataFrame, *, nominal: bool = False) -> list[str]:
    """The audit in sentences: the lower bound on epsilon, the accountant's upper bound, and every violation.

    audit: audit.csv, one row per target and, of several, one of all targets pooled. nominal: see Results.nominal."""
    row, n_targets = verdict(audit), int((audit.target != POOLED).sum())
    if isnan(row.epsilon_lower):
        lines = ["No lower bound on epsilon: the members of these targets were not drawn as the audit assumes."]
    else:
        n_pooled = int(audit[audit.target != POOLED].epsilon_lower.notna().sum())
        lines = [
            f"At {row.confidence:.0%} confidence the epsilon of this training is at least {epsilon(row.epsilon_lower)} "
            + (f"({plural(n_pooled, 'target')} pooled; " if n_targets > 1 else "(")
            + f"{row.attack}, {row.n_guesses:,} of {row.n_audited:,} samples guessed, "
            f"{percent(row.n_correct / max(row.n_guesses, 1))} of the guesses correct). The most that so many "
            f"samples could have shown is {epsilon(row.epsilon_max)}."
        ]
        if row.epsilon_lower <= 0:
            lines[0] += " The audit detects no leakage, which does not prove that there is none."
    if isnan(row.epsilon_upper):
        return [*lines, "Training without differential privacy guarantees no upper bound."]
    upper = f"{epsilon(row.epsilon_upper)}, at delta {row.delta:g}"
    lines.append(f"By the accountant it is at most {upper}: each model's guarantee, for its own training set.")
    if nominal:
        lines[-1] += " It is nominal: --noise-seed makes the noise known."
    for violation in audit[audit.epsilon_lower > audit.epsilon_upper].itertuples():
        pooled = violation.target == POOLED
        lines.append(
            f"VIOLATION: {'the pooled targets show' if pooled else f'{violation.target} shows'} epsilon "
            f"{epsilon(violation.epsilon_lower)} or more, above the guaranteed {epsilon(violation.epsilon_upper)}: "
            f"{'their' if pooled else 'its'} training is less private than guaranteed."
        )
    return lines


def exposed_lines(results: Results) -> list[str]:
    """How many members the strongest attack identifies at the false discovery rate given, how many of the samples that
    it takes for members are none, and what changes where fewer of the samples are members."""
    table = results.exposure
    if table is None:
        return [f"No sample is listed as exposed: attack_lira.py lists them with {MIN_SHADOWS} shadows or more."]
    fdr, n_targets = results.attack_info["fdr"], len(results.targets)
    rate, identified = f"{100 * fdr:.4g}%", table[table.q_value <= fdr]
    n_members, n_true = int(table.member.sum()), int(identified.member.sum())
    of_targets = f" of {n_targets} targets" if n_targets > 1 else ""
    line = f"At a false discovery rate of {rate}, the attack ({results.strongest}) identifies "
    line += f"{n_true:,} of {n_members:,} members{of_targets}."
    if not len(identified):
        return [line]
    n_false = len(identified) - n_true
    line += f" It takes {plural(len(identified), 'sample')} for members, of which {n_false:,} "
    line += f"({percent(n_false / len(identified))}) are not."
    smaller = [f"{percent(share)} of them where {percent(prior, 0)} are" for prior, share in shares_identified(results)]
    return [line, f"Were fewer of the samples members, the same rate would identify {' and '.join(smaller[1:])}."]


def shares_identified(results: Results) -> list[tuple[float, float]]:
    """(prior, share of the members identified at the false discovery rate given) for each of PRIORS."""
    table = results.exposure
    p_value = np.empty(0) if table is None else table[table.member].p_value.to_numpy()
    return [(prior, share_identified(p_value, results.attack_info["fdr"], prior)) for prior in PRIORS]


def report(results: Results, page: Path) -> str:
    """What attack_lira.py prints at its end. page: the path of report.html."""
    lines = [f"{page}: the report; tables, scores and figures lie beside it", "", headline(results)]
    lines.append(terminal_table(results.summary, results.strongest, colour=has_colours()))
    lines += ["", *(textwrap.fill(line, WIDTH) for line in exposed_lines(results))]
    if "audit.csv" in results.tables:
        lines += ["", audit_summary(results.tables["audit.csv"], nominal=results.nominal)]
    return "\n".join(lines)


def audit_summary(audit: pd.DataFrame, *, nominal: bool = False) -> str:
    """audit_lines() for the terminal, wrapped at WIDTH columns."""
    return "\n".join(textwrap.fill(line, WIDTH) for line in audit_lines(audit, nominal=nominal))


def has_colours() -> bool:
    """Whether stdout is a terminal with colours that the user has not turned off (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def headline(results: Results) -> str:
    """One line on the targets: their test accuracy or, without models, the data that the attack read."""
    models = results.target_models
    if not len(models):
        return results.attack_info.get("data", results.name)
    line = f"test accuracy {percent(models.test_accuracy.mean())}"
    return f"{line} over {len(models)} targets" if len(models) > 1 else line


def terminal_table(summary: pd.DataFrame, strongest: str, *, colour: bool = False) -> str:
    """The table of attacks, at most WIDTH columns wide.

    summary: as summary_table() returns it; strongest: the attack marked with * and, in colour, bold."""
    table = [["attack", "accuracy [95 % interval]", "AUC", "TPR at 1 %", "0.1 % FPR"]]
    for _, row in summary.iterrows():
        name = f"{row.attack} *" if row.attack == strongest else row.attack
        rates = [rate(row[f"tpr_at_fpr_{fpr}"], row[f"resolvable_at_{fpr}"]) for fpr in RATES[:2]]
        table.append([name, accuracy(row), number(row.auc, ".3f"), *rates])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if colour:
        lines = [f"{BOLD}{line}{PLAIN}" if f"{strongest} * " in line else line for line in lines]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    if any(UNRESOLVED in line for line in lines):
        lines.append(UNRESOLVED_NOTE)
    lines.append(intervals_note(summary))
    return "\n".join([*lines, f"* {STRONGEST}; {counts(summary.n_guesses)} guesses per attack"])
