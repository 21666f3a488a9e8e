"""The slow average follows the weights, quickly while it has seen little."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.loop.averaging import follow
from training.loop.optimiser import parameter_groups


def constant(value: float) -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.PReLU(2))
    for tensor in module.state_dict().values():
        tensor.fill_(value)
    return module


def test_late_in_a_run_each_step_takes_one_minus_ema_of_the_way() -> None:
    slow, fast = constant(0), constant(1)
    follow(slow, fast, step=1_000_000, ema=0.9)
    assert slow[0].weight[0, 0].item() == pytest.approx(0.1)
    follow(slow, fast, step=1_000_001, ema=0.9)
    assert slow[0].weight[0, 0].item() == pytest.approx(0.19)


def test_the_first_step_takes_nearly_all_of_the_way() -> None:
    slow, fast = constant(0), constant(1)
    follow(slow, fast, step=0, ema=0.998)
    assert slow[0].weight[0, 0].item() == pytest.approx(0.9)


def test_statistics_are_averaged_and_counters_copied() -> None:
    slow, fast = constant(0), constant(4)
    follow(slow, fast, step=1_000_000, ema=0.5)
    assert slow[1].running_var.tolist() == [2, 2]
    assert slow[1].num_batches_tracked.item() == 4


def test_no_gradient_flows_and_the_fast_one_is_left_alone() -> None:
    slow, fast = constant(0), constant(1)
    follow(slow, fast, step=5, ema=0.9)
    assert all(bool((tensor == 1).all()) for tensor in fast.state_dict().values())
    assert slow[0].weight.grad_fn is None


def test_slopes_biases_and_normalisation_do_not_decay() -> None:
    decayed, kept = parameter_groups(0.02, constant(0))
    assert decayed["weight_decay"] == 0.02
    assert kept["weight_decay"] == 0.0
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 2)]
    assert len(kept["params"]) == 4  # the line's bias, scale and shift, the PReLU slope


def test_a_slope_without_gradient_stays_where_decay_moves_a_matrix() -> None:
    module = constant(1)
    optimiser = torch.optim.SGD(parameter_groups(0.5, module), lr=0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert module[2].weight.tolist() == [1, 1]
    assert module[0].weight[0, 0].item() == pytest.approx(0.95)
