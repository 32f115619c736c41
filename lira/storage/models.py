"""The files of one model under model/<run>/: weights, what an unfinished one goes on from, why one failed."""

import contextlib
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lira.atomic import writable, write_atomically
from lira.errors import CorruptedFile, InputError, one_line, warn
from lira.storage.checksums import digest
from lira.storage.names import ROLES, model_name

_WEIGHTS = re.compile(rf"({'|'.join(ROLES)})_(\d+)\.pt")


class ModelFiles:
    """models: the folder. identity: digest of the run's settings, which every file of a model carries beside the
    model's name, so that a file from elsewhere is not taken for this model's."""

    models: Path
    identity: str

    def weights_path(self, role: str, index: int) -> Path:
        return self.models / f"{model_name(role, index)}.pt"

    def resume_path(self, role: str, index: int) -> Path:
        return self.weights_path(role, index).with_suffix(".resume.pt")

    def failure_path(self, role: str, index: int) -> Path:
        return self.weights_path(role, index).with_suffix(".failed.json")

    def models_on_disk(self) -> list[tuple[str, int]]:
        """(role, index) of every model with weights, targets first."""
        found = filter(None, (_WEIGHTS.fullmatch(path.name) for path in self.models.glob("*.pt")))
        return sorted(((match[1], int(match[2])) for match in found), key=lambda job: (ROLES.index(job[0]), job[1]))

    # --- weights ---

    def has_weights(self, role: str, index: int) -> bool:
        return self.weights_path(role, index).is_file()

    def save_weights(self, role: str, index: int, weights: Mapping[str, torch.Tensor], record: dict) -> None:
        """weights: a state_dict; record: plain values about the model, kept in the same file.

        The model is complete from here on: what it left behind while unfinished is removed."""
        path = self.weights_path(role, index)
        weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        record = {**record, "sha256": digest(weights), "belongs_to": self._owner(path)}
        save_tensors(path, {"weights": weights, "record": record, "sha256": digest(record)})
        self._forget(role, index)

    def load_weights(self, role: str, index: int) -> dict[str, torch.Tensor]:
        """The state_dict, checked against its checksum. Raises CorruptedFile."""
        content = self._load_model(role, index)
        if digest(content["weights"]) != content["record"]["sha256"]:
            raise self._corrupted(self.weights_path(role, index), "its checksum does not match")
        return content["weights"]

    def record(self, role: str, index: int) -> dict:
        """What save_weights() was told about a model, with the checksum of its weights; reads no tensor."""
        return self._load_model(role, index, mmap=True)["record"]

    def has_valid_weights(self, role: str, index: int) -> bool:
        """has_weights() after reading all of them. Corrupted ones are named and moved aside, to be made again; what a
        complete model left behind while it was unfinished is removed."""
        path = self.weights_path(role, index)
        try:
            self.load_weights(role, index)
        except FileNotFoundError:
            return False
        except CorruptedFile as error:
            aside = path.with_suffix(".pt.corrupted")
            warn(f"{path} is corrupted ({error.reason}): moved to {aside.name}, the model is trained again")
            with writable(path):
                path.replace(aside)
            return False
        self._forget(role, index)
        return True

    def _load_model(self, role: str, index: int, **how) -> dict:
        path = self.weights_path(role, index)
        content = self._load(path, keys={"weights", "record", "sha256"}, **how)
        if digest(content["record"]) != content["sha256"]:
            raise self._corrupted(path, "its checksum does not match")
        if content["record"]["belongs_to"] != self._owner(path):
            raise self._corrupted(path, "it holds another model, or one made with other settings")
        return content

    def _load(self, path: Path, **how) -> dict:
        try:
            return load_tensors(path, **how)
        except (InputError, FileNotFoundError):
            raise
        except ValueError as error:
            raise self._corrupted(path, str(error)) from error

    def _owner(self, path: Path) -> str:
        return f"{path.name} {self.identity}"

    def _corrupted(self, path: Path, reason: str) -> CorruptedFile:
        return CorruptedFile(path, reason, "train_model.py with the same flags makes it anew")

    # --- unfinished models ---

    def save_resume(self, role: str, index: int, state: Mapping) -> None:
        """state: nested dicts and lists of tensors and plain values, all that the rest of the training depends on."""
        path = self.resume_path(role, index)
        save_tensors(path, {"state": state, "sha256": digest([self._owner(path), state])})

    def load_resume(self, role: str, index: int) -> dict | None:
        """The last state that save_resume() was given; None where there is none, or after saying that it is corrupted."""
        path = self.resume_path(role, index)
        try:
            content = self._load(path, keys={"state", "sha256"})
            if content["sha256"] == digest([self._owner(path), content["state"]]):
                return content["state"]
            reason = "its checksum does not match"
        except FileNotFoundError:
            return None
        except CorruptedFile as error:
            reason = error.reason
        warn(f"{path} is corrupted ({reason}): the model is trained from its beginning")
        return None

    def epochs_completed(self, role: str, index: int) -> int:
        """Epochs that an unfinished model has behind it according to its resume file; reads no tensor."""
        with contextlib.suppress(FileNotFoundError, InputError, TypeError, KeyError):
            content = self._load(self.resume_path(role, index), keys={"state", "sha256"}, mmap=True)
            return len(content["state"]["history"])
        return 0

    def save_failure(self, role: str, index: int, reason: str) -> None:
        """Record why a model could not be trained, for whoever looks at the run."""
        content = {"reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_atomically(
            self.failure_path(role, index), lambda file: file.write(json.dumps(content, indent=2).encode() + b"\n")
        )

    def failure(self, role: str, index: int) -> str | None:
        """Why a model could not be trained; None where nothing is recorded."""
        path = self.failure_path(role, index)
        try:
            return str(json.loads(path.read_text())["reason"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return f"the reason in {path} cannot be read"

    def clear_failures(self, jobs: Sequence[tuple[str, int]]) -> None:
        """Every model gets another chance."""
        for job in jobs:
            _remove(self.failure_path(*job))

    def _forget(self, role: str, index: int) -> None:
        for path in (self.resume_path(role, index), self.failure_path(role, index)):
            _remove(path)


def _remove(path: Path) -> None:
    with writable(path):
        path.unlink(missing_ok=True)


def save_tensors(path: Path, content: Mapping) -> None:
    """torch.save, atomically. Through memory: torch aborts the process where a write to its file fails."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def load_tensors(path: Path, *, keys: set[str], **how) -> dict:
    """What save_tensors() wrote, on the CPU, without running anything that the file holds.

    Raises FileNotFoundError, InputError where it cannot be read, ValueError where it holds something else."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, **how)
    except Exception as error:  # torch raises whatever the corrupted bytes lead it to
        raise ValueError(one_line(error)) from error
    if not isinstance(content, dict) or set(content) != keys:
        raise ValueError("it holds something else")
    return content
