"""The folders of a run, its logs and tables, and whether they belong to the settings at hand.

    model/<run>/config.json, target_00.pt, shadow_00.pt …        result/<run>/train/*.csv, *.csv, scores.npz

Either folder may be moved or shared: both hold a config.json, and both are checked."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lira.atomic import remove_stale, writable, write_atomically, write_json
from lira.errors import CorruptedFile, InputError, one_line, warn
from lira.storage.checksums import digest
from lira.storage.models import ModelFiles
from lira.storage.names import Job, model_name, run_name, safe_name

FORMAT = 2  # of the files of a run; a config.json without a format number has format 1
LOG_COLUMNS = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
MODEL_COLUMNS = ["role", "index", "test_accuracy", "train_accuracy", "epsilon", "seconds", "device"]
MODEL_COLUMNS += ["delta", "sigma", "max_grad_norm", "sample_rate", "steps"]


@dataclass(frozen=True)
class Run(ModelFiles):
    """One run on disk. models: the folder of the weights; results: the folder of everything else."""

    models: Path
    results: Path
    identity: str = ""

    @property
    def name(self) -> str:
        return self.models.name

    def similar_runs(self) -> list[str]:
        """Other runs of the same dataset and network beside this one."""
        dataset_and_network = "_".join(self.name.split("_")[:2])
        paths = self.models.parent.glob(f"{dataset_and_network}_*")
        return sorted(path.name for path in paths if path.name != self.name)

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of processes that were killed."""
        for folder in (self.models, self.results, self.results / "train"):
            remove_stale(folder)

    def n_complete(self, jobs: Iterable[Job]) -> int:
        """How many of these models have weights on disk."""
        return sum(self.has_weights(*job) for job in jobs)

    def is_complete(self, role: str, index: int) -> bool:
        """has_valid_weights(); if so, a corrupted or lost training log is restored from its copy in the weights."""
        if not self.has_valid_weights(role, index):
            return False
        path, copy = self.results / "train" / f"{model_name(role, index)}.csv", self._log_copy(role, index)
        if copy and (not path.is_file() or path.read_bytes() != copy):
            warn(f"{path} was corrupted, changed or lost: written again from the copy in the weights file")
            write_atomically(path, lambda file: file.write(copy))
        return True

    def save_log(self, model: str, history: list[dict]) -> None:
        """Written after every epoch, so not forced to disk: the weights file and the resume file hold a copy."""
        self.save_table(f"train/{model}.csv", pd.DataFrame(history), durable=False)

    def load_logs(self) -> dict[str, pd.DataFrame]:
        """model -> its training log. A corrupted one is named and replaced by the copy in the weights file, or left out
        if there is no copy."""
        logs, complete = {}, {self.weights_path(*job).stem: job for job in self.models_on_disk()}
        for path in sorted((self.results / "train").glob("*.csv")):
            try:
                content = path.read_bytes()
                job = complete.get(path.stem)
                copy = self._log_copy(*job) if job else None
                if copy and copy != content:
                    warn(f"{path} is corrupted or was changed: the copy in the weights file is used instead")
                log = pd.read_csv(io.BytesIO(copy or content))
                if not set(LOG_COLUMNS) <= set(log):
                    raise ValueError("it is no training log")
                logs[path.stem] = log
            except (OSError, ValueError) as error:
                warn(f"{path} is left out: {one_line(error)}")
        return logs

    def _log_copy(self, role: str, index: int) -> bytes | None:
        """The CSV of the training log that the weights file holds; None if it holds none."""
        history = self.record(role, index).get("history")
        return _csv(pd.DataFrame(history)) if history else None

    def save_table(self, name: str, table: pd.DataFrame, *, durable: bool = True) -> None:
        write_atomically(self.results / name, lambda file: file.write(_csv(table)), durable=durable)

    def save_models_table(self) -> pd.DataFrame:
        """Write and return models.csv: one row per model on disk; a corrupted one is named and left out."""
        rows = []
        for role, index in self.models_on_disk():
            try:
                rows.append({"role": role, "index": index} | self.record(role, index))
            except CorruptedFile as error:
                warn(str(error))
        table = pd.DataFrame(rows, columns=MODEL_COLUMNS)
        self.save_table("models.csv", table)
        return table

    def save_json(self, name: str, content: Mapping) -> None:
        write_json(self.results / name, content)

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        untyped: dict[str, Any] = dict(arrays)  # mypy takes ** of arrays for the flag allow_pickle
        write_atomically(self.results / name, lambda file: np.savez(file, **untyped))


def results_only(result_dir: str, source: Path) -> Run:
    """A run without models: the results of attacks on the scores in the file `source`, in a folder of the same name."""
    title, folder = safe_name(source.name), source.name.removesuffix(".npz")
    return Run(Path(title), Path(result_dir) / (folder if folder.strip(".") else title))


def find_results(result_dir: str, identities: Sequence[Mapping]) -> Run:
    """The first of these runs that has results on disk, to be read without its models.

    identities: as for open_run(), but a field that only the data could tell may be None: it is not compared.
    Raises InputError if no run has results, or if config.json has another format or belongs to other settings."""
    for identity in identities:
        folder = Path(result_dir) / run_name(identity)
        if folder.is_dir():
            if (folder / "config.json").exists():
                fields = [field for field, value in identity.items() if value is not None]
                _check_config(folder / "config.json", identity, fields=fields)
            return Run(folder, folder)
    folder = Path(result_dir) / run_name(identities[0])
    similar = ", ".join(Run(folder, folder).similar_runs())
    raise InputError(
        f"{folder} does not exist: there is nothing to report on; give the flags of the run that was attacked"
        + (f" (other runs: {similar})" if similar else "")
    )


def open_run(model_dir: str, result_dir: str, identity: Mapping, *, provenance: Mapping | None = None) -> Run:
    """The run with this identity. With provenance its missing folders are created, without it nothing is written.

    Raises InputError if config.json in model/<run>/ or result/<run>/ has another format or belongs to other settings,
    CorruptedFile if it cannot be read."""
    name = run_name(identity)
    run = Run(Path(model_dir) / name, Path(result_dir) / name, digest(identity))
    paths = [folder / "config.json" for folder in (run.models, run.results)]
    with writable(run.models):
        existing = [path for path in paths if path.exists()]
    for path in existing:
        _check_config(path, identity)
    if provenance is not None:
        for path in paths:
            if path not in existing:
                write_json(path, {"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)})
    return run


def read_config(path: Path) -> dict:
    """A config.json of this version's format, with its identity. Raises InputError, CorruptedFile if unreadable."""
    try:
        config = json.loads(path.read_text())
        config["identity"], format_number = dict(config["identity"]), config.get("format", 1)
        if type(format_number) is not int:  # a bool is no number
            raise TypeError(f"its format is {format_number!r}, which is no integer")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "restore it, or delete it: models that were made with other settings are detected and made again"
        raise CorruptedFile(path, str(error), remedy) from error
    if format_number != FORMAT:
        raise InputError(
            f"{path} has format {format_number}, this version reads format {FORMAT}: use the version "
            "that made the run, or another --model-dir and --result-dir"
        )
    return config


def _check_config(path: Path, identity: Mapping, *, fields: Iterable[str] | None = None) -> None:
    """read_config(), and InputError if a field differs. fields: those to compare, by default all."""
    stored = read_config(path)["identity"]
    for field in {**stored, **identity} if fields is None else fields:
        if stored.get(field) != identity.get(field):
            raise InputError(
                f"{path} was made with {field} = {stored.get(field)!r}, these flags and data give "
                f"{identity.get(field)!r}; use the old value, or another --model-dir and --result-dir"
            )


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
