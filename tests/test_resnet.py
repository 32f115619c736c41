"""ResNets with the CIFAR stem, beside those of torchvision: names, initialization, logits, gradients, resolutions."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from resnet import STAGES, resnet

# As in the CIFAR literature for this stem and 10 classes.
PARAMETERS = {"ResNet18": 11_173_962, "ResNet34": 21_282_122, "ResNet50": 23_520_842}


def ours(name):
    return resnet(name, num_classes=10, in_channels=3)


def torchvisions(name):
    """torchvision's network with the CIFAR stem, initialized as its other convolutions."""
    model = getattr(torchvision.models, name.lower())(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


@pytest.mark.parametrize("name", STAGES)
def test_a_resnet_has_the_expected_number_of_parameters(name):
    assert sum(parameter.numel() for parameter in ours(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", STAGES)
def test_weights_load_into_torchvisions_network_and_back(name):
    model, reference = ours(name), torchvisions(name)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    assert list(weights) == list(reference.state_dict())
    reference.load_state_dict(weights, strict=True)
    model = ours(name)
    model.load_state_dict(reference.state_dict(), strict=True)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50"])
def test_initial_weights_have_torchvisions_distributions(name):
    """Mean and standard deviation within five standard errors of the difference; constants are equal."""
    torch.manual_seed(0)
    expected = dict(torchvisions(name).named_parameters())
    for key, weight in ours(name).named_parameters():
        error = 8 * expected[key].std(correction=0).item() / weight.numel() ** 0.5
        assert weight.mean().item() == pytest.approx(expected[key].mean().item(), abs=error), key
        assert weight.std(correction=0).item() == pytest.approx(expected[key].std(correction=0).item(), abs=error), key


def relative_error(value, expected):
    return (value - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("name", ["ResNet18", "ResNet50"])
def test_logits_gradients_and_running_statistics_are_torchvisions(name, dtype, tolerance):
    torch.manual_seed(0)
    model, reference = ours(name).to(dtype), torchvisions(name).to(dtype)
    reference.load_state_dict(model.state_dict())
    x, y = torch.randn(4, 3, 13, 10, dtype=dtype), torch.tensor([0, 3, 3, 9])
    logits, expected = model(x), reference(x)
    assert relative_error(logits, expected) <= tolerance
    F.cross_entropy(logits, y).backward()
    F.cross_entropy(expected, y).backward()
    for weight, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert relative_error(weight.grad, other.grad) <= tolerance
    for buffer, other in zip(model.buffers(), reference.buffers(), strict=True):
        assert relative_error(buffer, other) <= tolerance
    with torch.no_grad():
        assert relative_error(model.eval()(x), reference.eval()(x)) <= tolerance


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50"])
def test_no_output_of_a_layer_is_changed_in_place(name):
    model, outputs = ours(name), []
    for layer in model.modules():
        layer.register_forward_hook(lambda layer, inputs, output: outputs.append((output, output.clone())))
    model(torch.rand(2, 3, 8, 8))
    assert all(torch.equal(output, before) for output, before in outputs)


def test_stem_keeps_the_resolution_and_the_stages_halve_it():
    model, sizes = ours("ResNet18").eval(), []
    for layer in (model.conv1, model.layer1, model.layer2, model.layer3, model.layer4):
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert sizes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.bias is None
