"""Networks for the tests of a fleet: small, with all that a resume file has to carry (buffers, dropout's draws)."""

import torch
from torch import nn


def make(num_classes, in_channels):
    return nn.Sequential(
        nn.Flatten(),
        nn.LazyLinear(12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(12, num_classes),
    )


def _unlucky() -> bool:
    """True for some of the models: a draw that depends on the model's seed alone, and uses up no random number."""
    return torch.initial_seed() % 3 == 0


def diverging(num_classes, in_channels):
    """Some of the models have no finite loss."""
    model = make(num_classes, in_channels)
    if _unlucky():
        model.append(_Lambda(lambda x: x * float("nan")))
    return model


def hungry(num_classes, in_channels):
    """Some of the models ask for a petabyte as soon as they train."""
    model = make(num_classes, in_channels)
    if _unlucky():
        model.append(_Lambda(lambda x: x + torch.empty(2**50).sum() if x.requires_grad else x))
    return model


class _Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
