"""The slim ResNet of basic blocks, of any widths and depths.

Dense 3 × 3 convolutions alone: on the CPUs it serves on they are the fast ones, and their bf16 gradients too.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from training.detector.backbones.stages import Stages, convolution


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut, projected where the shape changes (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, pooled: bool = True) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = projection(inputs, outputs, stride, pooled=pooled)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def projection(inputs: int, outputs: int, stride: int, *, pooled: bool) -> nn.Sequential:
    """A shortcut's 1 × 1 convolution. Strided, as published, it throws three quarters of the picture away; `pooled`
    averages before."""
    one = nn.Conv2d(inputs, outputs, 1, 1 if pooled else stride, bias=False)
    if not pooled:
        return nn.Sequential(one, nn.BatchNorm2d(outputs))
    return nn.Sequential(nn.AvgPool2d(stride) if stride > 1 else nn.Identity(), one, nn.BatchNorm2d(outputs))


def slim_resnet(
    widths: tuple[int, int, int, int] = (16, 48, 80, 112),
    depths: tuple[int, int, int, int] = (1, 2, 2, 2),
    stem: int | None = None,
) -> Stages:
    """A stem of two strided 3 × 3 convolutions (`stem` channels between them; the first stage's where None), then
    four stages of `depths` basic blocks, `widths` channels wide."""
    first = stem or widths[0]
    early = nn.Sequential(convolution(3, first, stride=2), convolution(first, widths[0], stride=2))
    stages, inputs = [], widths[0]
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = [
            BasicBlock(inputs if i == 0 else width, width, 2 if i == 0 and index else 1) for i in range(depth)
        ]
        stages.append(nn.Sequential(*blocks))
        inputs = width
    return Stages(early, stages, widths)
