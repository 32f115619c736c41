"""The files of one model under model/<run>/: weights, the state of an unfinished model, the reason of a failure."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from lira.atomic import writable, write_atomically, write_json
from lira.errors import CorruptedFile, InputError, ModelError, one_line, warn
from lira.storage.checksums import digest
from lira.storage.names import Job, model_name, weights_on_disk
from lira.storage.probe import probe_logits, same_logits
from lira.storage.provenance import timestamp


class ModelFiles:
    """models: the folder. identity: digest of the run's settings. Every file of a model carries it beside the model's
    name, so that a file of another model or run is detected."""

    models: Path
    identity: str

    def weights_path(self, role: str, index: int) -> Path:
        return self.models / f"{model_name(role, index)}.pt"

    def resume_path(self, role: str, index: int) -> Path:
        return self.weights_path(role, index).with_suffix(".resume.pt")

    def failure_path(self, role: str, index: int) -> Path:
        return self.weights_path(role, index).with_suffix(".failed.json")

    def models_on_disk(self) -> list[Job]:
        """Every model with weights, targets first."""
        return weights_on_disk(self.models)

    def has_weights(self, role: str, index: int) -> bool:
        return self.weights_path(role, index).is_file()

    def save_weights(self, role: str, index: int, weights: Mapping[str, torch.Tensor], record: Mapping) -> None:
        """weights: a state_dict; record: plain values about the model, stored in the same file.

        Completes the model: its resume file and an earlier failure are removed."""
        path = self.weights_path(role, index)
        weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        record = {**record, "sha256": digest(weights), "belongs_to": self._owner(path)}
        save_tensors(path, {"weights": weights, "record": record, "sha256": digest(record)})
        self._remove_unfinished(role, index)

    def load_weights(self, role: str, index: int) -> dict[str, torch.Tensor]:
        """The state_dict, checked against its checksum. Raises CorruptedFile."""
        return self._load_checked(role, index)["weights"]

    def _load_checked(self, role: str, index: int) -> dict:
        content = self._load_model(role, index)
        if digest(content["weights"]) != content["record"]["sha256"]:
            raise self._corrupted(self.weights_path(role, index), "its checksum does not match")
        return content

    def load_into(self, model: nn.Module, role: str, index: int) -> None:
        """load_weights() into a network. Raises InputError if they are those of another one, by its tensors or, where
        the file records a probe (files of earlier versions do not), by its logits."""
        path, content = self.weights_path(role, index), self._load_checked(role, index)
        remedy = "restore its code, or give the changed one a name or an --exp-idx of its own"
        try:
            model.load_state_dict(content["weights"])
        except RuntimeError as error:
            another = f"{path} holds the weights of another network than --network makes now"
            raise InputError(f"{another}: {remedy}") from error
        probe = content["record"].get("probe")
        if probe and not same_logits(probe_logits(model, tuple(probe["shape"])), probe["logits"]):
            raise InputError(
                f"{path} was trained with another network than --network makes now: with these weights its logits on "
                f"a fixed input are different; {remedy}"
            )

    def record(self, role: str, index: int) -> dict:
        """The record given to save_weights(), with sha256, the digest of the weights; reads no tensor."""
        return self._load_model(role, index, mmap=True)["record"]

    def has_valid_weights(self, role: str, index: int, model: nn.Module | None = None) -> bool:
        """Whether a model's weights are on disk and match their checksum. model: raises InputError as load_into().

        Corrupted weights are named and renamed to <name>.pt.corrupted, so that the model is trained again."""
        path = self.weights_path(role, index)
        try:
            self.load_into(model, role, index) if model else self.load_weights(role, index)
        except FileNotFoundError:
            return False
        except CorruptedFile as error:
            corrupted = path.with_suffix(".pt.corrupted")
            warn(f"{path} is corrupted ({error.reason}): moved to {corrupted.name}, the model is trained again")
            with writable(path), contextlib.suppress(FileNotFoundError):  # another process has renamed it
                path.replace(corrupted)
            return False
        self._remove_unfinished(role, index)
        return True

    def _load_model(self, role: str, index: int, *, mmap: bool = False) -> dict:
        path = self.weights_path(role, index)
        content = self._load(path, keys={"weights", "record", "sha256"}, mmap=mmap)
        if digest(content["record"]) != content["sha256"]:
            raise self._corrupted(path, "its checksum does not match")
        if content["record"]["belongs_to"] != self._owner(path):
            raise self._corrupted(path, "it holds another model, or one made with other settings")
        return content

    def _load(self, path: Path, *, keys: set[str], mmap: bool = False) -> dict:
        """The content given to save_tensors(), on the CPU, without running code from it. mmap: read no tensor yet.

        Raises FileNotFoundError, InputError if the file cannot be opened, CorruptedFile if it holds anything else."""
        try:
            path.open("rb").close()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:  # torch raises errors of many kinds for corrupted bytes
            raise self._corrupted(path, one_line(error)) from error
        if not isinstance(content, dict) or set(content) != keys:
            raise self._corrupted(path, "its content is not that of such a file")
        return content

    def _owner(self, path: Path) -> str:
        return f"{path.name} {self.identity}"

    def _corrupted(self, path: Path, reason: str) -> CorruptedFile:
        return CorruptedFile(path, reason, "train_model.py with the same flags trains the model again")

    def save_resume(self, role: str, index: int, state: Mapping) -> None:
        """state: nested dicts and lists of tensors and plain values; all that the remaining training depends on. With
        DP that includes the noise to come, so that only the user may read the file."""
        path = self.resume_path(role, index)
        content = {"state": state, "sha256": digest([self._owner(path), state])}
        save_tensors(path, content, secret="privacy" in state)

    def load_resume(self, role: str, index: int) -> dict | None:
        """The last state given to save_resume(); None if there is none, or, with a warning, a corrupted one."""
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
        """Completed epochs of an unfinished model according to its resume file; reads no tensor."""
        with contextlib.suppress(FileNotFoundError, InputError, TypeError, KeyError):
            content = self._load(self.resume_path(role, index), keys={"state", "sha256"}, mmap=True)
            return len(content["state"]["history"])
        return 0

    def save_failure(self, role: str, index: int, error: ModelError, *, remove_resume: bool) -> None:
        """Record why a model could not be trained. remove_resume: of a private one that would only fail again, since
        the file holds its noise."""
        if remove_resume:
            _remove(self.resume_path(role, index))
        path, reason = self.failure_path(role, index), str(error)
        if error.traceback:
            reason += f"; traceback in {path}"
        write_json(path, {"reason": reason, "time": timestamp(), "traceback": error.traceback.splitlines()})

    def failure(self, role: str, index: int) -> str | None:
        """Why a model could not be trained; None if no failure is recorded."""
        path = self.failure_path(role, index)
        try:
            return str(json.loads(path.read_text())["reason"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return f"the reason in {path} cannot be read"

    def clear_failures(self, jobs: Iterable[Job]) -> None:
        """Delete the recorded failures of these models: they are tried again."""
        for job in jobs:
            _remove(self.failure_path(*job))

    def _remove_unfinished(self, role: str, index: int) -> None:
        _remove(self.resume_path(role, index))
        _remove(self.failure_path(role, index))


def _remove(path: Path) -> None:
    with writable(path):
        path.unlink(missing_ok=True)


def save_tensors(path: Path, content: Mapping, *, secret: bool = False) -> None:
    """torch.save and write_atomically(). Through memory: torch aborts the process where a write to its file fails."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()), secret=secret)
