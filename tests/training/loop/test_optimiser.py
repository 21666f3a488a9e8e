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
    layer = nn.Linear(3, 2)
    optimiser = asked.of(layer)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return optimiser, {"kind": "detector", "optimiser": optimiser.state_dict()}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_memory_comes_from_the_checkpoint_and_hyperparameters_from_the_run(name: Any) -> None:
    before, state = stepped(Optimiser(name=name, weight_decay=0.1))
    own = Optimiser(name=name, weight_decay=0.4, learning_rate=1e-4).of(nn.Linear(3, 2))
    restore_optimiser(own, state, HERE, "detector")
    assert [(group["weight_decay"], group["lr"]) for group in own.param_groups] == [(0.4, 1e-4), (0.0, 1e-4)]
    ours, theirs = (of.state_dict()["state"] for of in (own, before))
    for place, memory in theirs.items():
        for key, of in memory.items():
            assert torch.equal(torch.as_tensor(ours[place][key]), torch.as_tensor(of))


def test_the_memory_of_another_optimiser_or_of_other_weights_is_refused() -> None:
    _, state = stepped(Optimiser(name="sgd"))
    with pytest.raises(
        UnreadableCheckpoint, match=r"last\.pt was made with sgd, this run has adamw: set optimiser\.name"
    ):
        restore_optimiser(Optimiser().of(nn.Linear(3, 2)), state, HERE, "detector")
    two = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(UnreadableCheckpoint, match="another model: optimiser"):
        restore_optimiser(Optimiser(name="sgd").of(two), state, HERE, "detector")
    with pytest.raises(UnreadableCheckpoint, match="holds no 'optimiser'"):
        restore_optimiser(Optimiser().of(two), {"kind": "detector"}, HERE, "detector")
