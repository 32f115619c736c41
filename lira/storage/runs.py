"""The folders of a run, its logs and tables, and whether they belong to the settings at hand.

    model/<run>/config.json, target_00.pt, shadow_00.pt …        result/<run>/train/*.csv, *.csv, scores.npz

Either folder may be moved or shared: both hold a config.json, and both are checked."""

import contextlib
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from lira.atomic import remove_stale, write_atomically, write_json
from lira.errors import CorruptedFile, one_line, warn
from lira.privacy.audit import Mechanism
from lira.storage.checksums import digest
from lira.storage.config import check_configs, read_config, write_config
from lira.storage.models import ModelFiles
from lira.storage.names import Job, model_name, run_name, safe_name
from lira.storage.owner import Source, check_owner

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

    @property
    def source(self) -> Source:
        """Whose the folder of its results is."""
        return Source(f"the run {self.name}", self.identity, self.identity)

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of processes that were killed."""
        for folder in (self.models, self.results, self.results / "train"):
            remove_stale(folder)

    def n_complete(self, jobs: Iterable[Job]) -> int:
        """How many of these models have weights on disk."""
        return sum(self.has_weights(*job) for job in jobs)

    def is_complete(self, role: str, index: int, model: nn.Module | None = None) -> bool:
        """has_valid_weights(); if so, a corrupted or lost training log is restored from its copy in the weights."""
        if not self.has_valid_weights(role, index, model):
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
                if job and (n_epochs := self._n_private_epochs(*job)) and len(log) != n_epochs:
                    raise ValueError(f"it ends after epoch {len(log)} of {n_epochs}")
                logs[path.stem] = log
            except (OSError, ValueError) as error:
                warn(f"{path} is left out: {one_line(error)}")
        return logs

    def _log_copy(self, role: str, index: int) -> bytes | None:
        """The CSV of the training log that the weights file holds; None if it holds none."""
        history = self.record(role, index).get("history")
        return csv_bytes(pd.DataFrame(history)) if history else None

    def _n_private_epochs(self, role: str, index: int) -> int:
        """Of a complete private model, whose weights file holds no copy of its log; 0 of another one."""
        record = self.record(role, index)
        return round(record["steps"] * record["sample_rate"]) if "steps" in record else 0

    def save_models_table(self) -> pd.DataFrame:
        """Write models.csv, and return it."""
        table = self.models_table()
        self.save_table("models.csv", table)
        return table

    def models_table(self) -> pd.DataFrame:
        """models.csv: one row per model on disk; a corrupted one is named and left out. Accuracies of
        private models, whose weights files hold none, come from their logs, and are empty where the log is lost."""
        records: dict[Job, dict] = {}
        for job in self.models_on_disk():
            try:
                records[job] = self.record(*job)
            except CorruptedFile as error:
                warn(str(error))
        private = any("history" not in record for record in records.values())
        logs = self.load_logs() if private else {}
        rows = []
        for (role, index), record in records.items():
            log = logs.get(model_name(role, index))
            logged = {} if log is None or log.empty else log.iloc[-1][["test_accuracy", "train_accuracy"]].to_dict()
            rows.append({"role": role, "index": index} | logged | record)
        return pd.DataFrame(rows, columns=MODEL_COLUMNS)

    def guarantees(self, n_targets: int) -> np.ndarray:
        """(epsilon, delta) of each target, float64 (T, 2)."""
        records = [self.record("target", index) for index in range(n_targets)]
        return np.array([[record["epsilon"], record["delta"]] for record in records])

    def save_table(self, name: str, table: pd.DataFrame, *, durable: bool = True) -> None:
        write_atomically(self.results / name, lambda file: file.write(csv_bytes(table)), durable=durable)

    def save_json(self, name: str, content: Mapping) -> None:
        write_json(self.results / name, content)

    def mechanisms(self, n_targets: int) -> tuple[Mechanism, ...]:
        """What the guarantee of each target is claimed for."""
        records = [self.record("target", index) for index in range(n_targets)]
        return tuple(Mechanism(record["sigma"], record["sample_rate"], record["steps"]) for record in records)

    def n_canaries(self) -> int | None:
        """The number of gradient canaries of the first valid target on disk; None without one."""
        for role, index in self.models_on_disk():
            with contextlib.suppress(CorruptedFile):
                if role == "target":
                    return self.record(role, index).get("canaries", 0)
        return None

    def _canaries_path(self, role: str, index: int, weights_digest: str) -> Path:
        return self.results / "train" / f"{model_name(role, index)}.canaries.{weights_digest[:16]}.npz"

    def save_canaries(
        self, role: str, index: int, weights: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> None:
        """What the gradient canaries of a target with these weights showed; to be called before save_weights().

        Named after the weights and written before them: weights on disk imply the results of their canaries, whenever a
        process is killed and whichever of two launches of one run writes last, without a lock. What is left behind by a
        killed one belongs to no weights and is never read. It is the auditor's, not for publication."""
        path = self._canaries_path(role, index, digest(weights))
        self.save_arrays(str(path.relative_to(self.results)), arrays, checksum=True)

    def load_canaries(self, role: str, index: int) -> dict[str, np.ndarray]:
        """The arrays given to save_canaries() with the weights on disk. Raises FileNotFoundError, CorruptedFile."""
        return read_arrays(self._canaries_path(role, index, self.record(role, index)["sha256"]))

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray], *, checksum: bool = False) -> None:
        """checksum: one that read_arrays() verifies."""
        arrays = {**arrays, "sha256": np.array(digest(arrays))} if checksum else arrays
        untyped: dict[str, Any] = dict(arrays)  # mypy takes ** of arrays for the flag allow_pickle
        write_atomically(self.results / name, lambda file: np.savez(file, **untyped))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file with a checksum; no pickles. Raises FileNotFoundError, CorruptedFile."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays.pop("sha256")) == digest(arrays):
            return arrays
        reason = "its checksum does not match"
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy raises errors of many kinds for corrupted bytes
        raise CorruptedFile(path, one_line(error), "restore it") from error
    raise CorruptedFile(path, reason, "restore it")


def results_only(result_dir: str, name: str) -> Run:
    """The results of a run, to be read or written without its models. name: of the folder in result_dir."""
    folder = Path(result_dir, name)
    return Run(folder, folder)


def results_of_scores(result_dir: str, source: str) -> Run:
    """The results of attacks on the scores in the file `source`, in a folder of the same name."""
    name = Path(source).name.removesuffix(".npz")
    return results_only(result_dir, name if name.strip(".") else safe_name(name))


def open_run(
    model_dir: str,
    result_dir: str,
    identity: Mapping,
    *,
    name: str | None = None,
    record: Mapping | None = None,
    not_compared: Sequence[str] = (),
) -> Run:
    """The run with this identity. name: of its folders, where they were renamed. record: what else config.json holds;
    with it missing folders are created, without it nothing is written. not_compared: fields that are as in config.json,
    whatever they are. Raises InputError, CorruptedFile as check_configs(), and where its folder of results belongs to
    another source."""
    name = name or run_name(identity)
    if not_compared and (Path(model_dir, name) / "config.json").is_file():
        stored = read_config(Path(model_dir, name))["identity"]
        identity = {**identity, **{field: stored.get(field) for field in not_compared}}
    run = Run(Path(model_dir, name), Path(result_dir, name), digest(identity))
    missing = check_configs((run.models, run.results), identity)
    check_owner(run.results, run.source)
    if record is not None:
        for folder in missing:
            write_config(folder, identity, record)
    return run


def csv_bytes(table: pd.DataFrame) -> bytes:
    """A table as its file holds it."""
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # in the name of a class: readers take it for the end of a row where it is not quoted
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text.encode()
