"""What the detector minimises: focal loss over all anchors, distance-IoU and landmark error over the positive ones.

Each is a sum over anchors divided by the number of faces' anchors, never a mean over all anchors: with one positive
in hundreds, a mean makes the classification vanish.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.decode import MAX_LOG_RATIO, AnchorLayout


def focal(logits: Tensor, label: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum over anchors with label 1 (face) or 0 (background); others are silent. Divided by max(1, faces)."""
    positive = (label == 1).float()
    error = torch.where(label == 1, 1 - logits.sigmoid(), logits.sigmoid())
    weight = torch.where(label == 1, alpha, 1 - alpha) * (label >= 0)
    each = weight * error**gamma * F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    return each.sum() / positive.sum().clamp(min=1)


def decoded(deltas: Tensor, anchors: Tensor, layout: AnchorLayout) -> Tensor:
    """`bundle.decode.decode`'s boxes, differentiable: deltas (n, 4), anchors (n, 4) → xyxy (n, 4)."""
    near, far = layout.variances
    middle = anchors[:, :2] + deltas[:, :2] * near * anchors[:, 2:]
    half = anchors[:, 2:] * (deltas[:, 2:] * far).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def distance_iou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Sum over pairs (n, 4) xyxy of 1 − IoU + (distance of the centres / diagonal of the hull)²."""
    common = (
        torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])
    ).clamp(min=0)
    overlap = common.prod(1)
    area, target_area = (boxes[:, 2:] - boxes[:, :2]).prod(1), (targets[:, 2:] - targets[:, :2]).prod(1)
    iou = overlap / (area + target_area - overlap).clamp(min=1e-6)
    hull = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
    apart = ((boxes[:, :2] + boxes[:, 2:]) - (targets[:, :2] + targets[:, 2:])) / 2
    return (1 - iou + apart.square().sum(1) / hull.square().sum(1).clamp(min=1e-6)).sum()


def landmark_error(offsets: Tensor, targets: Tensor) -> Tensor:
    """Mean over faces whose points are known (targets (n, 10), NaN where not) of the smooth L1 of ten offsets."""
    known = targets.isfinite().all(1)
    # Quadratic below a fiftieth of the anchor (offsets are in tenths), so that the last pixel still pulls.
    each = F.smooth_l1_loss(offsets[known], targets[known], beta=0.2, reduction="sum")
    return each / (10 * known.sum().clamp(min=1))
