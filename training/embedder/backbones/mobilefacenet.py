"""MobileFaceNet (Chen et al. 2018, arXiv 1804.07573), table 1: 1.0 M parameters, 0.221 GMACs at 112 × 112.

`mbf` is the wider layout that InsightFace trains: 2.06 M parameters, 0.4375 GMACs with 512 dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.embedder.backbones.autocast import without_autocast
from training.embedder.backbones.depthwise import GlobalDepthwise, StridedDepthwise


@dataclass(frozen=True)
class Layout:
    """What differs between the widths; the stem's second convolution always has 64 groups."""

    stem: int  # channels
    bottlenecks: tuple[tuple[int, int, int, int], ...]  # (expansion, channels, repeats, stride of the first)


PAPER = Layout(64, ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)))
WIDE = Layout(
    128, ((1, 128, 1, 2), (1, 128, 4, 1), (2, 256, 1, 2), (1, 256, 6, 1), (2, 256, 1, 2), (1, 256, 2, 1))
)


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

    def __init__(self, dimension: int = 128, layout: Layout = PAPER) -> None:
        super().__init__()
        self.dimension = dimension
        channels = layout.stem
        self.stem = nn.Sequential(_conv(3, channels, 3, 2), _conv(channels, channels, 3, groups=64))
        blocks: list[nn.Module] = []
        for expansion, channels_out, repeats, stride in layout.bottlenecks:
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
        with without_autocast(x):  # the last normalisation decides the score: fp32
            return self.norm(x.float())


def mbf(dimension: int = 512) -> MobileFaceNet:
    """MobileFaceNet of twice the width, with less expansion: blocks 1-4-6-2 at scale 2."""
    return MobileFaceNet(dimension, WIDE)
