"""The margin is exact: its values, its slope, its order, and its gradient at the ends where others turn to NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.embedder.margins import ArcFace


@pytest.fixture
def head() -> ArcFace:
    torch.manual_seed(0)
    return ArcFace(8, 5, scale=64.0, margin=0.5)


@pytest.mark.parametrize(
    ("degrees", "penalised"),
    [
        (0, math.cos(0.5)),
        (30, math.cos(math.pi / 6 + 0.5)),
        (90, math.cos(math.pi / 2 + 0.5)),
        (150, math.cos(math.radians(150) + 0.5)),
    ],
)
def test_before_the_turning_point_the_angle_grows_by_the_margin(
    head: ArcFace, degrees: float, penalised: float
) -> None:
    cosine = torch.tensor([[math.cos(math.radians(degrees))]], dtype=torch.float64)
    assert head._penalise(cosine).item() == pytest.approx(penalised, abs=1e-3 if degrees == 0 else 1e-9)


def test_beyond_the_turning_point_a_line_goes_on_downwards(head: ArcFace) -> None:
    cosine = torch.tensor([[math.cos(math.radians(170))]], dtype=torch.float64)
    assert head._penalise(cosine).item() == pytest.approx(cosine.item() - 0.5 * math.sin(0.5))


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.3, 0.5, 1.2])
def test_a_harder_sample_never_has_a_smaller_penalty(margin: float) -> None:
    head = ArcFace(8, 5, margin=margin)
    angles = torch.linspace(0.002, math.pi - 0.002, 4001, dtype=torch.float64)
    penalised = head._penalise(angles.cos()[:, None])[:, 0]
    assert (penalised.diff() < 0).all()


def test_the_gradient_is_that_of_finite_differences_in_float64(head: ArcFace) -> None:
    angles = np.concatenate(
        [np.linspace(0.05, 2.6, 15), np.linspace(2.7, 3.1, 6)]
    )  # 2.64 is the turning point
    cosine = torch.tensor(np.cos(angles)[:, None], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head._penalise, (cosine,))


def test_the_whole_loss_has_the_gradient_of_the_textbook_formula(head: ArcFace) -> None:
    label = torch.tensor([0, 3, 4])
    embedding = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    weight = head.weight.detach().double()
    cosine = F.normalize(embedding) @ F.normalize(weight).T
    angle = torch.acos(cosine.gather(1, label[:, None]))
    logits = 64.0 * cosine.scatter(1, label[:, None], torch.cos(angle + 0.5))
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, label), embedding)
    given = embedding.detach().float().requires_grad_()
    loss = head(given, label)
    loss.backward()
    torch.testing.assert_close(given.grad.double(), expected, rtol=1e-4, atol=1e-5)


def test_embeddings_of_any_length_give_one_loss(head: ArcFace) -> None:
    embedding, label = torch.randn(4, 8), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(head(embedding * 37.0, label), head(embedding, label), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_where_the_cosine_is_one_or_minus_one(head: ArcFace, sign: float) -> None:
    embedding = (sign * head.weight[2:3].detach()).requires_grad_()
    head(embedding, torch.tensor([2])).backward()
    assert torch.isfinite(embedding.grad).all()
    assert torch.isfinite(head.weight.grad).all()


def test_under_bf16_autocast_the_logits_stay_float32(head: ArcFace) -> None:
    embedding = torch.randn(4, 8)
    label = torch.tensor([0, 1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        logits = head.logits(embedding, label)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head.logits(embedding, label), rtol=0, atol=0)


def test_a_bf16_embedding_is_taken_up_to_its_own_rounding(head: ArcFace) -> None:
    embedding = torch.randn(4, 8).bfloat16().requires_grad_()
    head(embedding, torch.tensor([0, 1, 2, 3])).backward()
    assert torch.isfinite(embedding.grad).all()


@pytest.mark.parametrize("wrong", [-1, 5, 69_077])
def test_a_label_without_a_row_is_refused_by_its_range(head: ArcFace, wrong: int) -> None:
    with pytest.raises(ValueError, match=r"labels must lie in 0 … 4"):
        head(torch.randn(2, 8), torch.tensor([0, wrong]))
