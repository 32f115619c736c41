"""Weights that were trained elsewhere: a state_dict in a file of torch.save, and the network that they fit."""

import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lira.errors import CorruptedFile, InputError, one_line
from lira.storage.checksums import digest
from lira.storage.config import read_config
from lira.storage.names import Job

# Under which a checkpoint usually holds the state_dict, the most telling first; "weights" is our own files'.
STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "weights", "model", "net", "network", "params", "module")
WRAPPERS = {"module", "_orig_mod", "_module"}  # parts of a key by DataParallel, torch.compile and Opacus
N_NAMED = 3  # keys in a message

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds. weights: a state_dict; member: array, the target samples that it was trained on, None
    where it does not say; record: of a model of this toolkit, else None."""

    path: Path
    weights: Weights
    member: np.ndarray | None = None
    record: dict | None = None

    @property
    def sha256(self) -> str:
        return digest(self.weights)

    def trained_as(self) -> tuple[Job, dict] | None:
        """The model that it is of a run of this toolkit, and the identity of that run, by the config.json beside it;
        None where it is another file, or not in its run's folder."""
        if not self.record or not (self.path.parent / "config.json").is_file():
            return None
        identity = read_config(self.path.parent)["identity"]
        name, _, run = self.record["belongs_to"].partition(" ")
        role, _, index = name.removesuffix(".pt").rpartition("_")
        return ((role, int(index)), identity) if run == digest(identity) else None


def read_checkpoint(path: Path) -> Checkpoint:
    """A state_dict, or a checkpoint that holds one, on the CPU and without running code from it. Raises InputError."""
    flag = f"--target-weights {path}"
    if not path.is_file():
        raise InputError(f"{flag}: no such file; give a file of torch.save(model.state_dict(), ...)")
    if path.suffix == ".safetensors":
        line = f"torch.save(safetensors.torch.load_file({path.name!r}), {path.with_suffix('.pt').name!r})"
        raise InputError(f"{flag}: a state_dict saved by torch is read; convert it with {line}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a TorchScript archive, which is rejected
            content = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):  # of torch 1.6 and newer; torch does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} in it does not match")
    except Exception as error:  # torch raises errors of many kinds for corrupted bytes
        if "weights_only" in str(error).lower().replace(" ", "_"):  # what it would run, or a TorchScript archive
            raise InputError(
                f"{flag} holds more than tensors and plain values, such as a whole model, and would run code when it "
                "is read: where you trust it, save torch.save(model.state_dict(), ...) alone"
            ) from error
        raise InputError(f"{flag} cannot be read ({one_line(error)}): save it again with torch.save") from error
    weights = _state_dict(content)
    if not weights:
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{flag} holds no state_dict, neither itself nor under {', '.join(STATE_KEYS)} (it holds {keys}): save "
            "torch.save(model.state_dict(), ...)"
        )
    if set(content) == {"weights", "record", "sha256"}:  # a file of this toolkit
        if digest(content["record"]) != content["sha256"] or digest(weights) != content["record"]["sha256"]:
            raise CorruptedFile(path, "its checksum does not match", "copy it again from where it was trained")
        return Checkpoint(path, weights, record=content["record"])
    member = content.get("member")
    return Checkpoint(
        path, weights, np.asarray(member) if content.keys() != weights.keys() and member is not None else None
    )


def _state_dict(content: object, depth: int = 5) -> Weights:
    """content itself, or what it holds under one of STATE_KEYS, nested to this depth; empty where that is no
    state_dict."""
    if not isinstance(content, Mapping) or not depth:
        return {}
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return {str(key): value for key, value in content.items()}
    found = (_state_dict(content[key], depth - 1) for key in STATE_KEYS if key in content)
    return next(filter(None, found), {})


def load_into(model: nn.Module, checkpoint: Checkpoint) -> None:
    """The weights of a checkpoint, whatever wrapped its network; half precision becomes fp32.

    Raises InputError naming the keys or shapes that differ."""
    expected = model.state_dict()
    weights = _renamed(checkpoint.weights, expected)
    flag = f"--target-weights {checkpoint.path} does not fit --network:"
    missing, unexpected = ([key for key in a if key not in b] for a, b in ((expected, weights), (weights, expected)))
    if missing or unexpected:
        parts = [f"{_named(missing)} missing"] if missing else []
        parts += [f"{_named(unexpected)} unknown to the network"] if unexpected else []
        raise InputError(f"{flag} {'; '.join(parts)}; give the network that was trained, as module:factory")
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            shapes = f"{key} is {tuple(value.shape)} in the file and {tuple(expected[key].shape)} in the network"
            raise InputError(f"{flag} {shapes}; give the network that was trained, and data of all its classes")
    try:
        model.load_state_dict(weights)
    except Exception as error:  # of tensors that cannot be copied, as quantized ones
        raise InputError(f"{flag} {one_line(error)}; save the weights as plain floating-point tensors") from error


def _renamed(weights: Weights, expected: Iterable[str]) -> Weights:
    """The weights by the network's keys: without the parts of WRAPPERS, and with or without a common prefix, as of a
    module inside another. Unchanged where that does not give these keys."""
    keys = set(expected)
    if keys == weights.keys():
        return weights
    plain = {".".join(part for part in key.split(".") if part not in WRAPPERS): value for key, value in weights.items()}
    if len(plain) < len(weights):  # two keys became one
        return weights
    first = next(iter(plain)).split(".")
    for other in (key.split(".") for key in sorted(keys)):
        n = 0  # parts at the end of both keys; what comes before them is replaced in all keys
        while n < min(len(first), len(other)) and first[-n - 1] == other[-n - 1]:
            n += 1
        old, new = ("".join(f"{part}." for part in parts[: len(parts) - n]) for parts in (first, other))
        candidate = {new + key.removeprefix(old): value for key, value in plain.items()}
        if candidate.keys() == keys:
            return candidate
    return plain


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - N_NAMED} more" if len(keys) > N_NAMED else ""
    return f"{', '.join(keys[:N_NAMED])}{more}"
