"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, table 1); at width 0.25 it is RetinaFace's small backbone."""

from __future__ import annotations

from torch import nn

from training.detector.backbones.stages import Stages, convolution, scaled

BLOCKS = ((128, 2), (256, 2), (512, 6), (1024, 2))  # (channels, blocks) of strides 4, 8, 16 and 32


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 × 3 of each channel by itself, then 1 × 1 across them."""
    return nn.Sequential(
        convolution(inputs, inputs, 3, stride, groups=inputs), convolution(inputs, outputs, 1)
    )


def mobilenet(width: float = 1.0) -> Stages:
    """`width` times the published channels, to a multiple of 8."""
    inputs = scaled(64, width)
    stem = nn.Sequential(convolution(3, scaled(32, width), stride=2), _separable(scaled(32, width), inputs))
    stages, channels = [], []
    for of, blocks in BLOCKS:
        outputs = scaled(of, width)
        layers = [_separable(inputs, outputs, 2), *(_separable(outputs, outputs) for _ in range(blocks - 1))]
        stages.append(nn.Sequential(*layers))
        channels.append(outputs)
        inputs = outputs
    return Stages(stem, stages, channels)
