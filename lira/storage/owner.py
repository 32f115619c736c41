"""Whose a folder of results is: the results of one source are never written over those of another."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lira.errors import InputError
from lira.storage.checksums import digest, file_digest
from lira.storage.config import read_config

ATTACK = "attack.json"  # of a complete attack
UNFINISHED = ".attack.lock"  # what an attack under way, or one that was killed, is about to write; locked by the former


@dataclass(frozen=True)
class Source:
    """What is attacked. name: for messages; sha256: of its content. run: the digest of the identity of the run whose
    config.json may lie in the folder, None for scores from elsewhere."""

    name: str
    sha256: str
    run: str | None = None


def source_of_file(flag: str, path: str) -> Source:
    """A file of scores from elsewhere, by its bytes: it may move, and another file may have its name. Raises InputError
    where it cannot be read."""
    try:
        return Source(f"{flag} {Path(path).resolve()}", file_digest(Path(path)))
    except OSError as error:
        raise InputError(f"{flag} {path} cannot be read: {error.strerror}; make it readable") from error


def check_owner(results: Path, source: Source) -> None:
    """Raises InputError where a folder holds the results of another source, naming both."""
    for file in (ATTACK, UNFINISHED):
        owner = read_json(results / file).get("source", {})
        if owner and owner.get("sha256") != source.sha256:
            _reject(results, f"{owner.get('name')} (sha256 {str(owner.get('sha256'))[:12]}…, by its {file})", source)
    if (results / "config.json").is_file() and digest(read_config(results)["identity"]) != source.run:
        _reject(results, f"the run {results.name} (by its config.json)", source)


def _reject(results: Path, owner: str, source: Source) -> None:
    raise InputError(
        f"{results} holds the results of {owner}, not of {source.name} (sha256 {source.sha256[:12]}…): give the file "
        "another name, or use another --result-dir"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where the file is missing, half written or holds something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
