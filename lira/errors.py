"""Errors that the user can fix, and lines on stderr that do not break the progress bars."""

import sys
import textwrap
from pathlib import Path

from tqdm import tqdm


class InputError(ValueError):
    """Bad input: one line with what was wrong, the value received and what to do.

    The scripts print it without a traceback and exit with status 2."""


class CorruptedFile(InputError):
    """A file whose content is not what was written: truncated, altered, or the file of another model."""

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(f"{path} is corrupted ({reason}); {remedy}")
        self.reason = reason


class ModelError(RuntimeError):
    """One model could not be trained; the message is the reason. The other models are still trained.

    final: its training would fail again from its resume file, whatever is changed."""

    def __init__(self, reason: str, *, final: bool = False):
        super().__init__(reason)
        self.final = final


def one_line(error: BaseException) -> str:
    """Type and message of an error that a library or the user's code raised, in one line of at most 240 characters.

    The first line of the message; if that ends with a colon, all lines."""
    message = str(error).strip()
    first_line = message.partition("\n")[0]
    text = f"{type(error).__name__}: {message if first_line.endswith(':') else first_line}"
    return textwrap.shorten(text, 240, placeholder=" …").rstrip(": ")


def log(line: str) -> None:
    """One line on stderr, above the progress bars."""
    tqdm.write(" ".join(line.splitlines()), file=sys.stderr)


def warn(line: str) -> None:
    """log() of a problem that does not stop the run."""
    log(f"warning: {line}")
