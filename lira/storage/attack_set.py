"""What one attack writes is one set: its tables and arrays, and attack.json, which names them with their digests.

attack.json is removed before the first file of the set is replaced, and written after the last: while it is there, the
set is of one attack. Files that it does not name are no part of the set: models.csv, train/, scores.npz."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from lira.atomic import locked, write_together
from lira.errors import CorruptedFile, InputError
from lira.storage.owner import ATTACK, UNFINISHED, Source, check_owner, read_json
from lira.storage.runs import csv_bytes

PAGE = "report.html"  # removed with the set that it shows


class AttackSet:
    """The set that an attack is to write into a folder that it has locked. unfinished: the locked file, which names
    the files of a set that is being written, so that they are known if this process is killed."""

    def __init__(self, results: Path, source: Source, unfinished: IO[bytes]):
        self._results, self._source, self._unfinished = results, source, unfinished

    def save(
        self, tables: Mapping[str, pd.DataFrame], arrays: Mapping[str, Mapping[str, np.ndarray]], record: Mapping
    ) -> None:
        """Write the set in place of an earlier one. record: what attack.json holds besides. Raises InputError; a full
        disk leaves the earlier set as it is."""
        digests: dict[str, str] = {}

        def write(name: str, content: Callable[[], bytes], file: IO[bytes]) -> None:
            data = content()
            digests[name] = hashlib.sha256(data).hexdigest()
            file.write(data)

        def write_record(file: IO[bytes]) -> None:  # the last: by now all digests are there
            content = {**record, "source": asdict(self._source), "files": digests}
            file.write(json.dumps(content, indent=2).encode() + b"\n")

        contents = {name: partial(csv_bytes, table) for name, table in tables.items()}
        contents |= {name: partial(_npz_bytes, content) for name, content in arrays.items()}
        writers = {name: partial(write, name, content) for name, content in contents.items()}
        write_together(
            self._results, writers | {ATTACK: write_record}, before=lambda: self._remove_earlier({*contents})
        )
        self._unfinished.truncate(0)

    def _remove_earlier(self, names: set[str]) -> None:
        """Remove the earlier set, without the files of these names, which are about to be replaced."""
        earlier = {name for file in (ATTACK, UNFINISHED) for name in _set_names(read_json(self._results / file))}
        content = {"source": asdict(self._source), "files": dict.fromkeys(sorted(earlier | names))}
        self._unfinished.seek(0)
        self._unfinished.truncate()
        self._unfinished.write(json.dumps(content).encode())
        self._unfinished.flush()
        os.fsync(self._unfinished.fileno())
        for name in (ATTACK, PAGE, *sorted(earlier - names)):
            (self._results / name).unlink(missing_ok=True)


def _set_names(record: Mapping[str, Any]) -> list[str]:
    """The files that an attack.json names; none outside its folder, whatever was put into it."""
    files = record.get("files")
    names = files if isinstance(files, dict) else {}
    return [name for name in names if name == Path(name).name and name.endswith((".csv", ".npz"))]


def lock_results(results: Path) -> AbstractContextManager[IO[bytes]]:
    """Inside, no other process attacks what these are the results of, or draws its page. Raises InputError."""
    return locked(results / UNFINISHED, f"another attack works on {results}")


@contextmanager
def complete_attack(results: Path, source: Source | None) -> Iterator[None]:
    """Inside, the folder of a complete attack is locked, for its page. Raises InputError where no attack is complete,
    or it is one on another source; None: any."""
    load_record(results)  # first: raises where there is nothing to lock
    with lock_results(results):
        if source:
            check_owner(results, source)
        yield


@contextmanager
def one_attack(results: Path, source: Source) -> Iterator[AttackSet]:
    """The set to write into a folder of results, locked inside: attacks take turns. Raises InputError where it belongs
    to another source. A folder in which nothing was written is removed."""
    try:
        with lock_results(results) as unfinished:
            check_owner(results, source)
            yield AttackSet(results, source, unfinished)
    finally:
        with suppress(OSError):  # not empty
            results.rmdir()


def _npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    file, untyped = io.BytesIO(), dict[str, Any](arrays)  # mypy takes ** of arrays for the flag allow_pickle
    np.savez(file, **untyped)
    return file.getvalue()


def load_record(results: Path) -> dict[str, Any]:
    """attack.json. Raises InputError, CorruptedFile."""
    path, remedy = results / ATTACK, "run attack_lira.py with the flags of this run"
    if not path.is_file():
        reason = (
            "an attack was interrupted while it wrote" if read_json(results / UNFINISHED) else "no attack is complete"
        )
        raise InputError(f"{path} is missing ({reason}): {remedy}")
    record = read_json(path)
    if not (names := _set_names(record)) or set(names) != set(record["files"]):
        raise CorruptedFile(path, "it does not name the tables of an attack, as in earlier versions", f"{remedy} again")
    return record


def load_file(results: Path, record: Mapping[str, Any], name: str) -> bytes:
    """The content of a file of the set. Raises InputError where it is not what the attack wrote."""
    path, remedy = results / name, "restore it, or run attack_lira.py again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), but {ATTACK} names it: {remedy}") from error
    if hashlib.sha256(content).hexdigest() != record["files"][name]:
        raise CorruptedFile(path, f"it is not what the attack of {ATTACK} wrote", remedy)
    return content
