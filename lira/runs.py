"""The disk contract: where a run keeps its weights, logs and tables, how they are written, and when they are stale.

    model/<run>/config.json, target_00.pt, shadow_00.pt …        result/<run>/train/*.csv, *.csv, scores.npz

Every file is written to a temporary name, forced to disk and renamed: a file under its final name is complete."""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lira.errors import InputError
from lira.split import ROLES

MODEL_COLUMNS = ["role", "index", "test_accuracy", "train_accuracy", "epsilon", "seconds", "device"]


def safe_name(text: str) -> str:
    """A file name for a data set's path or a network: the last part of a path, without anything a path could use."""
    last = re.split(r"[\\/]", str(text).rstrip("\\/"))[-1].removesuffix(".npz")
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", last).strip(".-") or "unnamed"


def run_name(identity: Mapping) -> str:
    """The folder of a run, from the settings that change its models."""
    parts = [
        safe_name(identity["dataset"]), safe_name(identity["network"]), identity["optimizer"],
        f"lr{identity['lr']:g}", f"b{identity['batch_size']}", f"e{identity['epochs']}", identity["precision"],
    ]  # fmt: skip
    if not identity["augment"]:
        parts.append("noaug")
    if not identity["n_train_is_default"]:
        parts.append(f"n{identity['n_train']}")
    if "sigma" in identity:
        parts += [f"sigma{identity['sigma']:g}", f"C{identity['max_grad_norm']:g}"]
    return "_".join([*parts, f"exp{identity['exp_idx']}"])


@dataclass(frozen=True)
class Run:
    """One run on disk. models: the folder of weights, results: the folder of everything else."""

    models: Path
    results: Path

    @property
    def name(self) -> str:
        return self.models.name

    def weights_path(self, role: str, index: int) -> Path:
        return self.models / f"{role}_{index:02d}.pt"

    def neighbours(self) -> list[str]:
        """Other runs of the same data set and network beside this one."""
        kin = "_".join(self.name.split("_")[:2])
        return sorted(path.name for path in self.models.parent.glob(f"{kin}_*") if path.name != self.name)

    def has_weights(self, role: str, index: int) -> bool:
        return self.weights_path(role, index).is_file()

    # --- weights ---

    def save_weights(self, role: str, index: int, weights: Mapping[str, torch.Tensor], record: dict) -> None:
        """weights: a state_dict; record: plain values about the model, kept in the same file."""
        weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        content = {"weights": weights, "record": record, "sha256": _digest(weights)}
        packed = io.BytesIO()  # torch.save() into a file turns a full disk into a RuntimeError of its own
        torch.save(content, packed)
        write_atomically(self.weights_path(role, index), lambda file: file.write(packed.getbuffer()))

    def load_weights(self, role: str, index: int) -> dict[str, torch.Tensor]:
        """The state_dict, checked against its checksum. Raises InputError for a damaged file."""
        content = self._load(role, index)
        if _digest(content["weights"]) != content["sha256"]:
            raise _damaged(self.weights_path(role, index), "its checksum does not match")
        return content["weights"]

    def record(self, role: str, index: int) -> dict:
        """What save_weights() was told about a model, with the checksum of its weights; reads no tensor."""
        content = self._load(role, index, mmap=True)
        return content["record"] | {"sha256": content["sha256"]}

    def _load(self, role: str, index: int, **how) -> dict:
        path = self.weights_path(role, index)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, **how)
            if set(content) != {"weights", "record", "sha256"}:
                raise ValueError("it holds something else")
        except FileNotFoundError:
            raise
        except Exception as error:  # torch raises whatever the damaged bytes lead it to
            raise _damaged(path, str(error).partition("\n")[0] or type(error).__name__) from error
        return content

    # --- tables and scores ---

    def save_log(self, model: str, history: list[dict]) -> None:
        self.save_table(f"train/{model}.csv", pd.DataFrame(history))

    def load_logs(self) -> dict[str, pd.DataFrame]:
        """model -> its training log, of those that can be read."""
        logs = {}
        for path in sorted((self.results / "train").glob("*.csv")):
            with contextlib.suppress(OSError, ValueError):
                logs[path.stem] = pd.read_csv(path)
        return logs

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        path = self.results / name
        write_atomically(path, lambda file: file.write(table.to_csv(index=False, lineterminator="\n").encode()))

    def save_models_table(self) -> pd.DataFrame:
        """models.csv, a row for every model that lies on disk, whoever trained it."""
        rows = []
        for role in ROLES:
            names = (re.fullmatch(rf"{role}_(\d+)\.pt", path.name) for path in self.models.glob("*.pt"))
            for index in sorted(int(name[1]) for name in names if name):
                rows.append({"role": role, "index": index} | self.record(role, index))
        table = pd.DataFrame(rows, columns=MODEL_COLUMNS)
        self.save_table("models.csv", table)
        return table

    def save_figure(self, name: str, figure) -> None:
        """figure: a matplotlib figure; without a date, so that the same figure is the same bytes."""
        write_atomically(
            self.results / name, lambda file: figure.savefig(file, format="png", metadata={"Software": None})
        )

    def save_scores(self, **arrays: np.ndarray) -> None:
        arrays["sha256"] = np.array(_arrays_digest(arrays))
        write_atomically(self.results / "scores.npz", lambda file: np.savez(file, **arrays))

    def load_scores(self) -> dict[str, np.ndarray] | None:
        """The arrays of scores.npz; None where there is no such file or it is damaged, so that it is made anew."""
        try:
            with np.load(self.results / "scores.npz", allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            digest = str(arrays.pop("sha256"))
        except Exception:  # NumPy and zipfile raise whatever the damaged bytes lead them to
            return None
        return arrays if digest == _arrays_digest(arrays) else None


def results_only(result_dir: str, source: Path) -> Run:
    """A run without models: the results of scores that came from the file `source`."""
    name = safe_name(source)
    return Run(Path(name), Path(result_dir) / name)


def open_run(model_dir: str, result_dir: str, identity: Mapping, *, provenance: Mapping | None = None) -> Run:
    """The run with this identity. With provenance it is created if need be, without it must exist.

    Raises InputError where model/<run>/config.json belongs to other settings, naming the field."""
    name = run_name(identity)
    run = Run(Path(model_dir) / name, Path(result_dir) / name)
    path = run.models / "config.json"
    with writable(run.models):
        if provenance is not None and not path.exists():
            content = {"identity": dict(identity), "provenance": dict(provenance)}
            write_atomically(path, lambda file: file.write(json.dumps(content, indent=2).encode() + b"\n"))
    if path.exists():
        _check_identity(path, identity)
    return run


def _check_identity(path: Path, identity: Mapping) -> None:
    try:
        stored = dict(json.loads(path.read_text())["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    for field in {**stored, **identity}:
        if stored.get(field) != identity.get(field):
            raise InputError(
                f"{path} was made with {field} = {stored.get(field)!r}, these flags and data ask for "
                f"{identity.get(field)!r}; use the old value, or another --model-dir and --result-dir"
            )


def write_atomically(path: Path, write: Callable) -> None:
    """Call write(file) on a temporary file beside `path`, force it to disk, and rename it. Raises InputError."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writable(path: Path):
    """Turns a full disk or a folder that cannot be written into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; earlier results are intact") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged ({reason}); delete it and run the command again to make it anew")


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    return _arrays_digest(
        {f"{key} {value.dtype} {tuple(value.shape)}": value.flatten().view(torch.uint8).numpy()
         for key, value in weights.items()}
    )  # fmt: skip


def _arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.view(np.uint8).data if array.size and array.ndim else array.tobytes())
    return digest.hexdigest()
