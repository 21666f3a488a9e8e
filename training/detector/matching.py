"""Which anchor learns which face.

An anchor is positive above `positive` IoU, background below `negative`, and silent between. Every face gets its best
free anchor besides, however small the overlap, but never one that another face matched better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.decode import Floats, iou

POSITIVE, NEGATIVE, SILENT = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Matches:
    """`label` [a] int8: POSITIVE, NEGATIVE or SILENT; `face` [a] int64: the index of the face of a positive anchor."""

    label: npt.NDArray[np.int8]
    face: npt.NDArray[np.int64]


def match(
    anchors: Floats, boxes: Floats, ignored: npt.NDArray[np.bool_], positive: float, negative: float
) -> Matches:
    """Anchors (a, 4) cx, cy, w, h against boxes (faces, 4) xyxy, of which `ignored` (faces,) are silent regions."""
    corners = np.concatenate([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)
    label = np.full(len(anchors), NEGATIVE, np.int8)
    face = np.zeros(len(anchors), np.int64)
    faces = np.flatnonzero(~ignored)
    if len(faces):
        overlap = iou(corners, boxes[faces])  # (a, faces)
        best = overlap.argmax(1)
        most = overlap[np.arange(len(best)), best]
        label[most >= negative] = SILENT
        label[most >= positive] = POSITIVE
        for index, anchor in _forced(overlap, np.where(most >= positive, best, -1)):
            best[anchor], label[anchor] = index, POSITIVE
        face = faces[best]
    for region in boxes[ignored]:
        label[(label == NEGATIVE) & _inside(corners, region)] = SILENT
    return Matches(label, face)


def _forced(overlap: Floats, owner: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """(face, anchor) for each face that is nobody's `owner` (a,) yet, the surest faces first; -1 is a free anchor."""
    orphans = np.setdiff1d(np.arange(overlap.shape[1]), owner)
    taken = owner >= 0
    forced = []
    for index in orphans[np.argsort(-overlap[:, orphans].max(0), kind="stable")]:
        free = np.where(taken, -1.0, overlap[:, index])
        anchor = int(free.argmax())
        if free[anchor] > 0:
            taken[anchor] = True
            forced.append((int(index), anchor))
    return forced


def _inside(corners: Floats, region: Floats) -> npt.NDArray[np.bool_]:
    """Anchors of which more than half lies in the region: whatever they see there, nobody knows."""
    left, top, right, bottom = corners.T
    x1, y1, x2, y2 = region
    common = (np.minimum(right, x2) - np.maximum(left, x1)).clip(0) * (
        np.minimum(bottom, y2) - np.maximum(top, y1)
    ).clip(0)
    x, y = (left + right) / 2, (top + bottom) / 2
    holds = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    inside: npt.NDArray[np.bool_] = holds | (common > 0.5 * (right - left) * (bottom - top))
    return inside
