"""How a figure is written: the same on the terminal, on the page and in the alt texts. NaN, which is not defined
(no threshold, or members alone), is a dash."""

from math import isnan

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
