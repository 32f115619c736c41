"""A fixed random input, and what a network makes of it: tells networks apart that have the same weights.

A network's code is no part of a run. Every weights file holds the logits of its network on this input."""

import hashlib
import math

import numpy as np
import torch
from torch import nn

N_IMAGES = 8  # few enough for a thousand classes to take 32 KB, of which weights files take megabytes
TOLERANCE = 1e-3  # far above the rounding of another device or version of torch, far below another activation


def probe_images(shape: tuple[int, int, int], n: int = N_IMAGES) -> torch.Tensor:
    """float32 (n, C, H, W), uniform with mean 0 and variance 1. shape: (C, H, W).

    From SHAKE-256 of nothing: no generator is drawn from, and every version of every library gives the same."""
    content = np.frombuffer(hashlib.shake_256(b"").digest(n * math.prod(shape)), dtype=np.uint8)
    return torch.from_numpy((content.astype(np.float32) - 127.5) * np.float32(12**0.5 / 256)).view(n, *shape)


@torch.no_grad()
def probe_logits(model: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    """The logits of probe_images(shape), float32 (N_IMAGES, K) on the CPU, in eval mode and fp32 as when a model is
    queried. They follow from the network's code and weights alone. Leaves the network in eval mode."""
    model = model.eval().float()
    device = next(model.parameters(), torch.empty(0)).device
    images = probe_images(shape).to(device, memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return model(images).float().cpu()


def same_logits(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits agree within TOLERANCE of their size and of their spread, the standard deviation of `expected`."""
    if logits.shape != expected.shape:
        return False
    logits, expected = logits.double(), expected.double()
    finite = expected[expected.isfinite()]
    spread = finite.std(correction=0).item() if len(finite) else 0.0
    return torch.allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE * spread, equal_nan=True)
