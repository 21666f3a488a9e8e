"""Muon's step of a kernel turns its momentum into a rotation of one length; everything else learns as by AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.detector.student import model_of
from training.loop.muon import LENGTH, Muon, is_kernel, orthogonal
from training.loop.optimiser import Optimiser


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 6), (1, 1, 4)])
def test_orthogonal_keeps_the_directions_and_makes_them_equally_long(shape: tuple[int, ...]) -> None:
    matrices = drawn(*shape)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ orthogonal(matrices) @ right.mT  # the same singular vectors make this diagonal
    lengths = inside.diagonal(dim1=1, dim2=2)
    assert 0.6 < lengths.min() <= lengths.max() < 1.3
    assert (inside - torch.diag_embed(lengths)).abs().max() < 1e-4


def test_no_gradient_at_all_is_no_step() -> None:
    assert not orthogonal(torch.zeros(1, 4, 9)).any()


def a_step(kernel: Tensor, gradient: Tensor, **options: float) -> Tensor:
    weight = nn.Parameter(kernel.clone(memory_format=torch.preserve_format))
    optimiser = Muon([{"params": [weight], "orthogonal": True, **options}], lr=0.01)
    weight.grad = gradient
    optimiser.step()
    return weight.detach() - kernel


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_step_is_as_long_as_adamw_makes_it_whatever_the_gradients_scale(scale: float) -> None:
    step = a_step(drawn(16, 8, 3, 3), scale * drawn(16, 8, 3, 3))
    assert step.square().mean().sqrt() == pytest.approx(0.01 * LENGTH, rel=0.2)


def test_a_step_goes_down_and_decays() -> None:
    kernel, gradient = drawn(4, 8, 3, 3), drawn(4, 8, 3, 3)
    step = a_step(kernel, gradient)
    assert (step * gradient).sum() < 0
    assert torch.allclose(a_step(kernel, gradient, weight_decay=0.5), step - 0.01 * 0.5 * kernel, atol=1e-7)


def test_the_memory_format_changes_nothing() -> None:
    kernel, gradient = drawn(8, 8, 3, 3), drawn(8, 8, 3, 3)
    plain = a_step(kernel, gradient)
    last = a_step(
        kernel.to(memory_format=torch.channels_last), gradient.to(memory_format=torch.channels_last)
    )
    assert torch.allclose(plain, last, atol=1e-6)


def test_kernels_of_one_shape_step_as_each_would_alone() -> None:
    weights = [nn.Parameter(torch.zeros(4, 8, 3, 3)) for _ in range(3)]
    for row, weight in enumerate(weights):
        weight.grad = (row + 1) * drawn(3, 4, 8, 3, 3)[row]
    Muon([{"params": weights, "orthogonal": True}], lr=0.01).step()
    for row, weight in enumerate(weights):
        alone = a_step(torch.zeros(4, 8, 3, 3), drawn(3, 4, 8, 3, 3)[row])
        assert torch.allclose(weight, alone, atol=1e-6)


def test_what_is_no_kernel_learns_as_by_adamw() -> None:
    ours, theirs = (nn.Parameter(drawn(5, 4)) for _ in range(2))
    muon = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.02)
    adamw = torch.optim.AdamW([theirs], lr=0.02, weight_decay=0.1)
    for step in range(5):
        for weight, optimiser in ((ours, muon), (theirs, adamw)):
            weight.grad = drawn(5, 4) * (step - 2)
            optimiser.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_weight_without_a_gradient_stays() -> None:
    moving, still = (nn.Parameter(drawn(4, 8, 3, 3)) for _ in range(2))
    moving.grad = drawn(4, 8, 3, 3)
    Muon([{"params": [moving, still], "orthogonal": True, "weight_decay": 0.5}], lr=0.1).step()
    assert torch.equal(still, drawn(4, 8, 3, 3))
    assert not torch.equal(moving, drawn(4, 8, 3, 3))


def test_kernels_are_the_convolutions_between_layers() -> None:
    model: RetinaNet = model_of(DetectorConfig())
    suited = {name for name, layer in model.named_modules() if is_kernel(layer)}
    assert {name.split(".")[0] for name in suited} == {"backbone", "pyramid", "context"}
    optimiser = Optimiser(name="muon", weight_decay=0.3).of(model)
    kernels, others, rest = optimiser.param_groups
    assert {id(of) for of in kernels["params"]} == {id(model.get_submodule(of).weight) for of in suited}
    assert {id(output.weight) for output in model.outputs} <= {id(of) for of in others["params"]}
    assert [of["weight_decay"] for of in (kernels, others, rest)] == [0.3, 0.3, 0.0]
    assert sum(len(of["params"]) for of in optimiser.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 16, 3, bias=False),  # over a picture
        nn.Conv2d(16, 16, 3, groups=16, bias=False),  # over single channels
        nn.Conv2d(16, 30, 3),  # an output
        nn.BatchNorm2d(8),
        nn.Linear(8, 8),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_are_no_kernels(layer: nn.Module) -> None:
    assert not is_kernel(layer)


def test_it_learns_what_a_convolution_does() -> None:
    """From random kernels to those of another network, much nearer in 200 steps."""
    torch.manual_seed(0)

    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        )

    target, model = network(), network()
    optimiser = Optimiser(name="muon", learning_rate=0.02, weight_decay=0).of(model)
    errors = []
    for _ in range(200):
        picture = torch.randn(4, 3, 8, 8)
        error = (model(picture) - target(picture).detach()).square().mean()
        model.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0]
