"""How well a detector finds faces: recall at a rate of false positives, and the WIDER FACE protocol.

An evaluator never trusts the order of what it is given: it sorts by score itself. See `wider_protocol` for AP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.decode import Detections, Floats, iou

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """The truth about one picture: boxes (faces, 4) xyxy, and which of them neither count nor harm.

    Found boxes shorter than `least_height` pixels that match nothing are passed over too, as COCO does with sizes
    out of range: annotators leave small faces out, and a detector is not to be blamed for what does not count.
    """

    boxes: Floats
    ignored: Flags  # (faces,)
    least_height: float = 0.0


@dataclass(frozen=True, slots=True)
class Recall:
    """The share of faces found with the one threshold at which false positives stay within the allowance."""

    recall: float
    threshold: float
    faces: int
    pictures: int


def counted(boxes: Floats, ignored: Flags, scale: float, at_least: float = 40.0) -> Scene:
    """The scene in which only faces of `at_least` pixels of height, once scaled by `scale`, count."""
    least_height = at_least / scale
    return Scene(boxes, ignored | (boxes[:, 3] - boxes[:, 1] < least_height), least_height)


def recall_at_false_positives(
    scenes: Sequence[Scene], found: Sequence[Detections], per_picture: float = 1.0, iou_least: float = 0.5
) -> Recall:
    """One threshold for all pictures: the lowest that leaves at most `per_picture` false positives on average."""
    if len(scenes) != len(found) or not scenes:
        raise ValueError(f"{len(scenes)} scenes, {len(found)} answers")
    verdicts = [judge(scene, of, iou_least) for scene, of in zip(scenes, found, strict=True)]
    scores, hit, miss = (np.concatenate([verdict[i] for verdict in verdicts]) for i in range(3))
    order = np.argsort(-scores, kind="stable")
    scores, hits, misses = scores[order], np.cumsum(hit[order]), np.cumsum(miss[order])
    # Equal scores pass a threshold together: only the last of a tie is a place to cut.
    cut = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    allowed = np.flatnonzero(cut & (misses <= per_picture * len(scenes)))
    faces = int(sum((~scene.ignored).sum() for scene in scenes))
    if not len(allowed) or not faces:
        return Recall(0.0, float("inf"), faces, len(scenes))
    return Recall(float(hits[allowed[-1]] / faces), float(scores[allowed[-1]]), faces, len(scenes))


def judge(scene: Scene, found: Detections, iou_least: float = 0.5) -> tuple[Floats, Flags, Flags]:
    """Scores, and for each whether it is a hit or a false positive; one that shows an ignored face is neither."""
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes[order]
    hit, miss = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    overlap = iou(boxes, scene.boxes)
    free = ~scene.ignored
    excused = (_within(boxes, scene.boxes[scene.ignored]) >= iou_least).any(1)
    excused |= boxes[:, 3] - boxes[:, 1] < scene.least_height
    for index, row in enumerate(overlap):
        candidates = np.where(free, row, 0.0)
        best = int(candidates.argmax()) if len(row) else -1
        if best >= 0 and candidates[best] >= iou_least:
            hit[index], free[best] = True, False
        else:
            miss[index] = not excused[index]
    return found.scores[order], hit, miss


def _within(boxes: Floats, regions: Floats) -> Floats:
    """(n, m): the larger of the IoU and the share of each box that lies in each region."""
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    common = (high - low).clip(0).prod(-1)
    share = common / (boxes[:, 2:] - boxes[:, :2]).clip(1e-6).prod(1)[:, None]
    return np.maximum(iou(boxes, regions), share)
