"""How well a detector finds faces: who is found, what is false, and what follows for every threshold.

An evaluator never trusts the order of what it is given: it sorts by score itself. WIDER FACE's own rules are another
matter, see `wider_protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.decode import Detections, Floats, inside, iou

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """The truth about one picture: boxes (faces, 4) xyxy, and which of them neither count nor harm.

    Found boxes shorter than `least_height` pixels, or taller than `most_height`, that match nothing are passed over
    too, as COCO does with sizes out of range: annotators leave small faces out, and a detector is not to be blamed for
    what does not count.
    """

    boxes: Floats
    ignored: Flags  # (faces,)
    least_height: float = 0.0
    most_height: float = float("inf")


@dataclass(frozen=True, slots=True)
class Recall:
    """The share of faces found with the one threshold at which false positives stay within the allowance."""

    recall: float
    threshold: float
    faces: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Every place where a threshold can cut: hits and false positives at or above it, all pictures together."""

    scores: npt.NDArray[np.float64]  # (cuts,) falling, all different: equal scores pass a threshold together
    hits: npt.NDArray[np.int64]  # (cuts,)
    misses: npt.NDArray[np.int64]  # (cuts,)
    faces: int
    pictures: int

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        return self.hits / max(1, self.faces)

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        return self.hits / np.maximum(self.hits + self.misses, 1)

    @property
    def average_precision(self) -> float:
        """The area under the envelope of precision over recall; NaN where there is no face."""
        return area(self.recall, self.precision) if self.faces else float("nan")

    def recall_from(self, threshold: float) -> float:
        """The share of faces found with that threshold; NaN where there is no face."""
        passed = int((self.scores >= threshold).sum())
        if not self.faces:
            return float("nan")
        return float(self.hits[passed - 1] / self.faces) if passed else 0.0

    def at_false_positives(self, per_picture: float) -> Recall:
        """With the lowest threshold that leaves at most `per_picture` false positives on average."""
        allowed = np.flatnonzero(self.misses <= per_picture * self.pictures)
        if not len(allowed) or not self.faces:
            return Recall(0.0, float("inf"), self.faces, self.pictures)
        last = allowed[-1]
        return Recall(
            float(self.hits[last] / self.faces), float(self.scores[last]), self.faces, self.pictures
        )


def counted(
    boxes: Floats, ignored: Flags, scale: float, at_least: float = 40.0, below: float = float("inf")
) -> Scene:
    """The scene in which only faces of `at_least` to `below` pixels of height, once scaled by `scale`, count."""
    least, most = at_least / scale, below / scale
    height = boxes[:, 3] - boxes[:, 1]
    return Scene(boxes, ignored | (height < least) | (height >= most), least, most)


def curve(scenes: Sequence[Scene], found: Sequence[Detections], iou_least: float = 0.5) -> Curve:
    """What each threshold would let through. Raises ValueError where answers and scenes do not pair up."""
    if len(scenes) != len(found) or not scenes:
        raise ValueError(f"{len(scenes)} scenes, {len(found)} answers")
    verdicts = [judge(scene, of, iou_least) for scene, of in zip(scenes, found, strict=True)]
    scores, hit, miss = (np.concatenate([verdict[i] for verdict in verdicts]) for i in range(3))
    order = np.argsort(-scores, kind="stable")
    scores, hits, misses = scores[order], np.cumsum(hit[order]), np.cumsum(miss[order])
    cut = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    faces = int(sum((~scene.ignored).sum() for scene in scenes))
    return Curve(scores[cut].astype(np.float64), hits[cut], misses[cut], faces, len(scenes))


def recall_at_false_positives(
    scenes: Sequence[Scene], found: Sequence[Detections], per_picture: float = 1.0, iou_least: float = 0.5
) -> Recall:
    """One threshold for all pictures: the lowest that leaves at most `per_picture` false positives on average."""
    return curve(scenes, found, iou_least).at_false_positives(per_picture)


def judge(scene: Scene, found: Detections, iou_least: float = 0.5) -> tuple[Floats, Flags, Flags]:
    """Scores, and for each whether it is a hit or a false positive; one that shows an ignored face is neither."""
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes[order]
    hit = np.zeros(len(boxes), bool)
    overlap = np.where(scene.ignored, 0.0, iou(boxes, scene.boxes))
    for index in np.flatnonzero((overlap >= iou_least).any(1)):
        best = int(overlap[index].argmax())
        if overlap[index, best] >= iou_least:
            hit[index] = True
            overlap[:, best] = 0.0  # a face is found once; a second find is false
    height = boxes[:, 3] - boxes[:, 1]
    ignored = scene.boxes[scene.ignored]
    excused = (np.maximum(iou(boxes, ignored), inside(boxes, ignored)) >= iou_least).any(1)
    excused |= (height < scene.least_height) | (height >= scene.most_height)
    return found.scores[order], hit, ~hit & ~excused


def area(recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> float:
    """Under the envelope of the curve, as PASCAL VOC integrates it since 2010; recall rises."""
    across = np.concatenate([[0], recall, [1]])
    height = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    return float((np.diff(across) * height[1:]).sum())
