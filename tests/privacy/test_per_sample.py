"""Per-sample gradients of each kind of layer against a loop over the images, and their norms on adversarial inputs."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lira.privacy.per_sample import OfEachImage, OuterProducts, PerSampleGradients, per_sample_gradients
from tests.helpers.networks import in_place_network


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """A layer used twice."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Sequence(nn.Module):
    """Each row of pixels through the same linear layer, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(12, 16), nn.LayerNorm(16)

    def forward(self, x):
        return self.norm(self.linear(x.flatten(1, 2)))


conv = partial(nn.Conv2d, 3, 32, 3)
NETWORKS = {
    "few channels": lambda: [conv()],
    "stride, dilation, no bias": lambda: [conv(padding=(1, 2), stride=(2, 1), dilation=(1, 2), bias=False)],
    "same padding of an even kernel": lambda: [nn.Conv2d(3, 32, (2, 4), padding="same"), nn.ReLU(inplace=True)],
    "many channels, many places": lambda: [conv(), nn.Conv2d(32, 20, (3, 2), padding=1, stride=(1, 2))],
    "many channels, few places": lambda: [conv(stride=4), nn.GroupNorm(4, 32), nn.Conv2d(32, 64, 3, padding=1)],
    "one place": lambda: [nn.AdaptiveAvgPool2d(1), conv(padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1)],
    "groups": lambda: [conv(), nn.Conv2d(32, 48, 3, groups=16, stride=2)],
    "a layer without weights": lambda: [nn.GroupNorm(1, 3, affine=False), conv()],
    "used twice": lambda: [conv(stride=3), Twice(nn.Conv2d(32, 32, 3, padding=1)), nn.Flatten(), nn.LazyLinear(7)],
    "sequences": lambda: [Sequence()],
}


def network(name):
    torch.manual_seed(0)
    model = nn.Sequential(*NETWORKS[name](), nn.Flatten(), nn.LazyLinear(9), nn.ReLU(), Twice(nn.Linear(9, 9)))
    model(torch.zeros(1, 3, 12, 12))
    return model


def loop_over_images(model, x, y):
    """fp64 (B, *shape) of each weight."""
    model = model.double()
    losses = (F.cross_entropy(model(x[i : i + 1].double()), y[i : i + 1]) for i in range(len(x)))
    each = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    model.float()
    return [torch.stack(gradients) for gradients in zip(*each, strict=True)]


@pytest.mark.parametrize("name", [*NETWORKS, "in place"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_gradients_norms_and_sums_are_those_of_a_loop_over_the_images(name, memory_format):
    model = in_place_network() if name == "in place" else network(name)
    x, y = normal(3, 3, 12, 12).to(memory_format=memory_format), torch.tensor([0, 1, 0])
    expected, factors = loop_over_images(model, x, y), torch.tensor([0.3, 1.0, 0.0])
    private = PerSampleGradients(model)
    private.backward(F.cross_entropy(model(x), y, reduction="sum"))
    for (weight_name, weight), each in zip(model.named_parameters(), expected, strict=True):
        found = per_sample_gradients(weight)
        assert weight.grad is None, "torch's own gradients are computed in vain"
        tolerance = dict(rtol=0, atol=1e-4 * float(each.abs().max()), msg=weight_name)
        torch.testing.assert_close(found.each().double(), each, **tolerance)
        torch.testing.assert_close(
            found.weighted_sum(factors).double(), torch.tensordot(factors.double(), each, 1), **tolerance
        )
        torch.testing.assert_close(found.norms().double(), each.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-7)


def test_both_forms_and_opacus_own_are_compared():
    found = {}
    for name in NETWORKS:
        model = network(name)
        private = PerSampleGradients(model)
        private.backward(F.cross_entropy(model(normal(2, 3, 12, 12)), torch.tensor([0, 1]), reduction="sum"))
        found[name] = [type(p.grad_sample) for p in model.parameters()]
    assert found["many channels, few places"][4] is OuterProducts
    assert found["many channels, many places"][2] is OfEachImage
    assert found["used twice"][2] is torch.Tensor


def test_gradients_of_two_backward_passes_are_not_mixed():
    model = network("few channels")
    private = PerSampleGradients(model)
    private.backward(model(normal(2, 3, 12, 12)).sum())
    with pytest.raises(ValueError, match="two backward passes without a step"):
        private.backward(model(normal(2, 3, 12, 12)).sum())


# --- norms: never below what is added --------------------------------------------------------------------------------


def excess(gradients, *, max_grad_norm=1.0):
    """By how much what is added for an image, each alone, exceeds the clipping norm, relatively."""
    norms, highest = gradients.norms(), -1.0
    for i in range(len(norms)):
        factors = torch.zeros(len(norms))
        factors[i] = min(max_grad_norm / float(norms[i]), 1.0)
        added = gradients.weighted_sum(factors).double()
        highest = max(highest, float(added.norm()) / max_grad_norm - 1)
    return highest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [1.3, 0.7, 1 / 3, 1.9921875])
@pytest.mark.parametrize("shape", [(512, 4608), (1_000_003,), (1_000_003, 1)])
def test_equal_numbers_do_not_add_up_to_less(dtype, value, shape):
    """torch's vector_norm() of them is up to 0.08 % too small."""
    assert excess(OfEachImage(torch.full((1, *shape), value).to(dtype))) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cancelled", [1.0, 1e-2, 1e-4, 1e-6, 0.0])
def test_outer_products_that_cancel_do_not_weigh_more(dtype, cancelled):
    """Opposite gradients at two places with nearly equal inputs: in fp32 the squared norm is rounding, even below 0."""
    for seed in range(20):
        a, b = normal(4, 8, 300, seed=seed), normal(4, 8, 40, seed=seed + 100)
        a = torch.cat([a, a + cancelled * normal(4, 8, 300, seed=seed + 200)], dim=1).to(dtype)
        b = torch.cat([b, -b], dim=1).to(dtype) * 100
        products, exact = OuterProducts(a, b), torch.linalg.matrix_norm(b.double().mT @ a.double())
        size = (a.double().norm(dim=2) * b.double().norm(dim=2)).sum(1)
        assert excess(products) < 1e-6
        assert (products.norms() >= exact).all()
        assert (products.norms() - exact <= 2e-6 * size).all(), (
            "more of the clipping norm is lost than rounding can add"
        )


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_outer_products_of_one_place_are_measured_closely(scale):
    a, b = normal(6, 1, 1600) * scale, normal(6, 1, 512, seed=1) / math.sqrt(scale)
    products = OuterProducts(a.bfloat16(), b.bfloat16())
    exact = torch.linalg.matrix_norm(products.outputs.double().mT @ products.inputs.double())
    torch.testing.assert_close(products.norms().double(), exact, rtol=1e-6, atol=0)
    assert excess(products) < 1e-6
