"""MobileFaceNet (Chen et al. 2018, arXiv 1804.07573), table 1: 1.0 M parameters, 0.23 GMACs at 112 × 112."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# (expansion, channels, repeats, stride of the first) for each row of table 1
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class StridedDepthwise(nn.Conv2d):
    """A 3 × 3 depthwise convolution of stride 2 that trains as one of stride 1 with every second output taken.

    The same numbers. oneDNN has no fast bf16 gradient for the strided form: 198 ms against 8 ms
    for [64, 128, 56, 56] on one AVX512-BF16 core, and it was a third of the whole training step.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return nn.functional.conv2d(x, self.weight, None, 1, self.padding, groups=self.groups)[
                :, :, ::2, ::2
            ]
        return super().forward(x)


class GlobalDepthwise(nn.Conv2d):
    """A depthwise convolution as large as its input; as a weighted sum while training, for the same reason."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return (x * self.weight.to(x.dtype)[:, 0]).sum((2, 3), keepdim=True)
        return super().forward(x)


def _conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    linear: bool = False,
) -> nn.Sequential:
    kind, padding = nn.Conv2d, kernel // 2
    if groups > 1 and stride == 2:
        kind = StridedDepthwise
    elif kernel == 7:
        kind, padding = GlobalDepthwise, 0
    layers: list[nn.Module] = [
        kind(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    if not linear:
        layers.append(nn.PReLU(channels_out))
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """Inverted residual with a linear output; the identity is added where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels_out
        self.layers = nn.Sequential(
            _conv(channels_in, hidden, 1),
            _conv(hidden, hidden, 3, stride, groups=hidden),
            _conv(hidden, channels_out, 1, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileFaceNet(nn.Module):
    """Embedder. In: float [n, 3, 112, 112], normalised. Out: float32 [n, dimension], **not** unit length.

    The length is left to the caller: margins and distillation normalise, the exported graph normalises.
    """

    def __init__(self, dimension: int = 128) -> None:
        super().__init__()
        self.dimension = dimension
        self.stem = nn.Sequential(_conv(3, 64, 3, 2), _conv(64, 64, 3, groups=64))
        blocks: list[nn.Module] = []
        channels = 64
        for expansion, channels_out, repeats, stride in _BOTTLENECKS:
            for i in range(repeats):
                blocks.append(Bottleneck(channels, channels_out, expansion, stride if i == 0 else 1))
                channels = channels_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(_conv(channels, 512, 1), _conv(512, 512, 7, groups=512, linear=True))
        self.embedding = nn.Conv2d(512, dimension, 1, bias=False)
        self.norm = nn.BatchNorm1d(dimension)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(self.head(self.blocks(self.stem(x)))).flatten(1)
        with torch.autocast(x.device.type, enabled=False):  # the last normalisation decides the score: fp32
            return self.norm(x.float())
