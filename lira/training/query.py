"""Query a model: phi of every target sample, from eval-mode fp32 logits, under a fixed list of augmentations.

Letters: N target samples, A queries per sample, B batch, K classes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lira.attacks.statistics import scaled_logit
from lira.data.store import Query
from lira.errors import InputError


def declared_queries(n: int, *, flip: bool, margin: int) -> tuple[Query, ...]:
    """The first n of a fixed list, the same for every model: the identity and its mirror image, then shifts by 1, 2, …
    `margin` pixels, along the axes first, each with its mirror image. Mirror images only if flip. Raises InputError if
    the list is shorter than n."""
    flips = (False, True) if flip else (False,)
    directions = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
    shifts = [(d * down, d * right) for d in range(1, margin + 1) for down, right in directions]
    queries = [(down, right, mirror) for down, right in [(0, 0), *shifts] for mirror in flips]
    if n > len(queries):
        raise InputError(f"--n-queries must be at most {len(queries)} for images of this size and kind: got {n}")
    return tuple(queries[:n])


@torch.no_grad()
def query_logits(
    model: nn.Module,
    images: Callable[[torch.Tensor, Query], torch.Tensor],
    index: torch.Tensor,
    *,
    queries: tuple[Query, ...],
    batch_size: int,
) -> np.ndarray:
    """Logits of every query at every target sample, float32 (A, N, K). Arguments as for query_model()."""
    model = model.eval().float()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits = [
            torch.cat([model(images(batch, query)).cpu() for batch in index.split(batch_size)]) for query in queries
        ]
    return torch.stack(logits).numpy()


def query_model(
    model: nn.Module,
    images: Callable[[torch.Tensor, Query], torch.Tensor],
    index: torch.Tensor,
    label: torch.Tensor,
    *,
    queries: tuple[Query, ...],
    batch_size: int,
) -> np.ndarray:
    """phi of every target sample and query, float32 (N, A). Higher = more confident in the true class.

    images(index (B,), query) -> float32 (B, C, H, W); index: int64 (N,); label: int64 (N,), the true classes.
    Not finite where the logits are not, or where phi exceeds float32.
    Batch normalization uses its running statistics, and nothing is rounded to bf16 or TF32, whatever the precision of
    training: otherwise a sample's score would depend on the other images of its batch, or on the GPU."""
    logits = query_logits(model, images, index, queries=queries, batch_size=batch_size)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([scaled_logit(z, label.cpu().numpy()) for z in logits], axis=1).astype(np.float32)
