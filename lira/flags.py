"""Command-line flags made from the fields of dataclasses: each default exists once."""

import argparse
from collections.abc import Callable
from dataclasses import Field, field, fields
from math import isfinite
from typing import Any, NoReturn

from lira.errors import InputError

METAVARS = {int: "N", float: "X", str: "NAME"}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


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
) -> Any:
    """A dataclass field that is also a command-line flag.

    names: replace the default `--field-name`; low, high: see check_range(); many: a tuple of at least one value."""
    parse = type or (str if many else default.__class__)
    spec = dict(names=names, help=help, choices=choices, type=parse, low=low, high=high, metavar=metavar, many=many)
    return field(default=default, metadata=spec)


def add_argument(section: argparse._ArgumentGroup, item: Field, *, dest: str) -> None:
    """Add the flag of one field to a section of the parser; its help ends with the default."""
    spec, help_text = item.metadata, item.metadata["help"]
    if "(default" not in help_text:
        off = item.default in (None, ()) or isinstance(item.default, bool)
        help_text += f" (default: {'off' if off else item.default})"
    if spec["type"] is bool:
        action = "store_false" if item.default else "store_true"
        section.add_argument(*_names(item), dest=dest, default=item.default, action=action, help=help_text)
        return
    section.add_argument(
        *_names(item),
        dest=dest,
        default=item.default,
        type=spec["type"],
        choices=spec["choices"],
        metavar=spec["metavar"] or (None if spec["choices"] else METAVARS[spec["type"]]),
        nargs="+" if spec["many"] else None,
        help=help_text,
    )


def flag_name(item: Field) -> str:
    """The flag of a field as messages and commands write it."""
    return _names(item)[-1]


def _names(item: Field) -> tuple[str, ...]:
    return item.metadata["names"] or (f"--{item.name.replace('_', '-')}",)


def as_arguments(item: Field, value: Any) -> list[str]:
    """The command-line arguments that give the field this value."""
    name = flag_name(item)
    if value is None or isinstance(value, bool):
        return [] if value is None else [name]
    if item.metadata["many"]:
        return [name, *value]
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def check_range(item: Field, value: Any) -> None:
    """Raises InputError. Integers may equal their bounds; a real number must lie strictly between them."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    name, low, high = flag_name(item), item.metadata["low"], item.metadata["high"]
    strict = isinstance(value, float)
    number: Callable[[float], str] = "{:g}".format if strict else str  # {:g} would round a large integer
    if low is not None and (value <= low if strict else value < low):
        raise InputError(f"{name} must be {'above' if strict else 'at least'} {number(low)}, got {number(value)}")
    if high is not None and (value >= high if strict else value > high):
        raise InputError(f"{name} must be {'below' if strict else 'at most'} {number(high)}, got {number(value)}")
    if not isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")


def reject_flags(group: Any, *names: str, script: str) -> None:
    """Raises InputError if one of these fields of a dataclass differs from its default: only `script` reads it."""
    for item in fields(group):
        if item.name in names and getattr(group, item.name) != item.default:
            raise InputError(f"{flag_name(item)} is a flag of {script}: give it there, or leave it out")


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
