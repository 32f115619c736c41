"""The fixed input and the tolerance within which the logits on it are the same."""

import hashlib

import pytest
import torch
from torch import nn

from lira.storage.probe import TOLERANCE, probe_images, probe_logits, same_logits
from network import NETWORKS, build
from tests.helpers.networks import equal_weights

SHAPE = (3, 8, 10)


def test_the_input_is_random_and_the_same_everywhere():
    images = probe_images(SHAPE)
    assert images.shape == (8, *SHAPE)
    assert images.dtype == torch.float32
    assert abs(images.mean()) < 0.1
    assert abs(images.std() - 1) < 0.1
    first_byte = hashlib.shake_256(b"").digest(1)[0]
    assert images[0, 0, 0, 0] == pytest.approx((first_byte - 127.5) / (256 / 12**0.5))
    assert torch.equal(probe_images(SHAPE, n=3), images[:3])
    assert len({image.numpy().tobytes() for image in images}) == 8


@pytest.mark.parametrize("name", ["ConvNet", "ResNet18"])
def test_the_logits_follow_from_code_and_weights(name):
    """Not from the mode, the memory layout or what the network was called with before; no generator advances."""
    model = build(name, num_classes=5, in_channels=3, size=SHAPE[1:])
    model(torch.randn(6, *SHAPE))  # statistics of a batch
    before, state = build(name, num_classes=5, in_channels=3, size=SHAPE[1:]), torch.get_rng_state()
    before.load_state_dict(model.state_dict())
    logits = probe_logits(model, SHAPE)
    assert logits.shape == (8, 5)
    assert equal_weights(before, model)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        torch.testing.assert_close(logits, before.eval()(probe_images(SHAPE)))
    assert same_logits(probe_logits(model.train().to(memory_format=torch.channels_last), SHAPE), logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_double_precision_is_the_same(name):
    """What devices and versions round lies between fp32 and double precision."""
    model = build(name, num_classes=5, in_channels=3, size=SHAPE[1:])
    expected = probe_logits(model, SHAPE)
    with torch.no_grad():
        assert same_logits(model.double()(probe_images(SHAPE).double()), expected)


def test_the_tolerance():
    expected = torch.tensor([[0.0, 2.0], [4.0, 1000.0]])
    spread = expected.std(correction=0)
    for place, size in ((0, 0), (1, 2), (3, 1000)):
        for factor, same in ((0.99, True), (1.01, False)):
            logits = expected.flatten().clone()
            logits[place] += factor * TOLERANCE * (spread + size)
            assert same_logits(logits.view(2, 2), expected) == same
    assert not same_logits(expected[:1], expected)


def test_logits_that_are_not_finite_or_huge_are_compared_as_well():
    expected = torch.tensor([[float("inf"), float("nan")], [3e38, -3e38]])
    assert same_logits(expected.clone(), expected)
    for place in range(4):
        changed = expected.flatten().clone()
        changed[place] = 1.0
        assert not same_logits(changed.view(2, 2), expected)
    assert same_logits(torch.full((2, 2), float("nan")), torch.full((2, 2), float("nan")))


def test_a_network_without_weights_has_logits():
    assert probe_logits(nn.Flatten(), SHAPE).shape == (8, 240)
