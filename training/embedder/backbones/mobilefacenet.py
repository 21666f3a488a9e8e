"""MobileFaceNet (Chen et al. 2018, arXiv 1804.07573), table 1: 1.0 M parameters, 0.221 GMACs at 112 × 112.

`quick` is the same with ReLU instead of PReLU in the stem and the first six blocks, whose maps are the largest: 2.70 ms
a face against 3.17 ms (ONNX Runtime, one thread, both with the remaining slopes rewritten).
`mbf` is the wider layout that InsightFace trains: 2.06 M parameters, 0.4375 GMACs with 512 dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from training.embedder.backbones.autocast import without_autocast
from training.embedder.backbones.depthwise import GlobalDepthwise, StridedDepthwise


@dataclass(frozen=True)
class Layout:
    """What differs between the widths; the stem's second convolution always has 64 groups."""

    stem: int  # channels
    bottlenecks: tuple[tuple[int, int, int, int], ...]  # (expansion, channels, repeats, stride of the first)
    rectified: int = (
        0  # blocks from the first that have ReLU, and with any of them the stem; the others PReLU
    )


PAPER = Layout(64, ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)))
QUICK = replace(PAPER, rectified=6)
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
    rectified: bool = False,
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
        layers.append(nn.ReLU() if rectified else nn.PReLU(channels_out))
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """Inverted residual with a linear output; the identity is added where the shape stays."""

    def __init__(
        self, channels_in: int, channels_out: int, expansion: int, stride: int, rectified: bool = False
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels_out
        self.layers = nn.Sequential(
            _conv(channels_in, hidden, 1, rectified=rectified),
            _conv(hidden, hidden, 3, stride, groups=hidden, rectified=rectified),
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
        quick = layout.rectified > 0
        self.stem = nn.Sequential(
            _conv(3, channels, 3, 2, rectified=quick),
            _conv(channels, channels, 3, groups=64, rectified=quick),
        )
        blocks: list[nn.Module] = []
        for expansion, channels_out, repeats, stride in layout.bottlenecks:
            for i in range(repeats):
                stride_here, rectified = stride if i == 0 else 1, len(blocks) < layout.rectified
                blocks.append(Bottleneck(channels, channels_out, expansion, stride_here, rectified))
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


def quick(dimension: int = 128) -> MobileFaceNet:
    """The paper's layout with ReLU where maps are large."""
    return MobileFaceNet(dimension, QUICK)
