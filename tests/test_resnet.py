"""ResNets with the CIFAR stem: numbers of parameters, resolutions of the stages, initialization."""

import pytest
import torch

from resnet import STAGES, resnet

# As in the CIFAR literature for this stem and 10 classes.
PARAMETERS = {"ResNet18": 11_173_962, "ResNet34": 21_282_122, "ResNet50": 23_520_842}


@pytest.mark.parametrize("name", STAGES)
def test_a_resnet_has_the_expected_number_of_parameters(name):
    model = resnet(name, num_classes=10, in_channels=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_stem_keeps_the_resolution_and_the_stages_halve_it():
    model, sizes = resnet("ResNet18", num_classes=10, in_channels=3).eval(), []
    for layer in (model.conv1, model.maxpool, model.layer1, model.layer2, model.layer3, model.layer4):
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert sizes == [(64, 32, 32), (64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.bias is None


def test_stem_is_initialized_like_the_other_convolutions():
    """He et al.: variance 2 / fan_out, here 64 * 9."""
    torch.manual_seed(0)
    weight = torch.cat([resnet("ResNet18", num_classes=2, in_channels=3).conv1.weight.flatten() for _ in range(3)])
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
