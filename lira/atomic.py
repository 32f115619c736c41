"""Files that are complete or absent, and content that carries its checksum.

A file is written to a temporary name, forced to disk and renamed, and its folder forced to disk: under its final name
it is complete, whatever is killed. Two processes that write one file at the same time both write a whole one, and the
last of them stays."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from lira.errors import InputError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # not on Windows: nothing is locked, and nobody's temporary files are removed
    flock = None

# --- writing -------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, write: Callable, *, durable: bool = True) -> None:
    """Call write(file) on a temporary file beside `path`, force it to disk, and rename it. Raises InputError.

    durable: False for what is soon written again or kept elsewhere too; a power cut may then lose the last version."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
                if flock:  # renamed while it is locked, so that nobody ever takes it for a stale one
                    temporary.replace(path)
            if not flock:
                temporary.replace(path)
            if durable:
                _fsync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_stale(folder: Path) -> None:
    """Remove the temporary files that killed processes left; those that a living process writes are locked by it."""
    if not flock:
        return
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def writable(path: Path):
    """Turns a full disk or a folder that cannot be written into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; earlier results are intact") from error


def _temporary(path: Path) -> tuple[int, Path]:
    """A new file beside path, locked as long as it is open."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        if flock:
            with contextlib.suppress(OSError):  # a file system without locks: remove_stale() finds none either
                flock(handle, LOCK_EX)
            if not os.fstat(handle).st_nlink:  # another process tidied up in the instant before it was locked
                os.close(handle)
                continue
        return handle, Path(name)


def _fsync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut; not every file system, and not Windows, lets a folder be forced to disk."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
