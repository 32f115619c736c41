"""Command-line flags made from the fields of dataclasses: each default exists once."""

import argparse
from dataclasses import Field, field, fields
from math import isfinite

from lira.errors import InputError

METAVARS = {int: "N", float: "X", str: "NAME"}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message} (see --help)")


def flag(default, *names, help, choices=None, type=None, low=None, high=None, metavar=None, many=False):
    """A dataclass field that is also a command-line flag. `names` replace the default `--field-name`; many: a tuple
    of one value or more."""
    kind = type or (str if many else default.__class__)
    spec = dict(names=names, help=help, choices=choices, type=kind, low=low, high=high, metavar=metavar, many=many)
    return field(default=default, metadata=spec)


def add_argument(section, item: Field, *, dest: str) -> None:
    """The flag of one field, in a section of an argparse parser; its help ends in the default."""
    spec, common = item.metadata, dict(dest=dest, default=item.default)
    off = item.default in (None, ()) or isinstance(item.default, bool)
    shown = "" if "(default" in spec["help"] else f" (default: {'off' if off else item.default})"
    if spec["type"] is bool:
        action = "store_false" if item.default else "store_true"
        section.add_argument(*_names(item), action=action, help=spec["help"] + shown, **common)
        return
    metavar = spec["metavar"] or (None if spec["choices"] else METAVARS[spec["type"]])
    section.add_argument(
        *_names(item), type=spec["type"], choices=spec["choices"], metavar=metavar,
        nargs="+" if spec["many"] else None, help=spec["help"] + shown, **common,
    )  # fmt: skip


def flag_name(item: Field) -> str:
    """What a flag is called in a message and in a command."""
    return _names(item)[-1]


def _names(item: Field) -> tuple[str, ...]:
    return item.metadata["names"] or (f"--{item.name.replace('_', '-')}",)


def value(item: Field, parsed):
    return tuple(parsed) if item.metadata["many"] else parsed  # a list of argparse, which is not hashable


def spelled(item: Field, value) -> list[str]:
    """The words on the command line that give the field this value."""
    name = flag_name(item)
    if value is None or isinstance(value, bool):
        return [] if value is None else [name]
    if item.metadata["many"]:
        return [name, *value]
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def check_range(item: Field, value) -> None:
    """Raises InputError. Whole numbers may equal their bounds; a real number must lie strictly between them."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    name, low, high = flag_name(item), item.metadata["low"], item.metadata["high"]
    strict = isinstance(value, float)
    number = "{:g}".format if strict else str  # {:g} would round a large whole number
    if low is not None and (value <= low if strict else value < low):
        raise InputError(f"{name} must be {'above' if strict else 'at least'} {number(low)}, got {number(value)}")
    if high is not None and (value >= high if strict else value > high):
        raise InputError(f"{name} must be {'below' if strict else 'at most'} {number(high)}, got {number(value)}")
    if not isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")


def reject_flags(group: object, *names: str, script: str) -> None:
    """Raises InputError where one of these fields is given: it asks for something that only the other script does."""
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
    """The type of a flag NAME,NAME."""
    found = tuple(dict.fromkeys(filter(None, text.replace(" ", "").split(","))))
    if not found:
        raise argparse.ArgumentTypeError(f"must be names with commas between them, like lira,rmia: got {text!r}")
    return found
