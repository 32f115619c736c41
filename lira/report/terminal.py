"""What attack_lira.py prints at its end."""

import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lira.report import headline, text
from lira.report.results import Results

WIDTH = 80  # columns
BOLD, PLAIN = "\033[1m", "\033[0m"


def report(results: Results, page: Path) -> str:
    """What attack_lira.py prints at its end. page: the path of report.html."""
    lines = [f"{page}: the report; tables, scores and figures lie beside it", "", subject(results), ""]
    lines += wrapped([*headline.lines(results), *text.exposed_lines(results)])
    lines += ["", terminal_table(results.summary, results.strongest, colour=has_colours())]
    lines += wrapped(text.member_share(results))
    audit = text.audit_of(results) if "audit.csv" in results.tables else []
    if not audit and results.target_files:
        audit = [f"No lower bound on epsilon. {results.missing['audit.csv']}"]
    for group in (text.repetition_lines(results), text.curve_lines(results), audit):
        lines += ["", *wrapped(group)] if group else []
    return "\n".join(lines)


def wrapped(lines: Iterable[str]) -> list[str]:
    """For the terminal: at most WIDTH columns each."""
    return [textwrap.fill(line, WIDTH) for line in lines]


def has_colours() -> bool:
    """Whether stdout is a terminal with colours that the user has not turned off (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def subject(results: Results) -> str:
    """One line on the targets: their test accuracy or, without models, the data that the attack read."""
    models = results.target_models
    if not len(models):
        return results.attack_info.get("data", results.name)
    line = f"test accuracy {text.percent(models.test_accuracy.mean())}"
    return f"{line} over {len(models)} targets" if len(models) > 1 else line


def terminal_table(summary: pd.DataFrame, strongest: str, *, colour: bool = False) -> str:
    """The table of attacks, at most WIDTH columns wide.

    summary: as summary_table() returns it; strongest: the attack marked with * and, in colour, bold."""
    first, second = map(text.rate_name, text.RATES[:2])
    table = [["attack", "accuracy [95 % interval]", "AUC", f"TPR at {first} FPR", f"at {second}"]]
    for _, row in summary.iterrows():
        name = f"{row.attack} *" if row.attack == strongest else row.attack
        rates = [text.rate(row[f"tpr_at_fpr_{fpr}"], row[f"resolvable_at_{fpr}"]) for fpr in text.RATES[:2]]
        table.append([name, text.accuracy(row), text.number(row.auc, ".3f"), *rates])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if colour:
        lines = [f"{BOLD}{line}{PLAIN}" if f"{strongest} * " in line else line for line in lines]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    if any(text.UNRESOLVED in line for line in lines):
        lines.append(text.UNRESOLVED_NOTE)
    lines.append(text.intervals_note(summary))
    return "\n".join([*lines, f"* {text.STRONGEST}; {text.counts(summary.n_guesses)} guesses per attack"])
