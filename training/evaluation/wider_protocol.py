"""Average precision as WIDER FACE's own evaluation computes it, on whatever pictures of its lists are present.

Kept from the original, odd as it is: scores normalised over the data set, 1,000 thresholds, one pixel added to every
side, a detection compared with all faces including those that the setting ignores. Not kept: its trust in the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from bundle.decode import Detections, Floats

Setting = Literal["easy", "medium", "hard"]
SETTINGS: tuple[Setting, ...] = ("easy", "medium", "hard")
THRESHOLDS = 1000
OFFICIAL_WIDTH = 1024  # pixels


@dataclass(frozen=True, slots=True)
class Truth:
    """Boxes (faces, 4) of one picture as x, y, width, height, and which of them a setting counts."""

    boxes: Floats
    counts: npt.NDArray[np.bool_]  # (faces,)


def protocol(folder: Path, setting: Setting) -> dict[str, Truth]:
    """The official list of a setting by "event/picture" (no suffix), read from `wider_{setting}_val.mat`."""
    lists: Any = loadmat(str(folder / f"wider_{setting}_val.mat"))
    truths = {}
    for event, files, boxes, kept in zip(
        *(lists[key][:, 0] for key in ("event_list", "file_list", "face_bbx_list", "gt_list")), strict=True
    ):
        for file, faces, counted in zip(files[:, 0], boxes[:, 0], kept[:, 0], strict=True):
            counts = np.zeros(len(faces), bool)
            counts[counted.ravel().astype(int) - 1] = True
            truths[f"{event[0]}/{file[0]}"] = Truth(faces.astype(np.float32), counts)
    return truths


def official(found: Detections, width: int) -> Detections:
    """What was found in a picture of `width` pixels, in the pixels of the original, in which the official lists are.

    Every original is 1,024 pixels wide; tall ones (87 of the 394 present) lie in the data reduced to 1,024 of height,
    and unscaled, YuNet's easy AP reads 0.62 instead of 0.94 (measured 2026-11-22).
    """
    ratio = np.float32(OFFICIAL_WIDTH / width)
    boxes, landmarks = (
        (of + np.float32(0.5)) * ratio - np.float32(0.5) for of in (found.boxes, found.landmarks)
    )
    return Detections(boxes, landmarks, found.scores)


def average_precision(truths: Mapping[str, Truth], found: Mapping[str, Detections]) -> float:
    """AP over the pictures of `truths`; one that `found` lacks counts as nothing found in it."""
    total = sum(int(truth.counts.sum()) for truth in truths.values())
    answers = [found[name].scores for name in truths if name in found and len(found[name])]
    if not total or not answers:
        return 0.0
    scores = np.concatenate(answers)
    low, span = float(scores.min()), max(float(scores.max() - scores.min()), 1e-12)
    curve = np.zeros((THRESHOLDS, 2))  # proposals, faces recalled
    for name, truth in truths.items():
        if name in found and len(found[name]) and len(truth.boxes):
            curve += _picture(truth, found[name], low, span)
    precision = np.divide(curve[:, 1], curve[:, 0], out=np.zeros(THRESHOLDS), where=curve[:, 0] > 0)
    return _area(curve[:, 1] / total, precision)


def _picture(truth: Truth, found: Detections, low: float, span: float) -> npt.NDArray[np.float64]:
    """(thresholds, 2): proposals, and faces recalled, among the detections above each threshold."""
    order = np.argsort(-found.scores, kind="stable")
    scores = (found.scores[order].astype(np.float64) - low) / span
    overlap = _overlap(found.boxes[order], truth.boxes)
    best, most = overlap.argmax(1), overlap.max(1)
    proposal, recalled = np.ones(len(order), bool), np.zeros(len(order), bool)
    seen: set[int] = set()
    for index in np.flatnonzero(most >= 0.5):
        face = int(best[index])
        if not truth.counts[face]:
            proposal[index] = False
        elif face not in seen:
            seen.add(face)
            recalled[index] = True
    above = np.searchsorted(-scores, -(1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS), side="right")
    sums = np.stack([np.cumsum(proposal), np.cumsum(recalled)], 1)
    return np.concatenate([np.zeros((1, 2)), sums])[above]


def _overlap(boxes: Floats, truth: Floats) -> Floats:
    """(n, m) IoU of xyxy boxes (pixel centres at integers) with x, y, width, height, by the original's convention."""
    # Its corners are x and x + width, and it takes both as inside: hence the half pixel and the one added.
    low = np.maximum(boxes[:, None, :2] + 0.5, truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:] + 0.5, truth[None, :, :2] + truth[None, :, 2:])
    common = (high - low + 1).clip(0).prod(-1)
    own = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    overlap: Floats = common / (own[:, None] + (truth[:, 2:] + 1).prod(1) - common)
    return overlap


def _area(recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> float:
    """Under the envelope of the curve, as PASCAL VOC integrates it."""
    across = np.concatenate([[0], recall, [1]])
    height = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    return float((np.diff(across) * height[1:]).sum())
