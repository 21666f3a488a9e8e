"""Which weights decay."""

from __future__ import annotations

from torch import nn


def parameter_groups(weight_decay: float, *modules: nn.Module) -> list[dict[str, object]]:
    """An optimiser's groups: decay on matrices and kernels only, for a decayed PReLU slope becomes a ReLU."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
