from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.decode import AnchorLayout, anchors, decode
from training.detector.losses import decoded, distance_iou, focal, landmark_error

LAYOUT = AnchorLayout()


def test_focal_equals_its_formula_by_hand() -> None:
    logits, label = torch.tensor([[0.0, 2.0, -1.0]]), torch.tensor([[1, 0, -1]], dtype=torch.int8)
    wrong = 1 / (1 + np.exp(-2.0))
    expected = 0.25 * 0.5**2 * -np.log(0.5) + 0.75 * wrong**2 * -np.log(1 - wrong)
    assert focal(logits, label).item() == pytest.approx(expected, rel=1e-5)


def test_focal_is_divided_by_faces_and_never_by_anchors() -> None:
    few, many = torch.zeros(1, 10), torch.zeros(1, 1000)
    label = [torch.zeros(1, n, dtype=torch.int8) for n in (10, 1000)]
    assert focal(many, label[1]).item() == pytest.approx(100 * focal(few, label[0]).item(), rel=1e-4)
    label[1][0, :4] = 1
    alone = torch.full((1, 1000), -1, dtype=torch.int8)
    alone[0, :4] = 1
    assert focal(many, alone).item() == pytest.approx(0.25 * 0.25 * np.log(2), rel=1e-4)


def test_silent_anchors_have_no_gradient() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    focal(logits, torch.tensor([[1, 0, -1]], dtype=torch.int8)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 2] == 0
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_a_confident_mistake_keeps_a_finite_loss() -> None:
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = focal(logits, torch.tensor([[0, 1]], dtype=torch.int8))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_torch_decodes_boxes_as_the_bundle_does() -> None:
    laid = anchors(64, 64, LAYOUT)
    deltas = np.random.default_rng(0).normal(0, 3, (len(laid), 4)).astype(np.float32)
    ours = decoded(torch.from_numpy(deltas), torch.from_numpy(laid.copy()), LAYOUT).numpy()
    served, _ = decode(deltas, np.zeros((len(laid), 10), np.float32), laid, LAYOUT)
    np.testing.assert_allclose(ours, served, rtol=1e-4, atol=1e-3)


def test_distance_iou_is_zero_where_boxes_agree_and_pulls_apart_ones_together() -> None:
    box = torch.tensor([[0.0, 0, 10, 20]])
    assert distance_iou(box, box).item() == pytest.approx(0, abs=1e-6)
    away = (box + torch.tensor([100.0, 0, 100, 0])).requires_grad_()
    loss = distance_iou(away, box)
    loss.backward()
    assert loss > 1
    assert away.grad is not None
    assert away.grad[0, 0] > 0
    assert distance_iou(box[:0], box[:0]).item() == 0


def test_faces_without_known_points_do_not_dilute_those_with() -> None:
    offsets = torch.ones(3, 10, requires_grad=True)
    targets = torch.stack([torch.zeros(10), torch.full((10,), torch.nan), torch.zeros(10)])
    loss = landmark_error(offsets, targets)
    loss.backward()
    assert loss.item() == pytest.approx(0.9)
    assert offsets.grad is not None
    assert offsets.grad[1].abs().sum() == 0
    assert landmark_error(offsets[1:2], targets[1:2]).item() == 0
