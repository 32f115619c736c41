"""Models -> phi: what a model says of every target sample, in eval mode and fp32, under declared augmentations.

Letters: N target samples, A queries a sample, B batch, K classes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lira.attacks.statistics import scaled_logit
from lira.data.store import IDENTITY, Query
from lira.errors import InputError


def declared_queries(n: int, *, flip: bool, margin: int) -> tuple[Query, ...]:
    """The first n of a fixed list, the same for every model: the identity, then its mirror image (where flip), then
    shifts by 1, 2, … `margin` pixels, along the axes first. Raises InputError where the list is shorter."""
    mirrored = (False, True) if flip else (False,)
    directions = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
    shifts = [(d * down, d * right) for d in range(1, margin + 1) for down, right in directions]
    every = [(down, right, mirror) for down, right in [(0, 0), *shifts] for mirror in mirrored]
    if n > len(every):
        raise InputError(f"--n-queries must be at most {len(every)} for images of this size and kind: got {n}")
    return tuple(every[:n])


@torch.no_grad()
def query_model(
    model: nn.Module,
    images: Callable[[torch.Tensor, Query], torch.Tensor],
    index: torch.Tensor,
    label: torch.Tensor,
    *,
    queries: tuple[Query, ...] = (IDENTITY,),
    batch_size: int,
) -> np.ndarray:
    """phi of every target sample and query, float32 (N, A).

    images(index (B,), query) -> float32 (B, C, H, W); index: int64 (N,); label: int64 (N,), the true classes.
    Batch normalisation uses its running statistics and nothing is rounded to bf16 or TF32, whatever the model was
    trained with: otherwise a sample's score would depend on its neighbours in the batch, or on the card."""
    model = model.eval().float()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits = [
            torch.cat([model(images(part, query)).cpu() for part in index.split(batch_size)]) for query in queries
        ]  # A times (N, K)
    return np.stack([scaled_logit(part.numpy(), label.cpu().numpy()) for part in logits], axis=1).astype(np.float32)
