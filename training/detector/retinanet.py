"""A slim RetinaNet for faces: ResNet of basic blocks, feature pyramid, one head for score, box and five points.

Dense 3 × 3 convolutions alone: on the CPUs it serves on they are the fast ones, and their bf16 gradients too. The
outputs are ordered as `bundle.decode.anchors` lays them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRIOR = 0.01  # share of anchors that the untrained detector takes for a face
MEAN, SPAN = 127.5, 64.0  # of a pixel value, about 0 ± 1 after it


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            # Pool, then project: a strided 1 × 1 would throw three quarters of the picture away.
            pool: nn.Module = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(
                pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """Features of strides 8, 16 and 32; a stem of two strided convolutions, then four stages."""

    def __init__(self, widths: tuple[int, int, int, int], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, widths[0], stride=2), convolution(widths[0], widths[0], stride=2)
        )
        stages: list[nn.Module] = []
        inputs = widths[0]
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = [
                BasicBlock(inputs if i == 0 else width, width, 2 if i == 0 and index else 1)
                for i in range(depth)
            ]
            stages.append(nn.Sequential(*blocks))
            inputs = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]


class Pyramid(nn.Module):
    """Top-down sums of the three strides, each smoothed; all come out `width` channels wide."""

    def __init__(self, inputs: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(convolution(of, width, 1) for of in inputs)
        self.smooth = nn.ModuleList(convolution(width, width) for _ in inputs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        sideways = [lateral(of) for lateral, of in zip(self.lateral, features, strict=True)]
        for finer in range(len(sideways) - 2, -1, -1):
            sideways[finer] = sideways[finer] + F.interpolate(
                sideways[finer + 1], scale_factor=2.0, mode="nearest"
            )
        return [smooth(of) for smooth, of in zip(self.smooth, sideways, strict=True)]


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


class RetinaNet(nn.Module):
    """float [n, 3, h, w], normalised → logits [n, a], box deltas [n, a, 4], landmark offsets [n, a, 10]."""

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (16, 48, 80, 112),
        depths: tuple[int, int, int, int] = (1, 2, 2, 2),
        pyramid: int = 48,
        anchors: tuple[int, ...] = (2, 2, 2),
    ) -> None:
        super().__init__()
        self.backbone = ResNet(widths, depths)
        self.pyramid = Pyramid(widths[1:], pyramid)
        self.context = nn.ModuleList(Context(pyramid) for _ in anchors)
        # One output convolution a level: the strides see faces of very different context, and few channels.
        self.outputs = nn.ModuleList(nn.Conv2d(pyramid, count * 15, 3, 1, 1) for count in anchors)
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
        features = self.pyramid(self.backbone(x))
        levels = [
            # Channels last, so that the order is row, column, anchor.
            output(context(of)).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 15)
            for output, context, of in zip(self.outputs, self.context, features, strict=True)
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
