"""What a backbone costs: parameters to store, multiply-accumulates to run."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def parameters(model: nn.Module) -> int:
    """Trained and frozen ones; running statistics are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, shape: tuple[int, ...] = (1, 3, 112, 112)) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one input of this shape.

    Counted on a twin without memory or arithmetic, so that the largest is cheap; the model is left as it is.
    """
    shapes = {id(t): torch.empty_like(t, device="meta") for t in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shapes).eval()
    counted = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.weight[0].numel()  # type: ignore[operator, index]

    for layer in twin.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        twin(torch.empty(shape, device="meta"))
    return counted
