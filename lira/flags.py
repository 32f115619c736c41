"""Command-line flags made from the fields of dataclasses: each default exists once."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import Field, field
from difflib import get_close_matches
from math import isfinite
from typing import Any, NoReturn

from lira.errors import InputError

MAX_INTEGER = 2**63 - 1  # what torch and NumPy can take
METAVARS = {int: "N", float: "X", str: "NAME"}


class Parser(argparse.ArgumentParser):
    """Raises InputError for bad flags, and suggests the nearest one."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            suggestion = suggest(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{suggestion}")
        for action in self._actions:  # some versions of argparse give [] for --flag=--
            if getattr(namespace, action.dest, None) == []:
                self.error(f"argument {'/'.join(action.option_strings)}: expected one argument")
        return namespace

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def find_name(text: str, names: Iterable[str]) -> str | None:
    """The one of these names that equals text without regard to case."""
    return next((name for name in names if name.casefold() == text.casefold()), None)


def suggest(text: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest of these names, or nothing if none is near."""
    nearest = get_close_matches(text.casefold(), by_case := {name.casefold(): name for name in names}, n=1)
    return f", did you mean {by_case[nearest[0]]}?" if nearest else ""


def flag(
    default: Any,
    *names: str,
    help: str,
    choices: tuple[str, ...] | None = None,
    type: Callable[[str], Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    metavar: str | None = None,
    many: bool = False,
    changes_models: bool = True,
) -> Any:
    """A dataclass field that is also a command-line flag.

    names: replace the default `--field-name`; low, high: see check_range(); many: a tuple of at least one value;
    changes_models: a flag beside --run must agree with the run."""
    parse = type or (choice(choices) if choices else str if many else default.__class__)
    spec = dict(names=names, help=help, choices=choices, type=parse, low=low, high=high, metavar=metavar, many=many)
    return field(default=default, metadata=spec | {"changes_models": changes_models})


def choice(names: tuple[str, ...]) -> Callable[[str], str]:
    """The type of a flag that takes one of these names, in any case."""

    def parse(text: str) -> str:
        if name := find_name(text, names):
            return name
        suggestion = suggest(text, names) or ","
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r}{suggestion} choose from {', '.join(names)}")

    return parse


def add_argument(section: argparse._ArgumentGroup, item: Field, *, dest: str, show: bool = True) -> None:
    """Add the flag of one field to a section of the parser; its help ends with the default, if it is shown.

    A flag that is not on the command line sets nothing."""
    spec, help_text = item.metadata, item.metadata["help"]
    if "(default" not in help_text:
        off = item.default in (None, ()) or isinstance(item.default, bool)
        help_text += f" (default: {'off' if off else item.default})"
    settings: dict[str, Any] = dict(dest=dest, default=argparse.SUPPRESS, help=help_text if show else argparse.SUPPRESS)
    if spec["type"] is bool:
        settings |= dict(action="store_false" if item.default else "store_true")
    else:
        metavar = spec["metavar"] or (f"{{{','.join(spec['choices'])}}}" if spec["choices"] else METAVARS[spec["type"]])
        settings |= dict(type=spec["type"], metavar=metavar, nargs="+" if spec["many"] else None)
    section.add_argument(*_names(item), **settings)


def flag_name(item: Field) -> str:
    """The flag of a field as messages and commands write it."""
    return _names(item)[-1]


def _names(item: Field) -> tuple[str, ...]:
    return item.metadata["names"] or (f"--{item.name.replace('_', '-')}",)


def check_range(item: Field, value: Any) -> None:
    """Raises InputError. A value may equal a bound that is an int, but not one that is a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    name, low, high = flag_name(item), item.metadata["low"], item.metadata["high"]
    real = isinstance(value, float)
    number: Callable[[float], str] = "{:g}".format if real else _digits  # {:g} rounds large integers
    if high is None and not real:
        high = MAX_INTEGER
    open_below, open_above = isinstance(low, float), isinstance(high, float)
    if low is not None and (value < low or (open_below and value == low)):
        raise InputError(f"{name} must be {'above' if open_below else 'at least'} {number(low)}, got {number(value)}")
    if high is not None and (value > high or (open_above and value == high)):
        raise InputError(f"{name} must be {'below' if open_above else 'at most'} {number(high)}, got {number(value)}")
    if real and not isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")


def _digits(integer: float) -> str:
    text = str(integer)
    return text if len(text) <= 40 else f"{text[:20]}… ({len(text)} digits)"


def shard(text: str) -> tuple[int, int]:
    """The type of a flag I/N."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, like 1/4: got {text!r}")
    return int(part), int(parts)


def names(text: str) -> tuple[str, ...]:
    """The type of a flag NAME,NAME: without duplicates."""
    unique = tuple(dict.fromkeys(filter(None, text.replace(" ", "").split(","))))
    if not unique:
        raise argparse.ArgumentTypeError(f"must be names with commas between them, like lira,rmia: got {text!r}")
    return unique
