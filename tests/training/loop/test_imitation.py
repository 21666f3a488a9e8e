"""The distance between two networks' layers counts each channel by how much it varies."""

from __future__ import annotations

import pytest
import torch

from training.loop.imitation import channel_scales, distance


def test_a_scale_is_one_over_the_channel_s_variance_and_a_tenth_of_the_mean_one() -> None:
    feature = torch.tensor(
        [[[[0.0, 2.0]], [[5.0, 5.0]]], [[[0.0, 2.0]], [[5.0, 5.0]]]]
    )  # variances 4/3 and 0
    (scale,) = channel_scales([feature])
    mean = (4 / 3 + 0) / 2
    torch.testing.assert_close(scale, torch.tensor([1 / (4 / 3 + 0.1 * mean), 1 / (0.1 * mean)]))


def test_the_distance_is_the_sum_over_layers_of_the_scaled_mean_squares() -> None:
    outputs = [torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 1, 1)]
    features = [torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]), torch.full((1, 1, 1, 1), 3.0)]
    scales = [torch.tensor([2.0, 0.5]), torch.tensor([1.0])]
    # channels: (1 + 9) / 2 · 2 = 10 and 4 · 0.5 = 2, so 6; the other layer: 9
    assert distance(outputs, features, scales).item() == pytest.approx(15)


def test_knowing_all_is_nought_and_knowing_only_the_mean_is_about_one_a_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.randn(64, 8, 5, 5, generator=generator) * torch.arange(1, 9)[:, None, None] + 3
        for _ in range(3)
    ]
    scales = channel_scales(features)
    assert distance(features, features, scales) == 0
    means = [of.mean((0, 2, 3), keepdim=True).expand_as(of) for of in features]
    assert 2 < distance(means, features, scales) < 3


def test_it_is_computed_in_float32_whatever_the_layers_are_in() -> None:
    output = torch.full((1, 1, 4, 4), 100.0, dtype=torch.bfloat16, requires_grad=True)
    feature = torch.full((1, 1, 4, 4), 100.5, dtype=torch.bfloat16)
    found = distance([output], [feature], [torch.ones(1)])
    assert found.dtype == torch.float32
    assert found.item() == 0.25
    found.backward()
    assert torch.isfinite(output.grad).all()


def test_layers_that_do_not_match_are_an_error() -> None:
    one = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="zip"):
        distance([one, one], [one], [torch.ones(1)])
