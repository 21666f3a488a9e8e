"""A canvas is seen twice: as it is, and as a small copy in which a face that fills it has a comfortable size.

Both training's evaluation and the service see through here. A detector learns from crops and is weak near the end of
its anchors: of faces as high as the canvas it finds a quarter, in the small copy nine in ten. Each view answers for
the sizes that it sees better, and both do around the border, so that no face falls between them. What is found above
a score depends on nothing below that score. Measured in docs/decisions/0009-near-faces.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.decode import AnchorLayout, Detections, Floats, detections, inside, iou
from bundle.manifest import DetectorSpec
from bundle.preprocess import Letterbox, Picture, Size, letterbox

# Both views answer for faces up to this many times above and below the border: at 1.2 two of seventeen faces of 40 %
# of the frame were lost, each view thinking that it was the other's.
OVERLAP = 2**0.5

# A find that lies in a surer one of the small copy by this share is a piece of it: such pieces lie in it by 0.98 and
# more, other faces that are seen across a near one by 0.86 at most (decision 9).
PIECE = 0.9

VIEWS = 2  # of a canvas at most


@dataclass(frozen=True, slots=True)
class View:
    """What the detector is given, uint8 (h, w, 3), and how the canvas lies on it."""

    pixels: Picture
    placed: Letterbox


def views(canvas: Picture, spec: DetectorSpec) -> tuple[View, ...]:
    """`canvas` itself and, unless the spec's `near_scale` is 0, its small copy."""
    height, width = canvas.shape[:2]
    itself = View(canvas, Letterbox(1.0, width, height))
    if not spec.near_scale:
        return (itself,)
    return itself, View(*letterbox(canvas, _near((width, height), spec)))


def shapes(spec: DetectorSpec) -> tuple[Size, ...]:
    """Width and height of every view of the spec's canvases: what the detector is run on."""
    near = (_near(canvas, spec) for canvas in spec.canvases) if spec.near_scale else ()
    return tuple(dict.fromkeys((*spec.canvases, *near)))


def faces_in(
    seen: Sequence[View], outputs: Sequence[Sequence[Floats]], spec: DetectorSpec, min_score: float
) -> Detections:
    """Faces in pixels of the canvas, best first.

    seen: of `views`; outputs: for each view the detector's scores (a,), box (a, 4) and landmark deltas (a, 10).
    """
    found = [_found(view, of, spec, min_score) for view, of in zip(seen, outputs, strict=True)]
    if len(found) == 1:
        return found[0]
    itself, near = found
    border = _comfortable(spec.anchors) / seen[1].placed.scale ** 0.5
    itself = _chosen(itself, np.flatnonzero(_sizes(itself) <= border * OVERLAP))
    near = _chosen(near, np.flatnonzero(_sizes(near) >= border / OVERLAP))
    # Each is free of duplicates: of a face that both report, the less sure one goes.
    same = iou(itself.boxes, near.boxes) > spec.nms_iou
    surer = itself.scores[:, None] >= near.scores
    itself = _chosen(itself, np.flatnonzero(~(same & ~surer).any(1)))
    near = _chosen(near, np.flatnonzero(~(same & surer).any(0)))
    both = Detections(
        np.concatenate([itself.boxes, near.boxes]),
        np.concatenate([itself.landmarks, near.landmarks]),
        np.concatenate([itself.scores, near.scores]),
    )
    pieces = (inside(both.boxes, near.boxes) >= PIECE) & (near.scores > both.scores[:, None])
    best = np.argsort(-both.scores, kind="stable")
    return _chosen(both, best[~pieces[best].any(1)])


def _found(view: View, outputs: Sequence[Floats], spec: DetectorSpec, min_score: float) -> Detections:
    """Of one view alone, in pixels of the canvas."""
    scores, deltas, offsets = outputs
    height, width = view.pixels.shape[:2]
    on = detections(scores, deltas, offsets, width, height, spec.anchors, min_score, spec.nms_iou, spec.top_k)
    if view.placed.content == (view.placed.width, view.placed.height):
        return on
    return Detections(view.placed.to_picture(on.boxes), view.placed.to_picture(on.landmarks), on.scores)


def _near(size: Size, spec: DetectorSpec) -> Size:
    """Of the small copy: as wide and high as the scale says, rounded up to what the strides divide."""
    coarsest = max(spec.anchors.strides)
    width, height = (-int(-side * spec.near_scale // coarsest) * coarsest for side in size)
    return width, height


def _comfortable(layout: AnchorLayout) -> float:
    """√(width · height), pixels, of the face that is as far from the smallest anchors as from the largest: what is
    equally far above it in one view and below it in the other is on the border."""
    return float(np.exp(np.mean([np.log(size) for of in layout.sizes for size in of])))


def _sizes(found: Detections) -> Floats:
    """(faces,) √(width · height)."""
    width, height = (found.boxes[:, 2:] - found.boxes[:, :2]).clip(0).T
    sizes: Floats = np.sqrt(width * height)
    return sizes


def _chosen(found: Detections, which: npt.NDArray[np.intp]) -> Detections:
    return Detections(found.boxes[which], found.landmarks[which], found.scores[which])
