"""What the audit of a run says, in words."""

import textwrap

import pandas as pd

WIDTH = 80


def verdict(audit: pd.DataFrame) -> str:
    """A plain sentence or two, and a loud one for each target that shows more than it promises, in lines of WIDTH.

    audit: as in audit.csv."""
    known = audit.dropna(subset="epsilon_lower")
    if not len(known):
        return "no lower bound on epsilon: see above"
    several = f"median over {len(known)} targets; " * (len(known) > 1)
    guessed = f"{known.guesses.mean():,.0f} of {known.audited.mean():,.0f} samples guessed"
    share = known.right.sum() / max(known.guesses.sum(), 1)
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
