"""Faces that fill the frame, as a camera at a door sees them: photographs cut around a large face, and what is found
of it by the share of the frame that it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bundle.decode import Detections, Floats, iou
from bundle.preprocess import Letterbox, Picture, Size
from training.data.photographs import Photograph

FRACTIONS = (0.4, 0.6, 0.8, 1.0, 1.2)
FRAME: Size = (640, 480)
TALL = 200.0  # pixels of a photographed face that is still sharp when it fills the frame
COMFORTABLE = 110.0  # pixels of a face at which any detector's five points are at their best
TOLERANCE = 0.15  # of a fraction, where the photograph ends before the frame does


@dataclass(frozen=True, slots=True)
class Framed:
    """A picture that fits FRAME, lying or standing, and the face in it; above a `fraction` of 1 the frame cuts it."""

    pixels: Picture
    box: Floats  # (4,) xyxy
    points: Floats  # (5, 2); NaN where unknown
    fraction: float


@dataclass(frozen=True, slots=True)
class Filling:
    """What is found of the faces that fill one fraction of the frame."""

    fraction: float
    faces: int
    recall: float  # at an IoU of 0.5, within the frame
    error: float  # median distance of a found face's points, in distances of the eyes
    error_p90: float
    parts: int  # boxes that lie in a face without being it, all pictures together


def framed(
    photograph: Picture,
    box: npt.ArrayLike,
    points: npt.ArrayLike,
    fraction: float,
    *,
    standing: bool = False,
    away: tuple[float, float] = (0.0, 0.0),
) -> Framed | None:
    """`photograph` cut so that the face's height or width is `fraction` of the frame's, scaled to fit FRAME.

    away: of the face from the frame's middle, −0.5 to 0.5 of the room beside it. None where the photograph ends too
    soon: a face is never made smaller by black around it.
    """
    corners = np.asarray(box, np.float64)
    extent = corners[2:] - corners[:2]
    size = FRAME[::-1] if standing else FRAME
    across = max(extent[0] / fraction, extent[1] / fraction * size[0] / size[1])
    frame = np.array([across, across * size[1] / size[0]])
    limit = np.array(photograph.shape[1::-1], np.float64)
    middle = (corners[:2] + corners[2:]) / 2 + np.asarray(away) * (frame - extent).clip(0)
    low = np.clip(middle - frame / 2, 0, (limit - frame).clip(0)).round().astype(int)
    high = np.minimum((low + frame).round(), limit).astype(int)
    if abs((extent / (high - low)).max() / fraction - 1) > TOLERANCE:
        return None
    cut = photograph[low[1] : high[1], low[0] : high[0]]
    scale = min(size[0] / cut.shape[1], size[1] / cut.shape[0])
    placed = Letterbox(scale, cut.shape[1], cut.shape[0])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(cut, placed.content, interpolation=how), np.uint8)
    moved = placed.to_canvas(corners - np.tile(low, 2)), placed.to_canvas(np.asarray(points) - low)
    return Framed(pixels, *moved, fraction)


def large_faces(
    photographs: Iterable[Photograph], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> Iterator[Framed]:
    """Every face of at least TALL pixels at each of `fractions` that its photograph allows, lying and standing in turn,
    somewhere near the middle. Points are the photographs' own."""
    random, place = np.random.default_rng(seed), 0
    for photograph in photographs:
        tall = photograph.boxes[:, 3] - photograph.boxes[:, 1] >= TALL
        for face in np.flatnonzero(tall & ~photograph.ignored):
            place += 1
            for fraction in fractions:
                x, y = random.uniform(-0.4, 0.4, 2).tolist()
                box, points = photograph.boxes[face], photograph.landmarks[face]
                pixels, standing = np.asarray(photograph.pixels), bool(place % 2)
                one = framed(pixels, box, points, fraction, standing=standing, away=(x, y))
                if one is not None:
                    yield one


def by_fraction(frames: Sequence[Framed], found: Sequence[Detections]) -> list[Filling]:
    """found: of each frame, in its pixels, from the score on that counts."""
    judged = [(frame.fraction, *_judged(frame, of)) for frame, of in zip(frames, found, strict=True)]
    rows = []
    for fraction in sorted({frame.fraction for frame in frames}):
        mine = [(hit, error, parts) for its, hit, error, parts in judged if its == fraction]
        errors = [error for _, error, _ in mine if np.isfinite(error)] or [np.nan]
        rows.append(
            Filling(
                fraction,
                len(mine),
                float(np.mean([hit for hit, _, _ in mine])),
                float(np.median(errors)),
                float(np.quantile(errors, 0.9)),
                sum(parts for _, _, parts in mine),
            )
        )
    return rows


def _judged(frame: Framed, found: Detections) -> tuple[bool, float, int]:
    """Whether the face is found, its points' error (NaN if not, or unknown), and the boxes that are a part of it."""
    height, width = frame.pixels.shape[:2]
    edges = np.array([width, height, width, height])
    box, boxes = frame.box.clip(0, edges), found.boxes.clip(0, edges)
    overlap = iou(box[None], boxes)[0]
    inside = (np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])).clip(0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    # Anything much smaller is somebody behind, or a picture on a shirt.
    part = (overlap < 0.5) & (inside > 0.5 * area) & (area > 0.02 * width * height)
    if not (overlap >= 0.5).any():
        return False, float("nan"), int(part.sum())
    # Of a profile the eyes coincide: a quarter of the face's size is the least that is measured with.
    least = 0.25 * float((frame.box[2:] - frame.box[:2]).prod()) ** 0.5
    eyes = max(float(np.linalg.norm(frame.points[1] - frame.points[0])), least)
    apart = np.linalg.norm(found.landmarks[int(overlap.argmax())] - frame.points, axis=-1)
    return True, float(apart.mean()) / eyes, int(part.sum())
