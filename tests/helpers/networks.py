"""Networks for the tests of a fleet: small, with all that a resume file has to carry (buffers, dropout's draws)."""

import torch
from torch import nn


def tiny(num_classes, in_channels):
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
    model = tiny(num_classes, in_channels)
    if _unlucky():
        model.append(_Lambda(lambda x: x * float("nan")))
    return model


def hungry(num_classes, in_channels):
    """Some of the models ask for a petabyte as soon as they train."""
    model = tiny(num_classes, in_channels)
    if _unlucky():
        model.append(_Lambda(lambda x: x + torch.empty(2**50).sum() if x.requires_grad else x))
    return model


class _Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def mlp(num_classes, in_channels):
    """Learns 340 images by heart in a second, and gives them away."""
    pooled = in_channels * 14 * 14
    layers = (nn.AdaptiveAvgPool2d(14), nn.Flatten(), nn.Linear(pooled, 32), nn.ReLU(), nn.Linear(32, num_classes))
    return nn.Sequential(*layers)


def normed(num_classes, in_channels):
    """With batch normalisation, whose answers depend on the neighbours in train mode, and in eval mode must not."""
    layers = (
        nn.Conv2d(in_channels, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, num_classes),
    )  # fmt: skip
    return nn.Sequential(*layers)


def lazy(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def one_logit_too_many(num_classes, in_channels):
    return mlp(num_classes + 1, in_channels)


def no_module(num_classes, in_channels):
    return "a string"


def fails(num_classes, in_channels):
    raise RuntimeError("first line\nsecond line")


def fails_in_training(num_classes, in_channels):
    return nn.Sequential(_FailsInTraining(), mlp(num_classes, in_channels))


class _FailsInTraining(nn.Module):
    def forward(self, x):
        if self.training:
            raise RuntimeError("first line\nsecond line")
        return x


class _Other(nn.Module):
    def forward(self, x):
        return torch.zeros(1, 2, 3)


def wrong_shape(num_classes, in_channels):
    return _Other()
