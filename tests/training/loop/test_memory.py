"""The estimate agrees with what can be counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from training.loop.memory import Memory, free_memory, training_memory

PICTURE = torch.zeros(1, 3, 8, 8)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.PReLU(4), nn.Flatten(), nn.Linear(144, 5))


def estimate(**changed: float) -> Memory:
    values = {"identities": 10_575, "dimension": 512, "states": 1, **changed}
    return training_memory(model(), PICTURE, 512, **values)  # type: ignore[arg-type]


def test_every_part_is_as_counted_by_hand() -> None:
    memory = estimate()
    weights = 3 * 4 * 9 + 4 + 144 * 5 + 5
    assert memory.model == 4 * weights * 4  # weight, gradient, average, momentum
    assert memory.activations == 512 * 4 * (144 + 144 + 144 + 5)
    assert memory.head == 10_575 * 512 * 12
    assert memory.logits == 3 * 4 * 512 * 10_575


def test_two_million_identities_need_twelve_gigabytes_of_centres_and_a_sampled_head_few_logits() -> None:
    assert 12.6e9 < estimate(identities=2_059_906).head < 12.7e9
    assert estimate(sample_rate=0.1).logits == estimate().logits // 10
    assert estimate(shards=4, identities=10_576).head == 10_576 * 512 * 12 // 4


def test_the_remedy_is_for_what_needs_most() -> None:
    assert estimate().advice(free=10**12) is None
    for changed, remedy in (
        ({"identities": 2_059_906, "dimension": 128}, "sample_rate"),
        ({"identities": 2_059_906, "sample_rate": 0.01}, "Partial FC shards"),
        ({"identities": 2}, "micro_batch"),
    ):
        advice = estimate(**changed).advice(free=10_000)
        assert advice is not None
        assert remedy in advice


def test_looking_leaves_the_model_in_its_mode_and_without_hooks() -> None:
    of = model().train()
    training_memory(of, PICTURE, 2, identities=2, dimension=5, states=2)
    assert of.training
    assert not any(layer._forward_hooks for layer in of.modules())


def test_a_machine_says_how_much_is_free() -> None:
    free = free_memory("cpu")
    assert free is None or free > 2**20
