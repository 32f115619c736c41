"""config.json, which says what a run is. model/<run>/ and result/<run>/ hold the same one, written once.

Imports no torch: --run is looked up before anything heavy is imported."""

import json
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from lira.atomic import writable, write_json
from lira.errors import CorruptedFile, InputError
from lira.flags import suggest
from lira.storage.names import ROLES, weights_on_disk

FORMAT = 2  # of the files of a run; a config.json without a format number has format 1


def read_config(folder: Path) -> dict:
    """The config.json of this version's format in a folder, with its identity. Raises InputError, CorruptedFile."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        config["identity"], format_number = dict(config["identity"]), config.get("format", 1)
        if type(format_number) is not int:  # a bool is no number
            raise TypeError(f"its format is {format_number!r}, which is no integer")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "restore it, or delete it: models that were made with other settings are detected and made again"
        raise CorruptedFile(path, str(error), remedy) from error
    if format_number != FORMAT:
        raise InputError(
            f"{path} has format {format_number}, this version reads format {FORMAT}: use the version "
            "that made the run, or another --model-dir and --result-dir"
        )
    return config


def check_configs(folders: tuple[Path, ...], identity: Mapping) -> list[Path]:
    """Check the config.json of these folders against the identity of a run. Returns the folders without one. Raises
    InputError naming the field that differs."""
    with writable(folders[0]):
        missing = [folder for folder in folders if not (folder / "config.json").exists()]
    for folder in folders:
        stored = identity if folder in missing else read_config(folder)["identity"]
        for field in {**stored, **identity}:
            if stored.get(field) != identity.get(field):
                if field == "data_fingerprint":
                    raise InputError(
                        f"{folder / 'config.json'} was made with other data called {identity.get('dataset')}: their "
                        "images or labels differ from those given now; give the old data, or the new data another "
                        "name, or another --model-dir and --result-dir"
                    )
                raise InputError(
                    f"{folder / 'config.json'} was made with {field} = {stored.get(field)!r}, these flags and data "
                    f"give {identity.get(field)!r}; use the old value, or another --model-dir and --result-dir"
                )
    return missing


def write_config(folder: Path, identity: Mapping, record: Mapping) -> None:
    """record: what it holds beside the identity."""
    write_json(folder / "config.json", {"format": FORMAT, "identity": dict(identity), **record})


def find_folder(flag: str, name: str, parents: tuple[str, ...], file: str) -> Path:
    """The folder of this name in one of the parents, or at this path, that holds a file. Raises InputError naming the
    flag and the folders that there are."""
    for folder in (*(Path(parent, name) for parent in parents), Path(name)):
        if os.path.isfile(folder / file):  # noqa: PTH113 (Path.is_file() raises for a very long name)
            return Path(os.path.abspath(folder))  # noqa: PTH100 (resolve() would follow a link)
    names = sorted({path.parent.name for parent in parents for path in Path(parent).glob(f"*/{file}")})
    raise InputError(
        f"{flag} {name}: no folder of this name with {file} in {' or '.join(parents)}{suggest(Path(name).name, names)}"
        + (f" (runs there: {', '.join(names)})" if names else "")
    )


def find_run(run: str, model_dir: str, result_dir: str) -> tuple[Path, Path, dict]:
    """The folders of the weights and of the results of a run, and its config.json. run: the name of its folder in
    model_dir or result_dir, or the path of one of its folders. Raises InputError, CorruptedFile."""
    folder = find_folder("--run", run, (model_dir, result_dir), "config.json")
    models, results = Path(model_dir, folder.name), Path(result_dir, folder.name)
    if folder.resolve() not in (models.resolve(), results.resolve()):  # a path elsewhere
        models, results = (folder, results) if any(folder.glob("*.pt")) else (models, folder)
    return models, results, read_config(folder)


def n_on_disk(models: Path) -> tuple[int, int]:
    """How many targets and shadows have weights in a folder: without a gap from number 0, shadows in pairs."""
    jobs = set(weights_on_disk(models))
    n_targets, n_shadows = (next(n for n in count() if (role, n) not in jobs) for role in ROLES)
    return n_targets, n_shadows // 2 * 2
