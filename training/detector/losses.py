"""What the detector minimises, as sums over anchors: scores over all of them, boxes and landmarks over the faces'.

A sum is divided by the number of the faces' anchors (see objective.py), never by that of all anchors: with one face in
hundreds, a mean makes the classification vanish.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.decode import MAX_LOG_RATIO, AnchorLayout
from training.detector.teacher import Answers

BoxLoss = Literal["diou", "giou", "smooth_l1"]
SURELY = 0.1  # the score from which a dense teacher's box is a target
EPSILON = 1e-6  # pixels²


def focal(logits: Tensor, label: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The sum over anchors with label 1 (face) or 0 (background), others are silent, of the cross-entropy weighed by
    the error to the power of `gamma` (Lin et al. 2017, arXiv 1708.02002)."""
    positive = (label == 1).to(logits.dtype)
    error = torch.where(label == 1, 1 - logits.sigmoid(), logits.sigmoid())
    weight = torch.where(label == 1, alpha, 1 - alpha) * (label >= 0)
    each = weight * error**gamma * F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    return each.sum()


def hardest(logits: Tensor, label: Tensor, ratio: int = 7, least: int = 100) -> Tensor:
    """The sum of the cross-entropy over a picture's faces' anchors and its `ratio` times as many worst backgrounds
    (Shrivastava et al. 2016, arXiv 1604.03540), at least `least`: a picture without a face teaches too.

    logits, label: [n, a]; 1 face, 0 background, others are silent.
    """
    each = F.binary_cross_entropy_with_logits(logits, (label == 1).to(logits.dtype), reduction="none")
    background = label == 0
    wrongness = each.detach().masked_fill(~background, -torch.inf)
    place = wrongness.argsort(dim=1, descending=True, stable=True).argsort(1)
    wanted = (ratio * (label == 1).sum(1, keepdim=True)).clamp(min=least)
    return each[(label == 1) | (background & (place < wanted))].sum()


def decoded(deltas: Tensor, anchors: Tensor, layout: AnchorLayout) -> Tensor:
    """`bundle.decode.decode`'s boxes, differentiable: deltas (n, 4), anchors (n, 4) → xyxy (n, 4)."""
    near, far = layout.variances
    middle = anchors[:, :2] + deltas[:, :2] * near * anchors[:, 2:]
    half = anchors[:, 2:] * (deltas[:, 2:] * far).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def encoded(boxes: Tensor, anchors: Tensor, layout: AnchorLayout) -> Tensor:
    """`bundle.decode.encode`'s deltas: boxes (n, 4) xyxy, anchors (n, 4) → (n, 4)."""
    near, far = layout.variances
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return torch.cat(
        [(middle - anchors[:, :2]) / (anchors[:, 2:] * near), (extent / anchors[:, 2:]).log() / far], 1
    )


def box_errors(
    name: BoxLoss, deltas: Tensor, anchors: Tensor, targets: Tensor, layout: AnchorLayout
) -> Tensor:
    """For each face's anchor the error [n] of its box: deltas, anchors, targets (xyxy) all (n, 4)."""
    if name == "smooth_l1":
        return F.smooth_l1_loss(deltas, encoded(targets, anchors, layout), reduction="none").sum(1)
    boxes = decoded(deltas, anchors, layout)
    return distance_ious(boxes, targets) if name == "diou" else generalised_ious(boxes, targets)


def distance_ious(boxes: Tensor, targets: Tensor) -> Tensor:
    """For each pair (n, 4) xyxy: 1 − IoU + (distance of the centres / diagonal of the hull)² (Zheng et al. 2020, arXiv
    1911.08287)."""
    iou, _ = _ious(boxes, targets)
    hull = _hull(boxes, targets)
    apart = ((boxes[:, :2] + boxes[:, 2:]) - (targets[:, :2] + targets[:, 2:])) / 2
    return 1 - iou + apart.square().sum(1) / hull.square().sum(1).clamp(min=EPSILON)


def generalised_ious(boxes: Tensor, targets: Tensor) -> Tensor:
    """For each pair (n, 4) xyxy: 1 − IoU + the empty share of the hull (Rezatofighi et al. 2019, arXiv 1902.09630)."""
    iou, union = _ious(boxes, targets)
    hull = _hull(boxes, targets).prod(1)
    return 1 - iou + (hull - union) / hull.clamp(min=EPSILON)


def _ious(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(intersection over union, union) of each pair."""
    common = (
        torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])
    ).clamp(min=0)
    overlap = common.prod(1)
    area, target_area = (boxes[:, 2:] - boxes[:, :2]).prod(1), (targets[:, 2:] - targets[:, :2]).prod(1)
    union = area + target_area - overlap
    return overlap / union.clamp(min=EPSILON), union


def _hull(boxes: Tensor, targets: Tensor) -> Tensor:
    """Width and height (n, 2) of the smallest box around each pair."""
    return torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])


def landmark_error(offsets: Tensor, targets: Tensor) -> Tensor:
    """The sum over faces whose points are known (targets (n, 10), NaN where not) of the offsets' mean smooth L1."""
    known = targets.isfinite().all(1)
    # Quadratic below a fiftieth of the anchor (offsets are in tenths), so that the last pixel still pulls.
    return F.smooth_l1_loss(offsets[known], targets[known], beta=0.2, reduction="sum") / 10


def quality_focal(logits: Tensor, taught: Tensor, beta: float = 2.0) -> Tensor:
    """The sum of the cross-entropy against soft scores (n, a) in 0–1, weighed by |score − taught|^β (Li et al. 2020,
    arXiv 2006.04388)."""
    each = F.binary_cross_entropy_with_logits(logits, taught, reduction="none")
    return ((logits.sigmoid() - taught).abs() ** beta * each).sum()


def imitated(
    deltas: Tensor, offsets: Tensor, answers: Answers, anchors: Tensor, layout: AnchorLayout
) -> tuple[Tensor, Tensor]:
    """The sums of (distance-IoU, smooth L1 of the landmark offsets) against a dense teacher's boxes and points, weighed
    by its scores where they reach SURELY. deltas (n, a, 4), offsets (n, a, 10), anchors (a, 4)."""
    chosen = answers.scores >= SURELY
    weight = answers.scores[chosen]
    places = anchors.expand(len(deltas), -1, -1)[chosen]
    boxes = decoded(deltas[chosen], places, layout)
    # The same units as `bundle.decode.encode`'s.
    centre, extent = places[:, None, :2], places[:, None, 2:] * layout.variances[0]
    points = ((answers.points[chosen].view(-1, 5, 2) - centre) / extent).flatten(1)
    apart = F.smooth_l1_loss(offsets[chosen], points, beta=0.2, reduction="none").mean(1)
    return (weight * distance_ious(boxes, answers.boxes[chosen])).sum(), (weight * apart).sum()
