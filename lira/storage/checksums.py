"""sha256 over nested content."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch


def digest(content) -> str:
    """sha256 over nested mappings, lists, arrays, tensors and plain values: names, types, shapes and bytes."""
    sha = hashlib.sha256()
    _feed(sha, content)
    return sha.hexdigest()


def _feed(sha, value) -> None:
    if isinstance(value, Mapping):
        sha.update(b"{%d" % len(value))
        for key in sorted(value, key=repr):
            _feed(sha, key)
            _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        sha.update(b"[%d" % len(value))
        for item in value:
            _feed(sha, item)
    elif isinstance(value, torch.Tensor | np.ndarray):
        sha.update(f"<{value.dtype} {tuple(value.shape)}".encode())
        if isinstance(value, torch.Tensor):  # to bytes first: NumPy has no bfloat16
            value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        sha.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    else:
        sha.update(f"({type(value).__name__} {value!r}".encode())
