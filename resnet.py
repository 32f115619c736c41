"""ResNet18/34/50 for small images: torchvision's residual stages behind the CIFAR stem.

The stem of the ImageNet networks divides height and width by 4 before the first block; for CIFAR, He et al. (arXiv
1512.03385, section 4.2) use one 3x3 convolution of stride 1 and no pooling. The global average pooling at the end
accepts images of any size."""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

STAGES = {
    "ResNet18": (BasicBlock, (2, 2, 2, 2)),
    "ResNet34": (BasicBlock, (3, 4, 6, 3)),
    "ResNet50": (Bottleneck, (3, 4, 6, 3)),
}


def resnet(name: str, *, num_classes: int, in_channels: int) -> ResNet:
    """A row of STAGES with the CIFAR stem; images (B, in_channels, H, W) -> logits (B, num_classes)."""
    block, layers = STAGES[name]
    model = ResNet(block, list(layers), num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
