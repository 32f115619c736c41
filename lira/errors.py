"""The errors that are the user's to mend, and the one way to say something while bars are drawn."""

import sys
from pathlib import Path

from tqdm import tqdm


class InputError(ValueError):
    """Bad input: one line that says what was wrong, the value received and what to do.

    The scripts print it without a traceback and end with exit status 2."""


class DamagedFile(InputError):
    """A file that is not what was written: cut, altered, or the file of another model."""

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(f"{path} is damaged ({reason}); {remedy}")
        self.path, self.reason = path, reason


class ModelError(RuntimeError):
    """One model could not be trained; its name and the reason are the message. The other models go on."""


def say(line: str) -> None:
    """A line on stderr that leaves the bars whole."""
    tqdm.write(" ".join(line.splitlines()), file=sys.stderr)
