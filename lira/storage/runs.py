"""The disk contract: where a run keeps its weights, logs and tables, how they are written, and when they are stale.

    model/<run>/config.json, target_00.pt, shadow_00.pt …        result/<run>/train/*.csv, *.csv, scores.npz

Every file is written to a temporary name, forced to disk and renamed: a file under its final name is complete."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lira.atomic import remove_stale, writable, write_atomically
from lira.errors import CorruptedFile, InputError, one_line, warn
from lira.storage.checksums import digest
from lira.storage.models import ModelFiles
from lira.storage.names import model_name, run_name, safe_name

LOG_COLUMNS = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
MODEL_COLUMNS = [
    "role", "index", "test_accuracy", "train_accuracy", "epsilon", "seconds", "device",
    "delta", "sigma", "max_grad_norm", "sample_rate", "steps",
]  # fmt: skip


@dataclass(frozen=True)
class Run(ModelFiles):
    """One run on disk. models: the folder of weights, results: the folder of everything else.

    identity: digest of the run's settings, which every file of a model carries beside the model's name, so that a file
    from elsewhere is not taken for this model's."""

    models: Path
    results: Path
    identity: str = ""

    @property
    def name(self) -> str:
        return self.models.name

    def similar_runs(self) -> list[str]:
        """Other runs of the same data set and network beside this one."""
        kin = "_".join(self.name.split("_")[:2])
        return sorted(path.name for path in self.models.parent.glob(f"{kin}_*") if path.name != self.name)

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of processes that were killed."""
        for folder in (self.models, self.results, self.results / "train"):
            remove_stale(folder)

    def count(self, jobs: Iterable[tuple[str, int]]) -> int:
        """How many of these models have weights on disk, whoever made them."""
        return sum(self.has_weights(*job) for job in jobs)

    def is_complete(self, role: str, index: int) -> bool:
        """Whether a model's weights lie on disk and are sound; reads all of them.

        Corrupted weights are named and moved aside, so that they can be made again; a training log that was corrupted or
        lost is written again from the copy beside the weights."""
        if not self.has_valid_weights(role, index):
            return False
        path, kept = self.results / "train" / f"{model_name(role, index)}.csv", self._kept_log(role, index)
        if kept and (not path.is_file() or path.read_bytes() != kept):
            warn(f"{path} was corrupted, changed or lost: written again from the copy beside the weights")
            write_atomically(path, lambda file: file.write(kept))
        return True

    # --- tables and scores ---

    def save_log(self, model: str, history: list[dict]) -> None:
        """Written anew after every epoch, so not forced to disk: the weights file and the resume file hold it too."""
        self.save_table(f"train/{model}.csv", pd.DataFrame(history), durable=False)

    def load_logs(self) -> dict[str, pd.DataFrame]:
        """model -> its training log. One that is not as it was written is named, and the copy beside the weights is
        used instead; it is left out where there is no copy."""
        logs, complete = {}, {self.weights_path(*job).stem: job for job in self.models_on_disk()}
        for path in sorted((self.results / "train").glob("*.csv")):
            try:
                text = path.read_bytes()
                job = complete.get(path.stem)
                kept = self._kept_log(*job) if job else None
                if kept and kept != text:
                    warn(f"{path} is corrupted or was changed: the copy beside the weights is used instead")
                log = pd.read_csv(io.BytesIO(kept or text))
                if not set(LOG_COLUMNS) <= set(log):
                    raise ValueError("it is no training log")
                logs[path.stem] = log
            except (OSError, ValueError) as error:
                warn(f"{path} is left out: {one_line(error)}")
        return logs

    def _kept_log(self, role: str, index: int) -> bytes | None:
        """The training log as the weights file keeps it, the text of its CSV; None where there is none."""
        history = self.record(role, index).get("history")
        return _csv(pd.DataFrame(history)) if history else None

    def save_table(self, name: str, table: pd.DataFrame, *, durable: bool = True) -> None:
        write_atomically(self.results / name, lambda file: file.write(_csv(table)), durable=durable)

    def save_models_table(self) -> pd.DataFrame:
        """models.csv, a row for every sound model that lies on disk, whoever trained it; a corrupted one is named."""
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
        write_atomically(self.results / name, lambda file: file.write(_json(content)))

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        write_atomically(self.results / name, lambda file: np.savez(file, **arrays))

    def save_scores(self, **arrays: np.ndarray) -> None:
        arrays["sha256"] = np.array(digest(arrays))
        write_atomically(self.results / "scores.npz", lambda file: np.savez(file, **arrays))

    def load_scores(self) -> dict[str, np.ndarray] | None:
        """The arrays of scores.npz; None where there is no such file, or after saying that it is corrupted."""
        path = self.results / "scores.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if str(arrays.pop("sha256")) == digest(arrays):
                return arrays
            reason = "its checksum does not match"
        except FileNotFoundError:
            return None
        except Exception as error:  # NumPy raises whatever the corrupted bytes lead it to
            reason = one_line(error)
        warn(f"{path} is corrupted ({reason}): all models are asked again")
        return None


def results_only(result_dir: str, source: Path) -> Run:
    """A run without models: the results of scores that came from the file `source`, in a folder of the same name."""
    title, folder = safe_name(source.name), source.name.removesuffix(".npz")
    return Run(Path(title), Path(result_dir) / (folder if folder.strip(".") else title))


def find_results(result_dir: str, identities: Sequence[Mapping]) -> Run:
    """The results of the first of these runs that lie on disk, to be read without its models.

    identities: as for open_run(), but what only the data could tell may be None: it is not compared. Raises
    InputError where there is none, or where config.json belongs to other settings."""
    for identity in identities:
        folder = Path(result_dir) / run_name(identity)
        if folder.is_dir():
            if (folder / "config.json").exists():
                known = {field: value for field, value in identity.items() if value is not None}
                _check_identity(folder / "config.json", known, fields=known)
            return Run(folder, folder)
    folder = Path(result_dir) / run_name(identities[0])
    near = ", ".join(Run(folder, folder).similar_runs())
    raise InputError(
        f"{folder} does not exist: there is nothing to report on; give the flags of the run that was attacked"
        + (f" (there are the runs {near})" if near else "")
    )


def open_run(model_dir: str, result_dir: str, identity: Mapping, *, provenance: Mapping | None = None) -> Run:
    """The run with this identity. With provenance it is created if need be, without it must exist.

    Raises InputError where config.json in model/<run>/ or result/<run>/ belongs to other settings, naming the field."""
    name = run_name(identity)
    run = Run(Path(model_dir) / name, Path(result_dir) / name, digest(identity))
    paths = [folder / "config.json" for folder in (run.models, run.results)]  # either folder may be moved or shared
    with writable(run.models):
        found = [path for path in paths if path.exists()]
    for path in found:
        _check_identity(path, identity)
    content = {"identity": dict(identity), "provenance": dict(provenance or {})}
    for path in [] if provenance is None else [path for path in paths if path not in found]:
        write_atomically(path, lambda file: file.write(_json(content)))
    return run


def _check_identity(path: Path, identity: Mapping, *, fields: Iterable[str] | None = None) -> None:
    """fields: those to compare, by default all."""
    try:
        stored = dict(json.loads(path.read_text())["identity"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "restore it, or delete it: models that were made with other settings will be noticed and made again"
        raise CorruptedFile(path, str(error), remedy) from error
    for field in {**stored, **identity} if fields is None else fields:
        if stored.get(field) != identity.get(field):
            raise InputError(
                f"{path} was made with {field} = {stored.get(field)!r}, these flags and data ask for "
                f"{identity.get(field)!r}; use the old value, or another --model-dir and --result-dir"
            )


def _json(content: Mapping) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
