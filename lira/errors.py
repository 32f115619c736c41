"""Errors that the user can fix, and what is printed: no text steers the terminal, no closed pipe stops the work."""

import contextlib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

# Control characters except tab and line feed, marks that reverse the direction of text, and halves of characters
# (lone surrogates), by which Python represents bytes of a file name that are no UTF-8.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(ValueError):
    """Bad input: one line with what was wrong, the value received and what to do.

    The scripts print it without a traceback and exit with status 2."""


class CorruptedFile(InputError):
    """A file whose content is not what was written: truncated, altered, or the file of another model."""

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(f"{path} is corrupted ({reason}); {remedy}")
        self.reason = reason


class ModelError(RuntimeError):
    """One model failed; the message is the reason. The other models go on.

    final: its training would fail again from its resume file, whatever is changed; traceback: of an error in the
    network's code, empty where the reason says it all."""

    def __init__(self, reason: str, *, final: bool = False, traceback: str = ""):
        super().__init__(reason)
        self.final, self.traceback = final, traceback


class DeviceError(ModelError):
    """A model failed and left its device unusable for this process, which can take no further model."""


def printable(text: str) -> str:
    """text with escapes in place of CONTROL characters, which could clear a terminal, or rename its window."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def out_of_memory(error: BaseException) -> str:
    """What an error says of a lack of memory, in one line; empty for an error of another kind. torch, NumPy and the
    system's loader each report it in their own way."""
    message = str(error).partition("\n")[0]
    lacks = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, RuntimeError | OSError | ImportError):
        texts = ("allocate memory", "failed to map segment", "start new thread")
        lacks = lacks or any(text in message for text in texts)
    if not lacks:
        return ""
    return message.rpartition("DefaultCPUAllocator: ")[2].partition(". ")[0] or "no memory left"


def one_line(error: BaseException) -> str:
    """Type and message of an error that a library or the user's code raised, in one line of at most 240 characters.

    The first line of the message; if that ends with a colon, all lines."""
    message = str(error).strip()
    first_line = message.partition("\n")[0]
    text = f"{type(error).__name__}: {message if first_line.endswith(':') else first_line}"
    return textwrap.shorten(text, 240, placeholder=" …").rstrip(": ")


def plural(count: int, noun: str) -> str:
    """1 model, 1,000 models."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def log(line: str) -> None:
    """One line on stderr, above the progress bars."""
    tqdm.write(printable(" ".join(line.split("\n"))), file=sys.stderr)


def warn(line: str) -> None:
    """log() of a problem that does not stop the run."""
    log(f"warning: {line}")


class _Output:
    """stdout or stderr of a script. What its encoding lacks, and control characters other than those that `keep`
    matches, are written as escapes. After an error, of a closed pipe or a full disk, the rest of the text is lost: the
    work goes on, its results are files."""

    def __init__(self, stream: Any, keep: str):
        # Python has no stream for a descriptor that was closed by `>&-`
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: PTH123, SIM115
        self._keep = re.compile(f"({keep})")
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        parts = self._keep.split(text)  # other text and matches in turn
        parts[::2] = map(printable, parts[::2])
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._call(self._stream.write, "".join(parts).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        self._call(self._stream.flush)

    def _call(self, method: Callable[..., object], *arguments: str) -> None:
        if self.error:
            return
        try:
            method(*arguments)
        except OSError as error:
            self.error = error
            with contextlib.suppress(OSError):  # so that what is left in its buffer goes nowhere when Python exits
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_output() -> Iterator[Callable[[], int]]:
    """Inside, print() and log() cannot fail, and no name that they print steers the terminal. Gives a function that
    flushes stdout and returns the exit status, 1 if stdout did not take its text; 0 if its reader has closed a pipe."""
    for descriptor in (0, 1, 2):  # a closed one would be taken by the next file that is opened, which print() writes to
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    # Kept: bold and plain, in the table of attacks; carriage return and line up, in progress bars.
    stdout, stderr = _Output(sys.stdout, "\033\\[[01]m"), _Output(sys.stderr, "\r|\033\\[A")
    sys.stdout, sys.stderr = stdout, stderr

    def status() -> int:
        stdout.flush()
        if not stdout.error or isinstance(stdout.error, BrokenPipeError):
            return 0
        log(f"error: cannot write to stdout: {stdout.error.strerror}; the results are complete on disk")
        return 1

    try:
        yield status
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before
