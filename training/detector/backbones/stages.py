"""What every backbone of the detector is: a stem, then four stages of strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, groups: int = 1
) -> nn.Sequential:
    """Convolution without a bias, batch normalisation, rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def scaled(channels: int, width: float) -> int:
    """`width` times as many channels, to the nearest multiple of 8."""
    return max(8, round(channels * width / 8) * 8)


class Stages(nn.Module):
    """float [n, 3, h, w] → one float [n, channels, h / stride, w / stride] for each of `strides`, the finest first.

    h and w are multiples of the coarsest stride.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)

    @property
    def strides(self) -> tuple[int, ...]:
        return (4, 8, 16, 32)[: len(self.stages)]

    def end_at(self, stride: int) -> None:
        """Leave out the stages coarser than `stride`: nobody would read them."""
        kept = sum(of <= stride for of in self.strides)
        self.stages, self.channels = self.stages[:kept], self.channels[:kept]

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
