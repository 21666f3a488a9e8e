"""The slow average of a model's weights, which is what is evaluated and published."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, step: int, ema: float) -> None:
    """Move `slow` towards `fast` by 1 − `ema`; further in the first steps, when the average has seen little."""
    decay = min(ema, (1 + step) / (10 + step))
    for average, current in zip(slow.state_dict().values(), fast.state_dict().values(), strict=True):
        if average.dtype.is_floating_point:
            average.lerp_(current, 1 - decay)
        else:
            average.copy_(current)
