"""Where a network leaves half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which operations on `x` keep their inputs' type. `meta` tensors, which only count, have none."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)
