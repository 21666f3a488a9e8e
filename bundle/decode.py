"""What the detector's numbers mean: anchors, their encoding, and the way back to faces.

Training encodes with the same functions the service decodes with. The order of anchors (stride, row, column, size)
is part of the exported graph: never reorder it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = npt.NDArray[np.float32]

# A side never grows or shrinks by more than this power of e (1,100) against its anchor: exp() of a wild delta stays
# finite, and a face of one pixel can still be told of the largest anchor.
MAX_LOG_RATIO = 7.0


class AnchorLayout(BaseModel):
    """Where the anchors stand. Sizes are √(width · height) in pixels, `aspect` is width over height.

    Defaults: the median face of the WIDER training pictures is 0.79 wide per tall; six sizes in steps of 1.9 from 16
    to 400 pixels cover faces from 12 pixels to the full height of a 640 × 480 canvas with IoU ≥ 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strides: tuple[int, ...] = (8, 16, 32)
    sizes: tuple[tuple[float, ...], ...] = ((16, 30), (58, 110), (210, 400))
    aspect: float = Field(default=0.8, gt=0)
    variances: tuple[float, float] = (0.1, 0.2)  # of positions (centre, landmarks) and of log sizes

    @model_validator(mode="after")
    def _consistent(self) -> AnchorLayout:
        if len(self.strides) != len(self.sizes) or not self.strides:
            raise ValueError("strides and sizes must have the same, positive length")
        if min(self.strides) < 1 or min(self.variances) <= 0:
            raise ValueError("strides and variances must be positive")
        if any(not of or min(of) <= 0 for of in self.sizes):
            raise ValueError("every stride needs at least one positive size")
        return self


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces of one canvas, best first."""

    boxes: Floats  # (faces, 4) xyxy, pixels
    landmarks: Floats  # (faces, 5, 2) pixels: eyes, nose, mouth corners; the picture's left first
    scores: Floats  # (faces,) 0–1

    def __len__(self) -> int:
        return len(self.scores)


@lru_cache(maxsize=16)
def anchors(width: int, height: int, layout: AnchorLayout) -> Floats:
    """(anchors, 4) as cx, cy, w, h in pixels of a `width` × `height` canvas; read-only, computed once a shape."""
    coarsest = max(layout.strides)
    if width < 1 or height < 1 or width % coarsest or height % coarsest:
        raise ValueError(f"canvas {width} × {height} is not a positive multiple of {coarsest}")
    levels = [
        _level(width, height, *of, layout.aspect) for of in zip(layout.strides, layout.sizes, strict=True)
    ]
    laid = np.concatenate(levels)
    laid.flags.writeable = False
    return laid


def _level(width: int, height: int, stride: int, sizes: tuple[float, ...], aspect: float) -> Floats:
    # The middle of cell i covers pixels i·stride … i·stride + stride − 1, whose centre is half a pixel less.
    ys, xs = np.mgrid[0 : height // stride, 0 : width // stride] * float(stride) + (stride - 1) / 2
    centres = np.stack([xs, ys], -1)[:, :, None, :].repeat(len(sizes), 2)
    shape = np.array([[size * aspect**0.5, size / aspect**0.5] for size in sizes])
    return (
        np.concatenate([centres, np.broadcast_to(shape, centres.shape)], -1).reshape(-1, 4).astype(np.float32)
    )


def encode(
    boxes: npt.NDArray[Any], landmarks: npt.NDArray[Any], anchors: Floats, layout: AnchorLayout
) -> tuple[Floats, Floats]:
    """Faces relative to their anchors: boxes (n, 4) xyxy, landmarks (n, 5, 2), anchors (n, 4) → (n, 4), (n, 10)."""
    near, far = layout.variances
    centre, shape = anchors[:, :2], anchors[:, 2:]
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    if len(extent) and extent.min() <= 0:
        raise ValueError("a box without width or height cannot be encoded")
    deltas = np.concatenate([(middle - centre) / (shape * near), np.log(extent / shape) / far], 1)
    offsets = (landmarks - centre[:, None]) / (shape[:, None] * near)
    return deltas.astype(np.float32), offsets.reshape(len(boxes), 10).astype(np.float32)


def decode(
    deltas: npt.NDArray[Any], offsets: npt.NDArray[Any], anchors: Floats, layout: AnchorLayout
) -> tuple[Floats, Floats]:
    """The inverse of `encode`: boxes (n, 4) xyxy and landmarks (n, 5, 2) in pixels."""
    near, far = layout.variances
    centre, shape = anchors[:, :2], anchors[:, 2:]
    middle = centre + deltas[:, :2] * near * shape
    half = shape * np.exp(np.clip(deltas[:, 2:] * far, -MAX_LOG_RATIO, MAX_LOG_RATIO)) / 2
    landmarks = centre[:, None] + offsets.reshape(-1, 5, 2) * near * shape[:, None]
    return np.concatenate([middle - half, middle + half], 1).astype(np.float32), landmarks.astype(np.float32)


def iou(boxes: npt.NDArray[Any], others: npt.NDArray[Any]) -> Floats:
    """Intersection over union of every pair: (n, 4) and (m, 4) xyxy → (n, m); empty boxes overlap nothing."""
    common = _common(boxes, others)
    return _share(common, _area(boxes)[:, None] + _area(others) - common)


def inside(boxes: npt.NDArray[Any], others: npt.NDArray[Any]) -> Floats:
    """Share of each box that lies in each other: (n, 4) and (m, 4) xyxy → (n, m), 0–1; an empty box lies in none."""
    common = _common(boxes, others)
    return _share(common, np.broadcast_to(_area(boxes)[:, None], common.shape))


def _common(boxes: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # By columns: a reduction over a last axis of two costs three times as much.
    across = np.minimum(boxes[:, None, 2], others[:, 2]) - np.maximum(boxes[:, None, 0], others[:, 0])
    down = np.minimum(boxes[:, None, 3], others[:, 3]) - np.maximum(boxes[:, None, 1], others[:, 1])
    area: npt.NDArray[Any] = across.clip(0) * down.clip(0)
    return area


def _area(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    area: npt.NDArray[Any] = (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
    return area


def _share(common: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    share: Floats = np.divide(common, whole, out=np.zeros(common.shape, np.float32), where=whole > 0)
    return share


def nms(boxes: npt.NDArray[Any], scores: npt.NDArray[Any], iou_above: float) -> npt.NDArray[np.intp]:
    """Indices of boxes (n, 4) xyxy to keep, best score first: none overlaps a better one by more than `iou_above`."""
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        waiting = waiting[iou(boxes[best : best + 1], boxes[waiting])[0] <= iou_above]
    return np.array(kept, np.intp)


def detections(
    scores: Floats,
    deltas: Floats,
    offsets: Floats,
    width: int,
    height: int,
    layout: AnchorLayout,
    min_score: float,
    nms_iou: float,
    top_k: int,
) -> Detections:
    """Faces of one canvas from the detector's outputs (a,), (a, 4), (a, 10); coordinates are canvas pixels.

    The best `top_k` anchors alone are decoded and suppressed: a crowd of low scores cannot make a picture slow.
    """
    laid = anchors(width, height, layout)
    if scores.shape != (len(laid),) or deltas.shape != (len(laid), 4) or offsets.shape != (len(laid), 10):
        got = f"{scores.shape}, {deltas.shape}, {offsets.shape}"
        raise ValueError(
            f"a {width} × {height} canvas has {len(laid)} anchors; the outputs have shapes {got}"
        )
    chosen = np.flatnonzero(scores >= min_score)
    if len(chosen) > top_k:
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")[:top_k]]
    boxes, landmarks = decode(deltas[chosen], offsets[chosen], laid[chosen], layout)
    kept = nms(boxes, scores[chosen], nms_iou)
    return Detections(boxes[kept], landmarks[kept], scores[chosen][kept])
