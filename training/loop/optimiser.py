"""The optimiser as a configuration asks for it, and which weights decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from training.config import RunConfig
from training.loop import checkpoint
from training.loop.muon import Muon, is_kernel


class Optimiser(RunConfig):
    """AdamW, SGD with momentum, or Muon (see muon.py); slopes, scales and biases do not decay."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of SGD

    @property
    def states(self) -> int:
        """Numbers that are remembered for each weight."""
        return 2 if self.name == "adamw" else 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.name != "sgd" and self.momentum != type(self).model_fields["momentum"].default:
            raise ValueError(f'momentum is an option of "sgd", {self.name} has none')
        return self

    def of(self, *modules: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of all parameters of `modules`."""
        groups = parameter_groups(self.weight_decay, *modules)
        if self.name == "adamw":
            return torch.optim.AdamW(groups, lr=self.learning_rate)
        if self.name == "muon":
            return Muon(kernels_apart(groups, *modules), lr=self.learning_rate)
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum)


def parameter_groups(weight_decay: float, *modules: nn.Module) -> list[dict[str, Any]]:
    """An optimiser's groups: decay on matrices and kernels only, for a decayed PReLU slope becomes a ReLU."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def kernels_apart(groups: list[dict[str, Any]], *modules: nn.Module) -> list[dict[str, Any]]:
    """The groups of `parameter_groups` with those weights taken from the first that Muon's own step suits."""
    decaying, rest = groups
    layers = (layer for module in modules for layer in module.modules())
    suited = {id(layer.weight) for layer in layers if is_kernel(layer)}
    kernels, others = ([p for p in decaying["params"] if (id(p) in suited) is of] for of in (True, False))
    return [{**decaying, "params": kernels, "orthogonal": True}, {**decaying, "params": others}, rest]


def kind_of(group: dict[str, Any]) -> str:
    """The name of the optimiser that a group of parameters, or the defaults of all, is of."""
    return "muon" if "orthogonal" in group else "adamw" if "betas" in group else "sgd"


def restore_optimiser(
    optimiser: torch.optim.Optimizer, state: dict[str, Any], source: Path, kind: str
) -> None:
    """Give it the memory that stands in the checkpoint `state` of `source`; its hyperparameters stay those asked for.

    Raises UnreadableCheckpoint for that of another optimiser, or of other weights.
    """
    groups = [*state.get("optimiser", {}).get("param_groups", ()), optimiser.defaults]
    made, own = kind_of(groups[0]), kind_of(groups[-1])
    if made != own:
        raise checkpoint.UnreadableCheckpoint(
            f"{source} was made with {made}, this run has {own}: set optimiser.name, or use another --run"
        )
    asked = [{**group, "params": None} for group in optimiser.param_groups]
    checkpoint.restore(state, source, kind, {"optimiser": optimiser})
    for group, values in zip(optimiser.param_groups, asked, strict=True):
        group.update(values, params=group["params"])
