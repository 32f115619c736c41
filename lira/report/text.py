"""How a figure is written, and what the scripts print at the end: the same on the terminal and on the page.

NaN, which is not defined (no threshold, or members alone), is a dash."""

import os
import sys
import textwrap
from math import isnan

import pandas as pd

from lira.report.results import Results

UNRESOLVED = "†"


def percent(value: float, digits: int = 1) -> str:
    return "-" if isnan(value) else f"{value:.{digits}%}"


def interval(low: float, high: float, digits: int = 1) -> str:
    return "-" if isnan(low) or isnan(high) else f"[{low:.{digits}%}, {high:.{digits}%}]"


def with_interval(value: float, low: float, high: float) -> str:
    return "-" if isnan(value) else f"{percent(value)} {interval(low, high)}"


def area(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}"


def areas(low: float, high: float) -> str:
    return "-" if isnan(low) or isnan(high) else f"[{low:.3f}, {high:.3f}]"


def rate(value: float, resolvable: bool = True) -> str:
    """A TPR at a low FPR; marked where the FPR is below one non-member."""
    return "-" if isnan(value) else percent(value, 2) + ("" if resolvable else UNRESOLVED)


def score(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3g}"


def epsilon(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2f}"


def counts(values) -> str:
    """40,000, or 39,990 to 40,000 where they differ."""
    return " to ".join(f"{count:,}" for count in sorted({min(values), max(values)}))


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


# --- the audit ---


WIDTH = 80


def verdict(audit: pd.DataFrame) -> str:
    """A plain sentence or two, and a loud one for each target that shows more than it promises, in lines of WIDTH.

    audit: as in audit.csv."""
    known = audit.dropna(subset="epsilon_lower")
    if not len(known):
        return "no lower bound on epsilon: see above"
    several = f"median over {len(known)} targets; " * (len(known) > 1)
    guessed = f"{known.n_guesses.mean():,.0f} of {known.n_audited.mean():,.0f} samples guessed"
    share = known.n_correct.sum() / max(known.n_guesses.sum(), 1)
    lines = [
        f"at {known.confidence.iloc[0]:.0%} confidence the epsilon of this training is at least "
        f"{known.epsilon_lower.median():.2f} ({several}{known.attack.iloc[0]}, {guessed}, {share:.1%} of them right)"
    ]
    promised = known.dropna(subset="epsilon_upper")
    if len(promised):
        lines.append(
            f"by the accountant it is at most {promised.epsilon_upper.median():.2f}, "
            f"at delta {promised.delta.iloc[0]:g}: each model's promise, for its own training set"
        )
    lines += [
        f"VIOLATION: {row.target} shows epsilon {row.epsilon_lower:.2f} or more, above the promised "
        f"{row.epsilon_upper:.2f}: its training is not as private as it says"
        for row in promised[promised.epsilon_lower > promised.epsilon_upper].itertuples()
    ]
    return "\n".join(textwrap.fill(line, WIDTH) for line in lines)


# --- the terminal ---


BOLD, PLAIN = "\033[1m", "\033[0m"


def has_colours() -> bool:
    """Whether stdout is a terminal that wants them (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def headline(results: Results) -> str:
    """What was attacked, in a line."""
    models = results.target_models
    if not len(models):
        return results.made.get("data", results.name)
    several = f" over {len(models)} targets" * (len(models) > 1)
    return f"test accuracy {percent(models.test_accuracy.mean())}{several}"


def terminal_table(summary: pd.DataFrame, strongest: str, *, colour: bool = False) -> str:
    """The last lines on the screen, narrow enough for 80 columns. summary: as tables.summary_table() returns it;
    strongest: the attack that the shadows' own held-out scores call strongest, marked with * and, in colour, bold."""
    rows = [("attack", "accuracy [95 % interval]", "AUC", "TPR at 1 %", "0.1 % FPR")]
    for _, row in summary.iterrows():
        accuracy = with_interval(row.accuracy, row.accuracy_low, row.accuracy_high)
        rates = [rate(row[f"tpr_at_fpr_{x}"], row[f"resolvable_at_{x}"]) for x in ("0.01", "0.001")]
        rows.append((f"{row.attack}{' *' * (row.attack == strongest)}", accuracy, area(row.auc), *rates))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if colour:
        lines = [f"{BOLD}{line}{PLAIN}" if f"{strongest} * " in line else line for line in lines]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    if any(UNRESOLVED in line for line in lines):
        lines.append("† not resolvable with so few non-members: this is the TPR at FPR 0")
    foot = f"* strongest by the shadows' own held-out scores; {counts(summary.n_guesses)} guesses an attack"
    return "\n".join([*lines, foot])
