"""How large a picture is when a detector looks at it: an accuracy without its scale says nothing.

The same weights find 64 % of WIDER's hard faces within 640 × 480 pixels and 84 % in pictures of their own size, so the
scale is part of every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bundle.decode import Detections, nms
from bundle.preprocess import Picture, Size, enclosing, letterbox

# What a canvas's sides are multiples of, pixels; whoever has coarser strides sees more black beside the picture.
MULTIPLE = 32
NMS_IOU = 0.4

Find = Callable[[Picture], Detections]  # on a canvas, in its pixels


@dataclass(frozen=True, slots=True)
class Scale:
    """Either a canvas into which pictures are fitted, never enlarged, or factors of their own size, answers merged."""

    name: str  # the tag of every figure
    canvas: Size | None = None
    factors: tuple[float, ...] = (1.0,)

    def ratio(self, width: int, height: int) -> float:
        """Pixels that the detector sees per pixel of a picture of `width` × `height`; of several factors 1."""
        if self.canvas is None:
            return 1.0
        return min(self.canvas[0] / width, self.canvas[1] / height, 1.0)

    def views(self, width: int, height: int) -> list[tuple[Size, float]]:
        """The canvases on which such a picture is looked at, and its scale on each."""
        if self.canvas is not None:
            return [(enclosing(self.canvas, MULTIPLE), self.ratio(width, height))]
        return [(enclosing((round(width * of), round(height * of)), MULTIPLE), of) for of in self.factors]


CANVAS: Size = (640, 480)
VGA = Scale("VGA", canvas=CANVAS)
ORIGINAL = Scale("original size")
MULTI = Scale("multi-scale", factors=(0.5, 1.0, 2.0))
PUBLISHED = (VGA, ORIGINAL)  # what publishing measures; all three take several times as long
EVERY = (VGA, ORIGINAL, MULTI)


def seen(find: Find, picture: Picture, scale: Scale) -> Detections:
    """Faces of an RGB picture (h, w, 3) in its own pixels; the answers of several views merged by NMS."""
    return seen_at(find, picture, (scale,))[0]


def seen_at(find: Find, picture: Picture, scales: Sequence[Scale]) -> list[Detections]:
    """As `seen` at each of the scales; a view that two of them share is looked at once."""
    height, width = picture.shape[:2]
    views = [of.views(width, height) for of in scales]
    looks = {view: _look(find, picture, *view) for view in dict.fromkeys(chain(*views))}
    return [_merged([looks[view] for view in of]) for of in views]


def _merged(looks: Sequence[Detections]) -> Detections:
    if len(looks) == 1:
        return looks[0]
    boxes, landmarks, scores = (
        np.concatenate([getattr(of, part) for of in looks]) for part in ("boxes", "landmarks", "scores")
    )
    kept = nms(boxes, scores, NMS_IOU)
    return Detections(boxes[kept], landmarks[kept], scores[kept])


def _look(find: Find, picture: Picture, size: Size, ratio: float) -> Detections:
    canvas, placed = letterbox(picture, size, max_upscale=ratio)
    on = find(canvas)
    return Detections(placed.to_picture(on.boxes), placed.to_picture(on.landmarks), on.scores)
