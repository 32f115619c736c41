"""Residual networks with the CIFAR stem: ResNets beside those of torchvision (names, initialization, logits, gradients,
resolutions), WRN28-2 beside a forward pass written out."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from resnet import RESNETS, resnet

# As in the CIFAR literature for this stem and 10 classes.
PARAMETERS = {"ResNet18": 11_173_962, "ResNet34": 21_282_122, "ResNet50": 23_520_842, "WRN28-2": 1_467_610}


def ours(name):
    return resnet(name, num_classes=10, in_channels=3)


def torchvisions(name):
    """torchvision's network with the CIFAR stem, initialized as its other convolutions."""
    model = getattr(torchvision.models, name.lower())(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


@pytest.mark.parametrize("name", RESNETS)
def test_a_network_has_the_expected_number_of_parameters(name):
    assert sum(parameter.numel() for parameter in ours(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet34", "ResNet50"])
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


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "WRN28-2"])
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


# --- WRN28-2 -------------------------------------------------------------------------------------------------------


def naive_wide_resnet(w, x, *, train):
    """WRN-28-2 after Zagoruyko and Komodakis: three groups of four blocks, twice batch normalization, ReLU and a 3x3
    convolution each; the first block of a group adds a 1x1 convolution of its first ReLU's output, others their input.

    w: name -> weight or buffer; convolutions are sums over shifted windows, in the precision of x."""

    def normalized(name, x):
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        if train:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        scale = w[f"{name}.weight"] / (variance + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][:, None, None]

    def convolved(name, x, *, stride=1):
        weight = w[f"{name}.weight"]
        margin = weight.shape[2] // 2
        height, width = x.shape[2:]
        x, y = F.pad(x, [margin] * 4), 0
        for row in range(weight.shape[2]):
            for column in range(weight.shape[3]):
                window = x[:, :, row : row + height : stride, column : column + width : stride]
                y = y + torch.einsum("bihw,oi->bohw", window, weight[:, :, row, column])
        return y

    x = convolved("conv1", x)
    for layer in (1, 2, 3):
        for block in range(4):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            activated = normalized(f"{name}.bn1", x).clamp(min=0)
            y = convolved(f"{name}.conv1", activated, stride=stride)
            y = convolved(f"{name}.conv2", normalized(f"{name}.bn2", y).clamp(min=0))
            x = y + (convolved(f"{name}.downsample", activated, stride=stride) if block == 0 else x)
    return normalized("bn1", x).clamp(min=0).mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize("train", [True, False])
def test_wrn28_2_is_the_network_of_the_paper(train):
    """Logits and gradients in float64; every weight and buffer is drawn, so that none can be left out."""
    torch.manual_seed(0)
    model = ours("WRN28-2").double().train(train)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_().mul_(0.1 if tensor.ndim == 4 else 1.0)
            tensor.copy_(tensor.abs() + 0.5 if name.endswith("var") else tensor)
    x = torch.randn(3, 3, 12, 10, dtype=torch.float64)
    w = dict(model.named_parameters()) | {key: value.clone() for key, value in model.named_buffers()}
    expected, logits = naive_wide_resnet(w, x, train=train), model(x)
    assert relative_error(logits, expected) <= 1e-12
    gradients, others = (
        torch.autograd.grad(z.logsumexp(1).sum(), list(model.parameters())) for z in (logits, expected)
    )
    for gradient, other in zip(gradients, others, strict=True):
        assert relative_error(gradient, other) <= 1e-9


def test_wrn28_2_is_initialized_like_the_resnets():
    """The variance of each convolution is 2 / fan-out, within five standard errors."""
    torch.manual_seed(0)
    layers = dict(ours("WRN28-2").named_modules())
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d):
            variance = 2 / (layer.out_channels * layer.kernel_size[0] ** 2)
            tolerance = 5 * (2 / layer.weight.numel()) ** 0.5
            assert layer.weight.var().item() / variance == pytest.approx(1, abs=tolerance), name
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers.values()) == 1 + 12 * 2 + 3
