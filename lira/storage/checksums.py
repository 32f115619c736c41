"""sha256 over nested content, and over files."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch


def digest(content: object) -> str:
    """sha256 over nested mappings, lists, arrays, tensors and plain values: names, types, shapes and bytes."""
    sha = hashlib.sha256()
    _feed(sha.update, content)
    return sha.hexdigest()


def file_digest(path: Path) -> str:
    """sha256 over the bytes of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _feed(update: Callable[[bytes | memoryview], object], value: object) -> None:
    if isinstance(value, Mapping):
        update(b"{%d" % len(value))
        for key in sorted(value, key=repr):
            _feed(update, key)
            _feed(update, value[key])
    elif isinstance(value, list | tuple):
        update(b"[%d" % len(value))
        for item in value:
            _feed(update, item)
    elif isinstance(value, torch.Tensor | np.ndarray):
        update(f"<{value.dtype} {tuple(value.shape)}".encode())
        if isinstance(value, torch.Tensor):  # to bytes first: NumPy has no bfloat16
            value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    else:
        update(f"({type(value).__name__} {value!r}".encode())
