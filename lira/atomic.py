"""Files that are complete or absent.

A file is written under a temporary name, forced to disk and renamed, and its folder is forced to disk: under its final
name it is complete, whenever the process is killed. Where two processes write the same file, both write a complete one
and the last rename wins."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from lira.errors import InputError, log, warn

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
        with _temporary(path, write, durable=durable, secret=secret) as temporary:
            temporary.replace(path)
        if durable:
            _fsync_folder(path.parent)


def write_together(
    folder: Path, files: Mapping[str, Callable[[IO[bytes]], object]], *, before: Callable[[], None]
) -> None:
    """Write files of one folder, name -> write(file), of which the last makes the others valid. Raises InputError.

    All are complete under temporary names before any is renamed, so that a full disk leaves the folder as it is.
    before(): called before the first is renamed."""
    with writable(folder), contextlib.ExitStack() as stack:
        temporaries = {
            folder / name: stack.enter_context(_temporary(folder / name, write)) for name, write in files.items()
        }
        before()
        for number, (path, temporary) in enumerate(temporaries.items(), start=1):
            if number == len(temporaries):
                _fsync_folder(folder)
            temporary.replace(path)
        _fsync_folder(folder)


@contextlib.contextmanager
def _temporary(
    path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = True, secret: bool = False
) -> Iterator[Path]:
    """A temporary file beside `path` with what write(file) wrote, to be renamed inside; removed if it was not."""
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
                yield temporary
        if not CAN_LOCK:
            yield temporary
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
def locked(path: Path, busy: str) -> Iterator[IO[bytes]]:
    """A file, locked inside: of all processes one at a time is there, the others wait. busy: what they log. Removed at
    the end where it is empty. Where the file system has no locks, that is a warning. Raises InputError."""
    with writable(path):
        handle = _open_locked(path, busy)
    with os.fdopen(handle, "r+b") as file:
        try:
            yield file
        finally:
            if not os.fstat(handle).st_size:
                path.unlink(missing_ok=True)


def _open_locked(path: Path, busy: str) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _lock(handle, busy)
        except OSError as error:
            warn(f"{path.parent} cannot be locked ({error.strerror}): run one attack on it at a time")
            return handle
        except BaseException:
            os.close(handle)
            raise
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # whoever had the lock has removed the file since


def _lock(handle: int, busy: str) -> None:
    """Raises OSError where there are no locks."""
    if not CAN_LOCK:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        log(f"{busy}: waiting until it is done")
        flock(handle, LOCK_EX)


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
