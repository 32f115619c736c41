"""Models -> phi: what a model says of every target sample, in eval mode and fp32, under declared augmentations.

Letters: N target samples, A queries a sample, B batch, K classes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lira.attacks import scaled_logit
from lira.errors import InputError

IDENTITY = (0, 0, False)  # (pixels down, pixels right, mirrored)


def load_into(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """weights: a state_dict that was read from path. Raises InputError where the network has changed since."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).replace("\n", " ")
        raise InputError(
            f"{path} does not fit the network, whose code has changed since: {reason[:200]}; use the old code, or "
            "another --model-dir and --result-dir"
        ) from error


@torch.no_grad()
def query_model(
    model: nn.Module,
    pictures: Callable[[torch.Tensor, tuple[int, int, bool]], torch.Tensor],
    index: torch.Tensor,
    label: torch.Tensor,
    *,
    queries: tuple[tuple[int, int, bool], ...] = (IDENTITY,),
    batch_size: int,
) -> np.ndarray:
    """phi of every target sample and query, float32 (N, A).

    pictures(index (B,), query) -> float32 (B, C, H, W); index: int64 (N,); label: int64 (N,), the true classes.
    Batch normalisation uses its running statistics and nothing is rounded to bf16 or TF32, whatever the model was
    trained with: otherwise a sample's score would depend on its neighbours in the batch, or on the card."""
    model = model.eval().float()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits = [
            torch.cat([model(pictures(part, query)).cpu() for part in index.split(batch_size)]) for query in queries
        ]  # A times (N, K)
    return np.stack([scaled_logit(part.numpy(), label.cpu().numpy()) for part in logits], axis=1).astype(np.float32)
