"""ResNet-18, -34 and -50 as published (He et al. 2016, arXiv 1512.03385), -18 and -34 in smaller widths too.

A width below 1 takes the slim stem and its pooled shortcuts: where channels are few, a 7 × 7 convolution on the whole
picture would be most of the work. ResNet-50 strides in its 3 × 3 convolution, as everybody's does since 2017.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from training.detector.backbones.slim_resnet import BasicBlock, projection, slim_resnet
from training.detector.backbones.stages import Stages, convolution, scaled

WIDTHS = (64, 128, 256, 512)
Depths = tuple[int, int, int, int]


class Bottleneck(nn.Module):
    """1 × 1 down to `width` channels, 3 × 3 with the stride, 1 × 1 up to four times `width`; and the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * width
        self.narrow = convolution(inputs, width, 1)
        self.middle = convolution(width, width, 3, stride)
        self.widen = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = projection(inputs, outputs, stride, pooled=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.widen(self.middle(self.narrow(x))) + self.shortcut(x))


def resnet18(width: float = 1.0) -> Stages:
    return _basic((2, 2, 2, 2), width)


def resnet34(width: float = 1.0) -> Stages:
    return _basic((3, 4, 6, 3), width)


def resnet50() -> Stages:
    stages, inputs = [], 64
    for width, depth in zip(WIDTHS, (3, 4, 6, 3), strict=True):
        blocks = [
            Bottleneck(inputs if i == 0 else 4 * width, width, 2 if i == 0 and width > 64 else 1)
            for i in range(depth)
        ]
        stages.append(nn.Sequential(*blocks))
        inputs = 4 * width
    return Stages(_stem(), stages, [4 * width for width in WIDTHS])


def _basic(depths: Depths, width: float) -> Stages:
    if width != 1:
        first, second, third, fourth = (scaled(of, width) for of in WIDTHS)
        return slim_resnet((first, second, third, fourth), depths)
    stages, inputs = [], 64
    for outputs, depth in zip(WIDTHS, depths, strict=True):
        blocks = [
            BasicBlock(
                inputs if i == 0 else outputs, outputs, 2 if i == 0 and outputs > 64 else 1, pooled=False
            )
            for i in range(depth)
        ]
        stages.append(nn.Sequential(*blocks))
        inputs = outputs
    return Stages(_stem(), stages, WIDTHS)


def _stem() -> nn.Sequential:
    return nn.Sequential(convolution(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
