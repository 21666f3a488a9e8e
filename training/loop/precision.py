"""Mixed precision: what the forward pass computes in, and the loss scaling that fp16 alone needs.

Only the forward pass of the backbone belongs inside `autocast`; margins and losses stay in float32 outside it (in half
precision 1 − 1e-7 is 1, where the derivative of acos is infinite).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.config import BadConfig

Kind = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GROWTH_STEPS = 100  # sound steps after which fp16's scale doubles; torch's 2,000 is long beside a short run


class Precision:
    """One step is `autocast` → `backward` → `unscale` → clip → `step`; for fp32 and bf16 the scaling is nothing.

    Raises BadConfig where the device has no such arithmetic. On a CPU fp16 is slow almost everywhere: see `advice`.
    """

    def __init__(self, kind: Kind = "fp32", device: torch.device | str = "cpu") -> None:
        if kind not in DTYPES:
            raise BadConfig(f"precision {kind!r} is unknown: one of {', '.join(DTYPES)}")
        self.kind = kind
        self.device = torch.device(device)
        self.dtype = DTYPES[kind]
        _refuse_what_cannot_be_computed(kind, self.device)
        self._scaler = torch.amp.GradScaler(
            self.device.type, growth_interval=GROWTH_STEPS, enabled=kind == "fp16"
        )

    @property
    def scale(self) -> float:
        """What the loss is multiplied with before `backward`; 1 for fp32 and bf16."""
        return self._scaler.get_scale()

    @property
    def advice(self) -> str | None:
        """What to say before the first step; None where there is nothing."""
        if self.kind != "fp16" or self.device.type != "cpu":
            return None
        return (
            "precision fp16 is for GPUs: on a CPU a step takes several times that of bf16, and the first ones only "
            "find the loss's scale; use bf16, or fp32"
        )

    def autocast(self) -> torch.autocast:
        """The context of the forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.kind != "fp32")

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` (scalar), scaled."""
        self._scaler.scale(loss).backward()

    def unscale(self, *optimisers: Optimizer) -> None:
        """Give the gradients their true length, so that they can be measured and clipped: once before each `step`."""
        for optimiser in optimisers:
            self._scaler.unscale_(optimiser)

    def step(self, *optimisers: Optimizer, norm: float | Tensor = 0.0) -> bool:
        """Let the optimisers step. Returns whether they did: fp16 leaves a step out whose gradients overflowed, and
        halves its scale.

        `norm`, the gradients' length over all ranks, makes ranks that hold different parameters skip alike.
        """
        if self.kind != "fp16":
            for optimiser in optimisers:
                optimiser.step()
            return True
        before = self.scale
        if not math.isfinite(norm):
            self._scaler.update(before * self._scaler.get_backoff_factor())
            return False
        for optimiser in optimisers:
            self._scaler.step(optimiser)
        self._scaler.update()
        return self.scale >= before

    def state_dict(self) -> dict[str, Any]:
        """Numbers alone; empty where there is no scale."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A run may go on in another precision: a state without a scale leaves the first one in place."""
        if state:
            self._scaler.load_state_dict(state)


def _refuse_what_cannot_be_computed(kind: Kind, device: torch.device) -> None:
    if kind == "fp32":
        return
    if (
        kind == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise BadConfig(
            f"{torch.cuda.get_device_name(device)} has no bf16 arithmetic: use precision fp16 or fp32"
        )
    try:
        with torch.autocast(device.type, DTYPES[kind]):
            picture = torch.ones(1, 1, 4, 4, device=device)
            kernel = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
            torch.conv2d(picture, kernel).float().sum().backward()
    except RuntimeError as error:
        other = "bf16 or fp32" if kind == "fp16" else "fp32"
        raise BadConfig(f"{device} cannot train in {kind} ({error}): use precision {other}") from error
