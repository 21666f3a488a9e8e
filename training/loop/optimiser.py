"""The optimiser as a configuration asks for it, and which weights decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from training.config import RunConfig
from training.loop import checkpoint


class Optimiser(RunConfig):
    """AdamW, or SGD with momentum; slopes, scales and biases do not decay."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of SGD

    @property
    def states(self) -> int:
        """Numbers that are remembered for each weight."""
        return 2 if self.name == "adamw" else 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.name == "adamw" and self.momentum != type(self).model_fields["momentum"].default:
            raise ValueError('momentum is an option of "sgd", adamw has none')
        return self

    def of(self, *modules: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of all parameters of `modules`."""
        groups = parameter_groups(self.weight_decay, *modules)
        if self.name == "adamw":
            return torch.optim.AdamW(groups, lr=self.learning_rate)
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum)


def parameter_groups(weight_decay: float, *modules: nn.Module) -> list[dict[str, object]]:
    """An optimiser's groups: decay on matrices and kernels only, for a decayed PReLU slope becomes a ReLU."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def restore_optimiser(
    optimiser: torch.optim.Optimizer, state: dict[str, Any], source: Path, kind: str
) -> None:
    """Give it the memory that stands in the checkpoint `state` of `source`; its hyperparameters stay those asked for.

    Raises UnreadableCheckpoint for that of another optimiser, or of other weights.
    """
    groups = [*state.get("optimiser", {}).get("param_groups", ()), optimiser.defaults]
    made, own = ("adamw" if "betas" in of else "sgd" for of in (groups[0], groups[-1]))
    if made != own:
        raise checkpoint.UnreadableCheckpoint(
            f"{source} was made with {made}, this run has {own}: set optimiser.name, or use another --run"
        )
    asked = [{**group, "params": None} for group in optimiser.param_groups]
    checkpoint.restore(state, source, kind, {"optimiser": optimiser})
    for group, values in zip(optimiser.param_groups, asked, strict=True):
        group.update(values, params=group["params"])
