"""Micro-batches leave the gradient of the batch that they are parts of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from training.loop.accumulation import Accumulation, micro_batches
from training.loop.precision import Kind, Precision

PICTURES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 5


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(144, 5))


def gradients(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def of_one_batch(samples: int) -> Tensor:
    module = model()
    F.cross_entropy(module(PICTURES[:samples]), LABELS[:samples]).backward()
    return gradients(module)


def accumulated(sizes: Sequence[int], window: int, kind: Kind = "fp32") -> Tensor:
    module = model()
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    accumulation = Accumulation(window, Precision(kind))
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        accumulation.add(F.cross_entropy(module(PICTURES[part]), LABELS[part]), size)
        start += size
    accumulation.close(optimiser)
    return gradients(module)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("sizes", [(24,), (8, 8, 8), (1, 20, 3), (7, 7, 7, 3)])
def test_any_cut_of_a_batch_has_the_batch_s_gradient(sizes: Sequence[int], kind: Kind) -> None:
    assert torch.allclose(accumulated(sizes, 24, kind), of_one_batch(24), atol=1e-6)


@pytest.mark.parametrize("sizes", [(8,), (8, 5), (1, 2)])
def test_a_last_window_that_is_not_full_counts_by_the_samples_it_has(sizes: Sequence[int]) -> None:
    assert torch.allclose(accumulated(sizes, 24), of_one_batch(sum(sizes)), atol=1e-6)


def test_a_window_says_when_it_is_full() -> None:
    module = model()
    window = Accumulation(10, Precision())
    full = [window.add(module(PICTURES[:4]).mean(), 4) for _ in range(3)]
    assert full == [False, False, True]


def test_no_gradient_outlives_its_step() -> None:
    module = model()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.0)
    window = Accumulation(8, Precision())
    seen = []
    for _ in range(3):  # the same batch thrice, with weights that stand still: the gradient may not grow
        window.add(F.cross_entropy(module(PICTURES[:8]), LABELS[:8]), 8)
        window.close(optimiser)
        seen.append(gradients(module).clone())
        assert window.step(optimiser)
        assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_a_window_with_nothing_in_it_is_refused() -> None:
    optimiser = torch.optim.SGD(model().parameters(), lr=1.0)
    with pytest.raises(ValueError, match="nothing was added"):
        Accumulation(8, Precision()).close(optimiser)


@given(samples=st.integers(1, 300), most=st.integers(1, 64))
def test_micro_batches_cover_the_batch_once_and_are_as_even_as_they_can_be(samples: int, most: int) -> None:
    parts = list(micro_batches(samples, most))
    assert [place for part in parts for place in range(samples)[part]] == list(range(samples))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-samples // most)
