"""How far a detector's five points lie from those of a reference, in distances between the eyes.

Nobody annotated points of the evaluation's pictures. The reference is another detector, taken where its box agrees
with the official one; so what is measured is agreement, its errors included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.decode import Detections, Floats, iou
from training.evaluation.finding import Truth
from training.evaluation.scales import VGA, Scale

AGREEMENT_IOU = 0.5
# Of a profile the eyes coincide: this share of √(width · height) of the face is the least that is measured with.
EYES_LEAST = 0.25


@dataclass(frozen=True)
class LandmarkError:
    """Of the faces that both found: the mean distance of the five points over the distance of the reference's eyes.

    faces: compared; of: those that the reference has points for; median, p90: NaN where none is compared.
    """

    scale: str
    against: str
    faces: int
    of: int
    median: float
    p90: float


def landmark_error(
    truth: Sequence[Truth],
    found: Sequence[Detections],
    reference: Sequence[Detections],
    against: str,
    threshold: float,
    scale: Scale = VGA,
) -> LandmarkError:
    """Of the claim's faces, found with at least `threshold`. found, reference: of each picture of `truth`."""
    errors: list[npt.NDArray[np.float64]] = []
    known = 0
    for of, ours, theirs in zip(truth, found, reference, strict=True):
        counts = ~of.scene(scale=scale).ignored
        confirmed, shown = matched(of.boxes, theirs), matched(of.boxes, ours, threshold)
        both = np.flatnonzero(counts & (confirmed >= 0) & (shown >= 0))
        known += int((counts & (confirmed >= 0)).sum())
        shown, confirmed = shown[both], confirmed[both]
        errors.append(normalised(ours.landmarks[shown], theirs.landmarks[confirmed], theirs.boxes[confirmed]))
    every = np.concatenate(errors) if errors else np.zeros(0)
    median, p90 = np.quantile(every, [0.5, 0.9]) if len(every) else (float("nan"),) * 2
    return LandmarkError(scale.name, against, len(every), known, float(median), float(p90))


def normalised(points: Floats, reference: Floats, boxes: Floats) -> npt.NDArray[np.float64]:
    """(n, 5, 2) each, eyes first, and the reference's boxes (n, 4) → (n,): the mean of the five distances over the
    distance of the reference's eyes."""
    apart = np.linalg.norm(points.astype(np.float64) - reference, axis=2).mean(1)
    eyes = np.linalg.norm(reference[:, 1].astype(np.float64) - reference[:, 0], axis=1)
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(1e-6).prod(1))
    return np.asarray(apart / np.maximum(eyes, EYES_LEAST * sizes))


def matched(boxes: Floats, found: Detections, threshold: float = 0.0) -> npt.NDArray[np.intp]:
    """(faces,) which find shows each box, −1 where none does: each is the other's best, with IoU ≥ AGREEMENT_IOU."""
    which = np.full(len(boxes), -1, np.intp)
    if len(boxes) and len(found):
        overlap = np.where(found.scores >= threshold, iou(boxes, found.boxes), 0.0)
        best = overlap.argmax(1)
        mutual = overlap.argmax(0)[best] == np.arange(len(best))
        sure = mutual & (overlap.max(1) >= AGREEMENT_IOU)
        which[sure] = best[sure]
    return which
