from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bundle.decode import AnchorLayout, anchors, decode, encode
from training.detector.losses import (
    box_errors,
    decoded,
    distance_ious,
    encoded,
    focal,
    generalised_ious,
    hardest,
    imitated,
    landmark_error,
    quality_focal,
)
from training.detector.teacher import Answers

LAYOUT = AnchorLayout()


def labels(*of: int) -> Tensor:
    return torch.tensor([of], dtype=torch.int8)


def test_focal_equals_its_formula_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    wrong = 1 / (1 + np.exp(-2.0))
    expected = 0.25 * 0.5**2 * -np.log(0.5) + 0.75 * wrong**2 * -np.log(1 - wrong)
    assert focal(logits, labels(1, 0, -1)).item() == pytest.approx(expected, rel=1e-5)


def test_focal_of_an_untaught_background_is_small_only_with_the_prior() -> None:
    """0.13 each at one half, seven millionths of a tenth at one hundredth: what the prior's bias is for."""
    at = [focal(torch.tensor([[logit]]), labels(0)).item() for logit in (0.0, -4.59512)]
    assert at[0] == pytest.approx(0.75 * 0.25 * np.log(2), rel=1e-5)
    assert at[0] / at[1] == pytest.approx(1.7e5, rel=0.05)


def test_silent_anchors_have_no_gradient() -> None:
    for loss in (focal, hardest):
        logits = torch.zeros(1, 3, requires_grad=True)
        loss(logits, labels(1, 0, -1)).backward()
        assert logits.grad is not None
        assert logits.grad[0, 2] == 0
        assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


@pytest.mark.parametrize("loss", [focal, hardest])
def test_a_confident_mistake_keeps_a_finite_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    value = loss(logits, labels(0, 1))
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_hardest_backgrounds_are_taken_picture_by_picture() -> None:
    logits = torch.tensor([[3.0, 0.0, 1.0, 2.0, 9.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    label = torch.tensor([[1, 0, 0, 0, -1], [0, 0, 0, 0, 0]], dtype=torch.int8)

    def backgrounds(*of: float) -> float:
        return float(np.log1p(np.exp(np.array(of))).sum())

    expected = np.log1p(np.exp(-3.0)) + backgrounds(2.0, 1.0) + backgrounds(4.0, 3.0)
    assert hardest(logits, label, ratio=2, least=2).item() == pytest.approx(expected, rel=1e-5)


def test_a_picture_without_a_face_still_teaches_the_hardest() -> None:
    logits = torch.zeros(1, 500, requires_grad=True)
    loss = hardest(logits, torch.zeros(1, 500, dtype=torch.int8))
    loss.backward()
    assert loss.item() == pytest.approx(100 * np.log(2), rel=1e-5)
    assert logits.grad is not None
    assert int((logits.grad > 0).sum()) == 100


def test_torch_decodes_boxes_as_the_bundle_does_and_encodes_them_back() -> None:
    laid = anchors(64, 64, LAYOUT)
    deltas = np.random.default_rng(0).normal(0, 3, (len(laid), 4)).astype(np.float32)
    ours = decoded(torch.from_numpy(deltas), torch.from_numpy(laid.copy()), LAYOUT)
    served, _ = decode(deltas, np.zeros((len(laid), 10), np.float32), laid, LAYOUT)
    np.testing.assert_allclose(ours.numpy(), served, rtol=1e-4, atol=1e-3)
    back = encoded(ours, torch.from_numpy(laid.copy()), LAYOUT)
    np.testing.assert_allclose(back.numpy(), deltas, rtol=1e-3, atol=1e-3)
    official, _ = encode(served, np.zeros((len(laid), 5, 2), np.float32), laid, LAYOUT)
    np.testing.assert_allclose(
        encoded(torch.from_numpy(served), torch.from_numpy(laid.copy()), LAYOUT),
        official,
        rtol=1e-4,
        atol=1e-4,
    )


def test_box_losses_have_their_known_values() -> None:
    left, right = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[30.0, 0, 40, 10]])
    half = torch.tensor([[5.0, 0, 15, 10]])  # IoU 1 / 3, hull 15 × 10
    assert distance_ious(left, left).item() == generalised_ious(left, left).item() == 0
    assert generalised_ious(left, right).item() == pytest.approx(1 + 200 / 400)
    assert distance_ious(left, right).item() == pytest.approx(1 + 900 / 1700)
    assert generalised_ious(left, half).item() == pytest.approx(2 / 3)
    assert distance_ious(left, half).item() == pytest.approx(2 / 3 + 25 / 325)


@pytest.mark.parametrize("loss", [distance_ious, generalised_ious])
def test_boxes_apart_are_pulled_together(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    box = torch.tensor([[0.0, 0, 10, 20]])
    away = (box + torch.tensor([100.0, 0, 100, 0])).requires_grad_()
    value = loss(away, box)
    value.sum().backward()
    assert value > 1
    assert away.grad is not None
    assert away.grad[0, 0] > 0
    assert loss(box[:0], box[:0]).sum().item() == 0


def test_smooth_l1_is_of_the_encoded_box() -> None:
    anchor, target = torch.tensor([[20.0, 20, 10, 10]]), torch.tensor([[16.0, 15, 26, 25]])
    # the centre is 1 pixel off: 1 / (10 · 0.1) = 1 of x alone, at the bend of the smooth L1
    error = box_errors("smooth_l1", torch.zeros(1, 4), anchor, target, LAYOUT)
    assert error.item() == pytest.approx(0.5)
    far = box_errors("smooth_l1", torch.tensor([[4.0, 0, 0, 0]]), anchor, target, LAYOUT)
    assert far.item() == pytest.approx(2.5)


def test_faces_without_known_points_do_not_dilute_those_with() -> None:
    offsets = torch.ones(3, 10, requires_grad=True)
    targets = torch.stack([torch.zeros(10), torch.full((10,), torch.nan), torch.zeros(10)])
    loss = landmark_error(offsets, targets)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 0.9)
    assert offsets.grad is not None
    assert offsets.grad[1].abs().sum() == 0
    assert landmark_error(offsets[1:2], targets[1:2]).item() == 0


def test_quality_focal_is_zero_at_the_taught_score_s_entropy_alone() -> None:
    taught = torch.tensor([[0.8, 0.0]])
    assert quality_focal(torch.logit(taught.clamp(1e-7)), taught).item() == pytest.approx(0, abs=1e-6)
    by_hand = 0.3**2 * -(0.8 * np.log(0.5) + 0.2 * np.log(0.5))
    assert quality_focal(torch.zeros(1, 1), taught[:, :1]).item() == pytest.approx(by_hand, rel=1e-5)


def test_a_teacher_s_boxes_count_by_their_scores_and_below_a_tenth_not_at_all() -> None:
    laid = torch.tensor([[20.0, 20, 10, 10], [40.0, 20, 10, 10], [60.0, 20, 10, 10]])
    boxes = decoded(torch.zeros(3, 4), laid, LAYOUT)[None]
    points = laid[None, :, :2].repeat(1, 1, 5)
    answers = Answers(torch.tensor([[0.9, 0.5, 0.05]]), boxes + 5.0, points, [])
    box, landmark = imitated(torch.zeros(1, 3, 4), torch.ones(1, 3, 10), answers, laid, LAYOUT)
    each = distance_ious(boxes[0], boxes[0] + 5.0)[0].item()
    assert box.item() == pytest.approx(1.4 * each, rel=1e-5)
    assert landmark.item() == pytest.approx(1.4 * 0.9, rel=1e-5)


def gradients_are_those_of_finite_differences(loss: Callable[..., Tensor], *inputs: Tensor) -> bool:
    return torch.autograd.gradcheck(
        loss, [of.double().requires_grad_() for of in inputs], eps=1e-6, atol=1e-6
    )


def test_the_scores_gradients_are_right() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 9) * 2, torch.arange(18).remainder(3).sub(1).to(torch.int8).view(2, 9)
    taught = torch.rand(2, 9).double()
    for loss in (
        lambda of: focal(of, label),
        lambda of: hardest(of, label, ratio=1, least=2),
        lambda of: quality_focal(of, taught),
    ):
        assert gradients_are_those_of_finite_differences(loss, logits)


@pytest.mark.parametrize("name", ["diou", "giou", "smooth_l1"])
def test_the_boxes_gradients_are_right(name: str) -> None:
    torch.manual_seed(0)
    laid = torch.from_numpy(anchors(64, 64, LAYOUT)[:40].copy()).double()
    deltas = torch.randn(40, 4) * 0.7
    targets = decoded(torch.randn(40, 4).double() * 0.7, laid, LAYOUT)
    assert gradients_are_those_of_finite_differences(
        lambda of: box_errors(name, of, laid, targets, LAYOUT), deltas
    )


def test_the_points_gradients_are_right() -> None:
    torch.manual_seed(0)
    targets = torch.randn(4, 10).double()
    targets[1] = torch.nan
    assert gradients_are_those_of_finite_differences(
        lambda of: landmark_error(of, targets), torch.randn(4, 10)
    )
