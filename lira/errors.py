"""Errors that the user can fix, and lines on stderr that do not break the progress bars."""

import sys
import textwrap
from pathlib import Path

from tqdm import tqdm


class InputError(ValueError):
    """Bad input: one line that says what was wrong, the value received and what to do.

    The scripts print it without a traceback and end with exit status 2."""


class CorruptedFile(InputError):
    """A file that is not as it was written: cut, altered, or the file of another model."""

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(f"{path} is corrupted ({reason}); {remedy}")
        self.path, self.reason = path, reason


class ModelError(RuntimeError):
    """One model could not be trained; its name and the reason are the message. The other models go on."""


def one_line(error: BaseException) -> str:
    """The reason of an error that a library or the user's own code raised, in one line of at most 240 characters."""
    text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return textwrap.shorten(text, 240, placeholder=" …").rstrip(": ")


def log(line: str) -> None:
    """One line on stderr, above the progress bars."""
    tqdm.write(" ".join(line.splitlines()), file=sys.stderr)


def warn(line: str) -> None:
    """log() of something that went wrong and did not stop the run."""
    log(f"warning: {line}")
