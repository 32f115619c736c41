"""The table on the terminal."""

import pandas as pd


def terminal_table(summary: pd.DataFrame, strongest: str) -> str:
    """The last lines on the screen, narrow enough for 80 columns. summary: as tables.summary_table() returns it;
    strongest: the attack that the shadows' own left-out scores call strongest, marked with *."""
    rows = [("attack", "accuracy [95 % interval]", "AUC", "TPR at 1 %", "0.1 % FPR")]
    for _, row in summary.iterrows():
        interval = f"{row.accuracy:.1%} [{row.accuracy_low:.1%}, {row.accuracy_high:.1%}]"
        rates = [f"{row[f'tpr_at_fpr_{x}']:.2%}{'' if row[f'resolvable_at_{x}'] else '†'}" for x in ("0.01", "0.001")]
        cells = interval, f"{row.auc:.3f}", *rates
        shown = ["-" if "nan" in cell else cell for cell in cells]  # not defined: no threshold, or one side only
        rows.append((f"{row.attack}{' *' * (row.attack == strongest)}", *shown))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    guesses = " to ".join(f"{count:,}" for count in sorted({summary.guesses.min(), summary.guesses.max()}))
    if any("†" in line for line in lines):
        lines.append("† not resolvable with so few non-members: this is the TPR at FPR 0")
    return "\n".join([*lines, f"* strongest by the shadows' own left-out scores; {guesses} guesses an attack"])
