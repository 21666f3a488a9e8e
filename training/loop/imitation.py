"""How far a student's layers are from its teacher's: what both distillations minimise layer by layer.

Feature hints, Romero et al. 2015, arXiv 1412.6550.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def channel_scales(features: Sequence[Tensor]) -> list[Tensor]:
    """float [channels] a layer: one over each channel's variance over [n, channels, h, w], bounded so that a channel
    that is nearly always zero does not drown the others."""
    variances = [of.float().var((0, 2, 3)) for of in features]
    return [1 / (of + 0.1 * of.mean()) for of in variances]


def distance(outputs: Sequence[Tensor], features: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """The sum over layers of the mean squared error, each channel in units of its variance: 0 is perfect, about
    one a layer is knowing nothing. In fp32."""
    errors = [
        ((output - feature).float().pow(2).mean((0, 2, 3)) * of).mean()
        for output, feature, of in zip(outputs, features, scales, strict=True)
    ]
    return torch.stack(errors).sum()
