"""Triplets take the semi-hard impostor or, without one, always the same; centres follow the paper's rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.config import BadConfig
from training.embedder.margins import BadLabels
from training.embedder.metric_losses import CentreLoss, TripletSemiHard


def at(*degrees: float) -> Tensor:
    """Unit vectors in a plane: the squared distance of two is 2 − 2 · cos of the angle between them."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def apart(degrees: float) -> float:
    return 2 - 2 * math.cos(math.radians(degrees))


@pytest.fixture
def p_by_k() -> tuple[Tensor, Tensor]:
    """Four people with four faces each, near each other and far from collapse."""
    torch.manual_seed(0)
    label = torch.arange(4).repeat_interleave(4)
    centre = torch.randn(4, 6, dtype=torch.float64)
    return centre[label] + 0.8 * torch.randn(16, 6, dtype=torch.float64), label


# ── triplets ────────────────────────────────────────────────────────────────────────────────────────────────────


def by_hand(embedding: Tensor, label: Tensor, margin: float) -> tuple[float, float]:
    """The definition, pair by pair."""
    direction = embedding / embedding.norm(dim=1, keepdim=True)
    costs = []
    for a, who in enumerate(label):
        away = [(direction[a] - other).square().sum().item() for other in direction]
        impostors = sorted(d for d, other in zip(away, label, strict=True) if other != who)
        for p in range(len(label)):
            if p != a and label[p] == who:
                farther = [d for d in impostors if d > away[p]]
                costs.append(max(0.0, away[p] - (farther[0] if farther else impostors[-1]) + margin))
    return sum(costs) / len(costs), sum(c > 0 for c in costs) / len(costs)


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_the_vectorised_loss_is_the_definition_s(p_by_k: tuple[Tensor, Tensor], margin: float) -> None:
    loss, active = TripletSemiHard(margin)(*p_by_k)
    assert (loss.item(), active.item()) == pytest.approx(by_hand(*p_by_k, margin))
    assert 0 < active < 1 or margin == 1.0


@pytest.mark.parametrize(
    ("impostors", "chosen"),
    [
        ((10, 25, 40), 25),  # the nearest that is farther than the positive at 20°
        ((5, 10, 15), 15),  # none is farther: the farthest, the least hard
        ((25, 20, 19), 25),  # as far as the positive is not farther
        ((-25, 40, 90), -25),
    ],
)
def test_the_impostor_is_the_nearest_one_beyond_the_positive(
    impostors: tuple[float, ...], chosen: float
) -> None:
    """Anchor at 0°, positive at 20°; the pair the other way round has impostors of its own, so it is held far off."""
    embedding, label = at(0, 20, *impostors), torch.tensor([7, 7, 1, 2, 3])
    embedding.requires_grad_()
    triplet = TripletSemiHard(margin=4.0)
    both = triplet(embedding, label).loss.item() * 2
    reverse = sorted(apart(d - 20) for d in impostors)
    farther = [d for d in reverse if d > apart(20) + 1e-12]
    other_way = apart(20) - (farther[0] if farther else reverse[-1]) + 4.0
    assert both - other_way == pytest.approx(apart(20) - apart(chosen) + 4.0)


def test_far_impostors_cost_nothing_and_none_is_active() -> None:
    loss, active = TripletSemiHard(0.2)(at(0, 5, 180, 185), torch.tensor([0, 0, 1, 1]))
    assert (loss, active) == (0, 0)


def test_within_the_margin_a_farther_impostor_costs_what_is_missing() -> None:
    """Of (0°, 10°) and (40°, 40°), only the pair 0° → 10° and back is within the margin of 40°."""
    loss, active = TripletSemiHard(0.5)(at(0, 10, 40, 40), torch.tensor([0, 0, 1, 1]))
    pairs = [apart(10) - apart(40) + 0.5, apart(10) - apart(30) + 0.5, 0.5 - apart(30), 0.5 - apart(30)]
    assert loss.item() == pytest.approx(sum(pairs) / 4)
    assert active == 1


def test_a_face_is_not_its_own_positive() -> None:
    """People with one picture add no pair: the mean is over the two genuine pairs of person 0 alone."""
    embedding = at(0, 60, 20, 30)
    loss, active = TripletSemiHard(0.2)(embedding, torch.tensor([0, 0, 1, 2]))
    expected = [apart(60) - apart(30) + 0.2, apart(60) - apart(40) + 0.2]  # no impostor is farther
    assert loss.item() == pytest.approx(sum(expected) / 2)
    assert active == 1


def test_the_choice_is_the_same_each_time_and_in_any_order(p_by_k: tuple[Tensor, Tensor]) -> None:
    embedding, label = p_by_k
    triplet = TripletSemiHard()
    first = triplet(embedding, label)
    assert triplet(embedding, label) == first
    order = torch.randperm(16)
    torch.testing.assert_close(triplet(embedding[order], label[order] + 100).loss, first.loss)


def test_the_length_of_an_embedding_is_left_alone(p_by_k: tuple[Tensor, Tensor]) -> None:
    embedding, label = p_by_k
    stretched = (embedding * torch.linspace(0.1, 30, 16)[:, None]).requires_grad_()
    loss, _ = TripletSemiHard()(stretched, label)
    torch.testing.assert_close(loss, TripletSemiHard()(embedding, label).loss)
    loss.backward()
    along = (stretched.grad * stretched.detach()).sum(1)
    torch.testing.assert_close(along, torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_the_triplet_gradient_is_that_of_finite_differences(
    p_by_k: tuple[Tensor, Tensor], margin: float
) -> None:
    embedding, label = p_by_k
    triplet = TripletSemiHard(margin)
    assert torch.autograd.gradcheck(lambda e: triplet(e, label).loss, (embedding.requires_grad_(),))


def test_where_all_faces_are_one_vector_the_loss_is_the_margin() -> None:
    triplet = TripletSemiHard(0.3)
    embedding = torch.ones(8, 4).requires_grad_()
    loss, active = triplet(embedding, torch.arange(4).repeat(2))
    loss.backward()
    assert loss.item() == pytest.approx(0.3, abs=1e-6)
    assert active == 1
    assert torch.isfinite(embedding.grad).all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_under_autocast_the_distances_stay_in_float32(
    p_by_k: tuple[Tensor, Tensor], half: torch.dtype
) -> None:
    embedding, label = p_by_k[0].to(half), p_by_k[1]
    with torch.autocast("cpu", half):
        loss, active = TripletSemiHard()(embedding, label)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        (loss, active), tuple(TripletSemiHard()(embedding.float(), label)), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("label", "people"), [([0, 1, 2, 3], 4), ([5, 5, 5, 5], 1)], ids=["one picture each", "one person"]
)
def test_a_batch_without_a_triplet_is_refused_with_what_it_has(label: list[int], people: int) -> None:
    with pytest.raises(BadLabels, match=rf"4 faces of {people} people has no triplet: .* P × K"):
        TripletSemiHard()(torch.randn(4, 3), torch.tensor(label))


def test_labels_that_do_not_fit_the_batch_are_refused() -> None:
    with pytest.raises(BadLabels, match=r"one label per embedding: got \[3\] for \[4, 2\]"):
        TripletSemiHard()(torch.randn(4, 2), torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("margin", [0.0, -1.0, 5.0, math.nan])
def test_a_margin_that_no_distance_can_keep_is_refused(margin: float) -> None:
    with pytest.raises(BadConfig, match=r"margin must lie in 0.001 … 4"):
        TripletSemiHard(margin)


# ── centres ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_centre_loss_is_half_the_mean_squared_distance() -> None:
    centres = CentreLoss(3, 2).double().eval()
    centres.centre.copy_(at(0, 90, 45))
    loss = centres(at(60, 90, 45), torch.tensor([0, 1, 2]))
    assert loss.item() == pytest.approx(apart(60) / 2 / 3)


def test_a_new_centre_pulls_at_nobody() -> None:
    embedding = torch.randn(4, 6, requires_grad=True)
    loss = CentreLoss(4, 6).eval()(embedding, torch.arange(4))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    torch.testing.assert_close(embedding.grad, torch.zeros(4, 6), rtol=0, atol=1e-6)


def test_centres_move_by_the_paper_s_rule() -> None:
    """c − rate · Σ (c − x) / (1 + n): one face moves its centre by a quarter of the way, three by three eighths."""
    centres = CentreLoss(3, 2, rate=0.5).double()
    centres.centre.copy_(at(90, 0, 45))
    face = at(0, 180, 180, 180)
    centres(7 * face, torch.tensor([0, 1, 1, 1]))
    expected = torch.stack(
        [0.75 * at(90)[0] + 0.25 * at(0)[0], (5 * at(0)[0] + 3 * at(180)[0]) / 8, at(45)[0]]
    )
    torch.testing.assert_close(centres.centre, expected)


def test_the_loss_is_that_of_the_centres_before_they_move() -> None:
    embedding, label = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    moving = CentreLoss(3, 4)
    moving(embedding, label)
    still = CentreLoss(3, 4).eval()
    still.load_state_dict(moving.state_dict())
    assert moving(embedding, label) == still(embedding, label)
    assert (moving.centre != still.centre).any()


def test_repeated_faces_draw_the_centre_to_their_mean() -> None:
    centres = CentreLoss(2, 2).double()
    for _ in range(60):
        centres(at(10, 50, 170), torch.tensor([0, 0, 1]))
    torch.testing.assert_close(centres.centre, torch.stack([at(10, 50).mean(0), at(170)[0]]))


def test_the_centres_are_state_and_no_optimiser_s() -> None:
    centres = CentreLoss(5, 3)
    assert not list(centres.parameters())
    assert list(centres.state_dict()) == ["centre"]


def test_in_evaluation_the_centres_stay() -> None:
    centres = CentreLoss(2, 3).eval()
    centres(torch.randn(2, 3), torch.arange(2))
    assert not centres.centre.any()


def test_the_centre_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    centres = CentreLoss(3, 4).double().eval()
    centres.centre.normal_()
    embedding = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: centres(e, torch.tensor([0, 1, 2, 1, 0])), (embedding,))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_meet_their_centres_in_float32(half: torch.dtype) -> None:
    centres = CentreLoss(3, 4)
    embedding = torch.randn(3, 4).to(half).requires_grad_()
    with torch.autocast("cpu", half):
        loss = centres(embedding, torch.arange(3))
    loss.backward()
    assert loss.dtype == centres.centre.dtype == torch.float32
    assert torch.isfinite(embedding.grad).all()


def test_no_faces_cost_nothing() -> None:
    loss = CentreLoss(3, 4)(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("label", [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])])
def test_a_label_without_a_centre_is_refused(label: Tensor) -> None:
    with pytest.raises(BadLabels, match=r"int64 \[n\] in 0 … 2"):
        CentreLoss(3, 4)(torch.randn(2, 4), label)


def test_a_rate_beyond_the_faces_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"rate must lie in 0 … 1, got 1.5"):
        CentreLoss(3, 4, rate=1.5)
