"""Residual networks for small images: ResNet18/34/50 with the CIFAR stem, and the wide WRN28-2.

The stem of the ImageNet networks divides height and width by 4 before the first block; for CIFAR, He et al. (arXiv
1512.03385, section 4.2) use one 3x3 convolution of stride 1 and no pooling. The global average pooling at the end
accepts images of any size.

Parameters and buffers of the ResNets have torchvision's names and shapes: weights load either way. No layer changes the
output of another in place. Calls are nested, not assigned to variables, so that the intermediate tensors are freed at
once."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def convolution(in_channels: int, out_channels: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    """size x size, without bias, padded to keep the resolution at stride 1; He et al.'s initialization with fan-out."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution with BatchNorm where a block changes the channels or the resolution."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(convolution(in_channels, out_channels, size=1, stride=stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: images (B, in_channels, H, W) -> (B, width, H / stride, W / stride), rounded up."""

    expansion = 1  # channels of the output / width

    def __init__(self, in_channels: int, width: int, *, stride: int):
        super().__init__()
        self.conv1 = convolution(in_channels, width, size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, size=3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(in_channels, width, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, as in torchvision) and 1x1 convolutions; the output has 4 * width channels."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int):
        super().__init__()
        self.conv1 = convolution(in_channels, width, size=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, width * self.expansion, size=1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = shortcut(in_channels, width * self.expansion, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x))


class WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, and nothing after the addition; shapes as in BasicBlock.

    A block that changes the channels adds a 1x1 convolution of its first ReLU's output instead of its input."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, width, size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, size=3)
        changes = stride > 1 or in_channels != width
        self.downsample = convolution(in_channels, width, size=1, stride=stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn1(x))
        added = self.downsample(activated) if self.downsample else x
        return self.conv2(F.relu(self.bn2(self.conv1(activated)))) + added


Block = type[BasicBlock] | type[Bottleneck] | type[WideBlock]


def stage(block: Block, n_blocks: int, in_channels: int, width: int, *, stride: int) -> nn.Sequential:
    """n_blocks blocks, the first of them with the stride."""
    first = block(in_channels, width, stride=stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, stride=1) for _ in range(n_blocks - 1)))


class ResNet(nn.Module):
    """Four stages of blocks[i] blocks: images (B, in_channels, H, W) -> logits (B, num_classes)."""

    def __init__(self, block: Block, blocks: tuple[int, int, int, int], *, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = convolution(in_channels, 64, size=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(block, blocks[0], 64, 64, stride=1)
        self.layer2 = stage(block, blocks[1], 64 * block.expansion, 128, stride=2)
        self.layer3 = stage(block, blocks[2], 128 * block.expansion, 256, stride=2)
        self.layer4 = stage(block, blocks[3], 256 * block.expansion, 512, stride=2)
        self.fc = nn.Linear(512 * block.expansion, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = blocks(x)
        return self.fc(x.mean((2, 3)))


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis (arXiv 1605.07146): three stages of 16, 32 and 64 times `widening` channels, of n_blocks
    blocks each, so 6 n_blocks + 4 convolutions: images (B, in_channels, H, W) -> logits (B, num_classes)."""

    def __init__(self, n_blocks: int, widening: int, *, num_classes: int, in_channels: int):
        super().__init__()
        widths = [16 * widening, 32 * widening, 64 * widening]
        self.conv1 = convolution(in_channels, 16, size=3)
        self.layer1 = stage(WideBlock, n_blocks, 16, widths[0], stride=1)
        self.layer2 = stage(WideBlock, n_blocks, widths[0], widths[1], stride=2)
        self.layer3 = stage(WideBlock, n_blocks, widths[1], widths[2], stride=2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for blocks in (self.layer1, self.layer2, self.layer3):
            x = blocks(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


RESNETS: dict[str, Callable[..., nn.Module]] = {
    "ResNet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "ResNet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "ResNet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "WRN28-2": partial(WideResNet, 4, 2),
}


def resnet(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """A row of RESNETS; images (B, in_channels, H, W) -> logits (B, num_classes)."""
    return RESNETS[name](num_classes=num_classes, in_channels=in_channels)
