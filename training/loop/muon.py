"""Muon: the momentum of every kernel made orthogonal before it is a step, so that all its directions are learnt at one
speed; what is no kernel learns by AdamW (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

A step of a kernel is as long as AdamW's usually is (Liu et al. 2025, arXiv 2502.16982), so one rate serves both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 5  # of Newton and Schulz: singular values then lie between 0.7 and 1.2
LENGTH = 0.2  # root mean square of AdamW's steps, in units of the rate
Moving = list[tuple[Tensor, Tensor]]  # weights and their gradients


class Muon(torch.optim.Optimizer):
    """groups: parameter groups, those of kernels with `orthogonal = True`; the others learn by AdamW. momentum and
    betas: memory of the one and of the other."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        plain = {"weight_decay": 0.0, "orthogonal": False}
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, **plain})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients; parameters without one stay."""
        for group in self.param_groups:
            moving = [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]
            for weight, _ in moving:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            (self._orthogonal if group["orthogonal"] else self._adam)(group, moving)

    def _orthogonal(self, group: dict[str, Any], moving: Moving) -> None:
        alike = defaultdict[torch.Size, list[tuple[Tensor, Tensor]]](list)  # one product for all of a shape
        for kernel, gradient in moving:
            memory = self._remembered(kernel, "momentum").lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(memory, group["momentum"])  # Nesterov's: where the momentum leads
            alike[kernel.shape].append((kernel, ahead.flatten(1)))
        for shape, pairs in alike.items():
            steps = orthogonal(torch.stack([ahead for _, ahead in pairs]))
            length = group["lr"] * LENGTH * max(steps.shape[1:]) ** 0.5
            for (kernel, _), step in zip(pairs, steps, strict=True):
                kernel.sub_(step.view(shape), alpha=length)

    def _adam(self, group: dict[str, Any], moving: Moving) -> None:
        (first, second), lr = group["betas"], group["lr"]
        for weight, gradient in moving:
            state = self.state[weight]
            state["step"] = state.get("step", 0) + 1
            mean = self._remembered(weight, "mean").lerp_(gradient, 1 - first)
            square = self._remembered(weight, "square").lerp_(gradient.square(), 1 - second)
            spread = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
            weight.addcdiv_(mean, spread, value=-lr / (1 - first ** state["step"]))

    def _remembered(self, weight: Tensor, name: str) -> Tensor:
        state = self.state[weight]
        if name not in state:
            state[name] = torch.zeros_like(weight)
        remembered: Tensor = state[name]
        return remembered


def orthogonal(matrices: Tensor) -> Tensor:
    """float [n, r, c] → the same shape: of each matrix U Σ Vᵀ about U Vᵀ, by Newton and Schulz's iteration with the
    coefficients of Jordan et al. 2024, which hurry small singular values to about 1 rather than to 1 exactly."""
    tall = matrices.shape[1] > matrices.shape[2]
    made = matrices.mT if tall else matrices
    made = made / made.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = made @ made.mT
        made = 3.4445 * made + (-4.7750 * square + 2.0315 * square @ square) @ made
    return made.mT if tall else made


def is_kernel(layer: nn.Module) -> bool:
    """Whether Muon suits a layer's weights: a convolution between layers, whose scale a normalisation takes away.

    Not one over single channels or over a picture's three (its matrices have hardly any directions), nor one with a
    bias, which is an output's.
    """
    return isinstance(layer, nn.Conv2d) and layer.bias is None and layer.groups == 1 and layer.in_channels > 3
