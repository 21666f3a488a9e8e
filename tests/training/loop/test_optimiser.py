"""An optimiser goes on with its memory and with the hyperparameters of the run that asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.optimiser import Optimiser, restore_optimiser

HERE = Path("last.pt")


def stepped(asked: Optimiser) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """After one step, with the state that a checkpoint would hold."""
    torch.manual_seed(0)
    module = layers()
    optimiser = asked.of(module)
    module(torch.ones(1, 4, 1, 1)).sum().backward()
    optimiser.step()
    return optimiser, {"kind": "detector", "optimiser": optimiser.state_dict()}


def layers() -> nn.Sequential:
    """A kernel, a matrix, and what does not decay."""
    return nn.Sequential(nn.Conv2d(4, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "decays"), [("adamw", [0.4, 0]), ("sgd", [0.4, 0]), ("muon", [0.4, 0.4, 0])]
)
def test_memory_comes_from_the_checkpoint_and_hyperparameters_from_the_run(
    name: Any, decays: list[float]
) -> None:
    before, state = stepped(Optimiser(name=name, weight_decay=0.1))
    own = Optimiser(name=name, weight_decay=0.4, learning_rate=1e-4).of(layers())
    restore_optimiser(own, state, HERE, "detector")
    assert [(group["weight_decay"], group["lr"]) for group in own.param_groups] == [
        (of, 1e-4) for of in decays
    ]
    ours, theirs = (of.state_dict()["state"] for of in (own, before))
    for place, memory in theirs.items():
        for key, of in memory.items():
            assert torch.equal(torch.as_tensor(ours[place][key]), torch.as_tensor(of))


def test_the_memory_of_another_optimiser_or_of_other_weights_is_refused() -> None:
    _, state = stepped(Optimiser(name="sgd"))
    with pytest.raises(
        UnreadableCheckpoint, match=r"last\.pt was made with sgd, this run has adamw: set optimiser\.name"
    ):
        restore_optimiser(Optimiser().of(layers()), state, HERE, "detector")
    with pytest.raises(UnreadableCheckpoint, match=r"made with sgd, this run has muon"):
        restore_optimiser(Optimiser(name="muon").of(layers()), state, HERE, "detector")
    two = nn.Sequential(layers(), nn.Linear(2, 2))
    with pytest.raises(UnreadableCheckpoint, match="another model: optimiser"):
        restore_optimiser(Optimiser(name="sgd").of(two), state, HERE, "detector")
    with pytest.raises(UnreadableCheckpoint, match="holds no 'optimiser'"):
        restore_optimiser(Optimiser().of(two), {"kind": "detector"}, HERE, "detector")
