"""What the scripts end in on the screen."""

import os
import sys

import pandas as pd

from lira import numbers
from lira.results import Results
from lira.sections import target_models

BOLD, PLAIN = "\033[1m", "\033[0m"


def has_colours() -> bool:
    """Whether stdout is a terminal that wants them (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def headline(results: Results) -> str:
    """What was attacked, in a line."""
    models = target_models(results)
    if not len(models):
        return results.made.get("data", results.name)
    several = f" over {len(models)} targets" * (len(models) > 1)
    return f"test accuracy {numbers.percent(models.test_accuracy.mean())}{several}"


def terminal_table(summary: pd.DataFrame, strongest: str, *, colour: bool = False) -> str:
    """The last lines on the screen, narrow enough for 80 columns. summary: as tables.summary_table() returns it;
    strongest: the attack that the shadows' own left-out scores call strongest, marked with * and, in colour, bold."""
    rows = [("attack", "accuracy [95 % interval]", "AUC", "TPR at 1 %", "0.1 % FPR")]
    for _, row in summary.iterrows():
        accuracy = numbers.with_interval(row.accuracy, row.accuracy_low, row.accuracy_high)
        rates = [numbers.rate(row[f"tpr_at_fpr_{x}"], row[f"resolvable_at_{x}"]) for x in ("0.01", "0.001")]
        rows.append((f"{row.attack}{' *' * (row.attack == strongest)}", accuracy, numbers.area(row.auc), *rates))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if colour:
        lines = [f"{BOLD}{line}{PLAIN}" if f"{strongest} * " in line else line for line in lines]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    if any(numbers.UNRESOLVED in line for line in lines):
        lines.append("† not resolvable with so few non-members: this is the TPR at FPR 0")
    foot = f"* strongest by the shadows' own left-out scores; {numbers.counts(summary.guesses)} guesses an attack"
    return "\n".join([*lines, foot])
