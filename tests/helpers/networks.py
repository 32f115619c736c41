"""Small networks for the tests, on the command line `tests.helpers.networks:mlp`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def equal_weights(a, b) -> bool:
    """Whether two networks have bit-identical weights and buffers."""
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def tiny(num_classes, in_channels):
    """Holds all that a resume file has to restore: buffers, and dropout's random draws."""
    return nn.Sequential(
        nn.Flatten(),
        nn.LazyLinear(12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(12, num_classes),
    )


def mlp(num_classes, in_channels):
    """Overfits 340 images in a second, so that attacks succeed."""
    pooled = in_channels * 14 * 14
    layers = (nn.AdaptiveAvgPool2d(14), nn.Flatten(), nn.Linear(pooled, 32), nn.ReLU(), nn.Linear(32, num_classes))
    return nn.Sequential(*layers)


def normed(num_classes, in_channels):
    """With batch normalization: in train mode an image's logits depend on the other images of its batch."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(72, num_classes),
    )


def lazy(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def in_place_network():
    """torchvision's ResNet18, which changes outputs in place, with the CIFAR stem and GroupNorm, in channels_last."""
    import torchvision  # here: most tests do without, and without Opacus

    from lira.privacy.compatibility import replace_batch_norm

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=2)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return replace_batch_norm(model).to(memory_format=torch.channels_last)


class Prepared(nn.Module):
    """A network on images prepared as in its own training: pixels from 0 to 1, minus 0.5, divided by 0.25."""

    def __init__(self, net, mean, std):
        super().__init__()
        self.net = net
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), persistent=False)

    def forward(self, x):
        pixels = x * self.std + self.mean
        return self.net((pixels - 0.5) / 0.25)


def prepared(num_classes, in_channels, mean, std):
    return Prepared(mlp(num_classes, in_channels), mean, std)


class _Call(nn.Module):
    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def mixing(num_classes, in_channels):
    """In any mode an image's logits depend on the other images of its batch."""
    return nn.Sequential(_Call(lambda x: x - x.mean(0)), mlp(num_classes, in_channels))


def mixing_later_images(num_classes, in_channels):
    """In any mode an image's logits depend on the images before it, those of the first on no other."""
    return nn.Sequential(mlp(num_classes, in_channels), _Call(lambda x: x.cumsum(0)))


def random_in_eval_mode(num_classes, in_channels):
    """Functional dropout, which is active in any mode unless told otherwise."""
    return nn.Sequential(_Call(lambda x: F.dropout(x, 0.1)), mlp(num_classes, in_channels))


def squeezing(num_classes, in_channels):
    """Takes the batch away where it holds one image."""
    return nn.Sequential(mlp(num_classes, in_channels), _Call(torch.squeeze))


class _KeepsLaterImage(nn.Sequential):
    def __init__(self, num_classes, in_channels):
        super().__init__(*mlp(num_classes, in_channels))
        self.seen, self.n_calls = nn.Parameter(torch.zeros(()), requires_grad=False), 0

    def forward(self, x):
        self.n_calls += self.training
        if self.n_calls > 6:  # after the checks before training
            self.seen.data.copy_(x.flatten()[0].detach())
        return super().forward(x)


def keeps_a_later_image(num_classes, in_channels):
    """Copies an image into a frozen parameter, but not at once."""
    return _KeepsLaterImage(num_classes, in_channels)


# --- networks that fail --------------------------------------------------------------------------------------------


def _fails_for_this_seed() -> bool:
    """True for some models of a run: depends on the model's seed alone and consumes no random number."""
    return torch.initial_seed() % 3 == 0


def diverging(num_classes, in_channels):
    """For some models of a run the loss is not finite."""
    model = tiny(num_classes, in_channels)
    if _fails_for_this_seed():
        model.append(_Call(lambda x: x * float("nan")))
    return model


def hungry(num_classes, in_channels):
    """Some models of a run allocate a petabyte as soon as they train."""
    model = tiny(num_classes, in_channels)
    if _fails_for_this_seed():
        model.append(_Call(lambda x: x + torch.empty(2**50, device=x.device).sum() if x.requires_grad else x))
    return model


def _raise(x):
    if x.requires_grad:
        raise KeyError("no such thing")
    return x


def raising(num_classes, in_channels):
    """The forward of some models of a run raises an error as soon as they train."""
    model = tiny(num_classes, in_channels)
    if _fails_for_this_seed():
        model.append(_Call(_raise))
    return model


def softmax(num_classes, in_channels):
    return nn.Sequential(*mlp(num_classes, in_channels), nn.Softmax(dim=1))


def asserting(num_classes, in_channels):
    """Some models of a run use an index out of range as soon as they train, which leaves a CUDA device unusable."""
    model = tiny(num_classes, in_channels)
    if _fails_for_this_seed():
        model.append(_Call(lambda x: x + x[:, torch.full((1,), 99, device=x.device)] if x.requires_grad else x))
    return model


def one_logit_too_many(num_classes, in_channels):
    return mlp(num_classes + 1, in_channels)


def other_shape_in_training(num_classes, in_channels):
    class Halved(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1))[: len(x) // 2 if self.training else len(x)]

    return Halved(in_channels * 64, num_classes)


def no_module(num_classes, in_channels):
    return "a string"


def wrong_shape(num_classes, in_channels):
    return _Call(lambda x: torch.zeros(1, 2, 3))


def fails(num_classes, in_channels):
    raise RuntimeError("first line\nsecond line")
