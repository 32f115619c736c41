"""Files that are complete or absent.

A file is written under a temporary name, forced to disk and renamed, and its folder is forced to disk: under its final
name it is complete, whenever the process is killed. Where two processes write the same file, both write a complete one
and the last rename wins."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from lira.errors import InputError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock

    CAN_LOCK = True
except ImportError:  # Windows: nothing is locked, and no temporary file is removed
    CAN_LOCK = False


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = True, secret: bool = False
) -> None:
    """Call write(file) on a temporary file beside `path`, force it to disk, and rename it. Raises InputError.

    durable: False for a file that is soon written again or also stored elsewhere; a power cut may then lose it.
    secret: only the user may read the file, whatever the umask (mode 0600)."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")  # named first: Ctrl-C leaves none
        try:
            with os.fdopen(_create_locked(temporary), "wb") as file:
                write(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                if not secret:
                    temporary.chmod(0o666 & ~_umask())
                if CAN_LOCK:  # renamed while it is locked: remove_stale() never takes it for a stale file
                    temporary.replace(path)
            if not CAN_LOCK:
                temporary.replace(path)
            if durable:
                _fsync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Mapping) -> None:
    """write_atomically() as indented JSON."""
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=2).encode() + b"\n"))


def remove_stale(folder: Path) -> None:
    """Remove the temporary files of killed processes; those of a running process are locked."""
    if not CAN_LOCK:
        return
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns an OSError (full disk, folder without write permission) into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; earlier results are intact") from error


def _create_locked(path: Path) -> int:
    """A new file that only the user may read, open and locked until it is closed."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        if CAN_LOCK:
            with contextlib.suppress(OSError):  # a file system without locks: remove_stale() cannot lock either
                flock(handle, LOCK_EX)
            if not os.fstat(handle).st_nlink:  # remove_stale() of another process ran before it was locked
                os.close(handle)
                continue
        return handle


def _fsync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can force a folder to disk; Windows cannot."""
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
