"""Which networks can be trained with DP-SGD, and how they are changed."""

import pytest
import torch
import torch.nn.functional as F
from opacus.validators import ModuleValidator
from torch import nn

from lira.errors import InputError
from lira.privacy.compatibility import (
    changed_entry,
    check_network,
    describe_replaced,
    replace_batch_norm,
    untrained_state,
)
from resnet import resnet
from tests.helpers.networks import in_place_network, mixing


@pytest.mark.parametrize(("name", "n_layers"), [("ResNet18", 20), ("WRN28-2", 25)])
def test_batch_norm_becomes_group_norm(name, n_layers):
    given = resnet(name, num_classes=10, in_channels=3)
    model = replace_batch_norm(given)
    first = {"ResNet18": "bn1, layer1.0.bn1, layer1.0.bn2", "WRN28-2": "layer1.0.bn1, layer1.0.bn2, layer1.1.bn1"}[name]
    line = f"GroupNorm in place of {n_layers} BatchNorm2d layers ({first}, {n_layers - 3} more)"
    assert describe_replaced(given, model) == line
    assert not [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert sum(isinstance(layer, nn.GroupNorm) for layer in model.modules()) == n_layers
    assert ModuleValidator.validate(model, strict=True) == []
    check_network(model, (3, 16, 16))


def test_network_without_batch_norm_is_unchanged():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert replace_batch_norm(model) is model
    assert describe_replaced(model, model) == ""


class OwnBatchNorm(nn.BatchNorm2d):
    pass


class ChangesBuffer(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean += x.mean()
        return super().forward(x)


class KeepsImage(nn.Sequential):
    """Copies an image into a frozen parameter."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.image = nn.Parameter(torch.zeros(3, 8, 8), requires_grad=False)

    def forward(self, x):
        if self.training:
            self.image.data.copy_(x[0].detach())
        return super().forward(x)


class ReturnsImage(nn.Sequential):
    """Keeps an image and returns it with the state."""

    image = torch.zeros(3, 8, 8)

    def forward(self, x):
        self.image = x[0].detach() if self.training else self.image
        return super().forward(x)

    def get_extra_state(self):
        return self.image

    def set_extra_state(self, state):
        self.image = state


class SharesWeight(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + F.linear(x.flatten(1), self[1].weight)


class HasUnusedLayer(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self[1](self[0](x))


def convolution(**settings):
    return nn.Conv2d(3, 3, 3, padding=1, **settings)


def linear(kind=nn.Sequential, *first):
    return kind(*first, nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (linear(nn.Sequential, nn.BatchNorm2d(3, affine=False)), r"layer 0 \(BatchNorm2d\): BatchNorm cannot"),
        (linear(nn.Sequential, OwnBatchNorm(3)), r"layer 0 \(OwnBatchNorm\): it mixes the images of a batch"),
        (linear(nn.Sequential, nn.InstanceNorm2d(3, track_running_stats=True)), r"layer 0 \(InstanceNorm2d\)"),
        (mixing(2, 3), "depends on the other images of the batch"),
        (linear(ChangesBuffer), "mean changes in training, and would be published without noise"),
        (linear(KeepsImage), "image changes in training, and would be published without noise"),
        (linear(ReturnsImage), "_extra_state changes in training, and would be published without noise"),
        (linear(SharesWeight), r"gradients of 1.weight \(Linear\) are missing or wrong: let its layer alone use it"),
        (linear(HasUnusedLayer), r"weight unused.weight takes no part in training: take it out, or freeze it"),
        (
            linear(nn.Sequential, convolution(padding_mode="circular")),
            r"0.weight \(Conv2d\).*: Opacus does not support padding_mode 'circular'",
        ),
    ],
)
def test_incompatible_network_is_rejected_with_the_reason(model, reason):
    with pytest.raises(InputError, match=reason):
        check_network(replace_batch_norm(model), (3, 8, 8))


def test_the_check_draws_no_random_numbers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Dropout(0.5))
    with_batch_norm = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    state = torch.get_rng_state()
    check_network(model, (3, 8, 8))
    replace_batch_norm(with_batch_norm)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("size", [8, 4, 2])
def test_maps_of_one_pixel_have_per_sample_gradients(size):
    check_network(replace_batch_norm(resnet("ResNet18", num_classes=2, in_channels=3)), (3, size, size))
    check_network(in_place_network(), (3, size, size))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), convolution(), nn.ReLU(), convolution(), nn.Flatten())
    check_network(pooled, (3, size, size))


def test_untrained_state_names_what_changed():
    model = linear(KeepsImage)
    before = untrained_state(model)
    assert set(before) == {"image"}
    assert changed_entry(model, before) is None
    with torch.no_grad():
        model[1].weight += 1
        assert changed_entry(model, before) is None, "a trained weight"
        model.image[0, 0, 0] = -0.0
        assert changed_entry(model, before) == "image", "equal in value, not in bits"
        model.image[0, 0, 0] = float("nan")
        assert changed_entry(model, untrained_state(model)) is None
