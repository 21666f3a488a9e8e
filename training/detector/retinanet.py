"""A RetinaNet for faces: a backbone, a feature pyramid, and on each level one head for score, box and five points.

Lin et al. 2017 (arXiv 1708.02002, 1612.03144); the outputs are ordered as `bundle.decode.anchors` lays them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.detector.backbones.stages import Stages, convolution

PRIOR = 0.01  # share of anchors that the untrained detector takes for a face
MEAN, SPAN = 127.5, 64.0  # of a pixel value, about 0 ± 1 after it


class Pyramid(nn.Module):
    """Top-down sums of the backbone's strides, each smoothed, and `coarser` levels beyond them, each half the one
    before; all come out `width` channels wide."""

    def __init__(self, inputs: Sequence[int], width: int, coarser: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(convolution(of, width, 1) for of in inputs)
        self.smooth = nn.ModuleList(convolution(width, width) for _ in inputs)
        self.coarser = nn.ModuleList(convolution(width, width, 3, 2) for _ in range(coarser))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        sideways = [lateral(of) for lateral, of in zip(self.lateral, features, strict=True)]
        for finer in range(len(sideways) - 2, -1, -1):
            sideways[finer] = sideways[finer] + F.interpolate(
                sideways[finer + 1], scale_factor=2.0, mode="nearest"
            )
        levels = [smooth(of) for smooth, of in zip(self.smooth, sideways, strict=True)]
        for down in self.coarser:
            levels.append(down(levels[-1]))
        return levels


class Context(nn.Module):
    """Half the channels see 3 × 3, a quarter 5 × 5, a quarter 7 × 7: hair and shoulders tell a small face."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, 1, 1, bias=False), nn.BatchNorm2d(width // 2)
        )
        self.narrow = convolution(width, width // 4)
        self.middle = nn.Sequential(
            nn.Conv2d(width // 4, width // 4, 3, 1, 1, bias=False), nn.BatchNorm2d(width // 4)
        )
        self.far = nn.Sequential(
            convolution(width // 4, width // 4),
            nn.Conv2d(width // 4, width // 4, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width // 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(x)
        return F.relu(torch.cat([self.near(x), self.middle(narrow), self.far(narrow)], 1))


def _head(inputs: int, widths: tuple[int, ...], context: bool) -> nn.Module:
    """Where `context` is not asked for, plain convolutions of `widths`."""
    if context:
        return Context(inputs) if not widths else nn.Sequential(Context(inputs), _head(inputs, widths, False))
    ways = zip((inputs, *widths[:-1]), widths, strict=True) if widths else ()
    return nn.Sequential(*(convolution(into, out) for into, out in ways))


class RetinaNet(nn.Module):
    """float [n, 3, h, w], normalised → logits [n, a], box deltas [n, a, 4], landmark offsets [n, a, 10]; float32.

    strides: of the levels, 4 to 128, each twice the one before; anchors: of a cell of each level; head: channels of
    the convolutions before a level's output; context: of 5 × 5 and 7 × 7 cells, before the head. h and w are
    multiples of the coarsest stride.
    """

    def __init__(
        self,
        backbone: Stages,
        pyramid: int = 48,
        strides: tuple[int, ...] = (8, 16, 32),
        anchors: tuple[int, ...] = (2, 2, 2),
        head: tuple[int, ...] = (),
        context: bool = True,
    ) -> None:
        super().__init__()
        backbone.end_at(strides[-1])
        self.backbone = backbone
        self.read = tuple(stride in strides for stride in backbone.strides)
        inputs = [of for of, read in zip(backbone.channels, self.read, strict=True) if read]
        self.pyramid = Pyramid(inputs, pyramid, len(strides) - len(inputs))
        # One head a level: the strides see faces of very different context, and few channels.
        self.context = nn.ModuleList(_head(pyramid, head, context) for _ in anchors)
        last = head[-1] if head else pyramid
        self.outputs = nn.ModuleList(nn.Conv2d(last, count * 15, 3, 1, 1) for count in anchors)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for output in self.outputs:
            assert isinstance(output, nn.Conv2d)
            nn.init.normal_(output.weight, std=0.01)
            # Without the prior, thousands of easy backgrounds outweigh the first faces and the run diverges.
            bias = torch.zeros(output.out_channels // 15, 15)
            bias[:, 0] = -math.log((1 - PRIOR) / PRIOR)
            output.bias = nn.Parameter(bias.view(-1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.answers(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """The backbone's features of the strides that the pyramid reads."""
        return [of for of, read in zip(self.backbone(x), self.read, strict=True) if read]

    def answers(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What is said from `features`, or from a teacher's of the same shapes."""
        levels = [
            # Channels last, so that the order is row, column, anchor.
            output(context(of)).permute(0, 2, 3, 1).reshape(of.shape[0], -1, 15)
            for output, context, of in zip(self.outputs, self.context, self.pyramid(features), strict=True)
        ]
        every = torch.cat(levels, 1).float()
        return every[..., 0], every[..., 1:5], every[..., 5:]


def normalise(image: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] RGB → float [n, 3, h, w]; training and the exported graph share this line."""
    return (image.permute(0, 3, 1, 2).float() - MEAN) / SPAN


class ServedDetector(nn.Module):
    """The graph that is exported: uint8 [n, h, w, 3] → score [n, a] (0–1), box [n, a, 4], landmark [n, a, 10]."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, boxes, landmarks = self.model(normalise(image))
        return logits.sigmoid(), boxes, landmarks
