"""Which anchor learns which face.

By IoU an anchor is positive above `positive`, background below `negative`, and silent between; by ATSS each face
draws the line by the statistics of the anchors around it. Either way every face gets its best free anchor besides,
however small the overlap, but never one that another face matched better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.decode import Floats, iou
from training.data.identities import BadData

POSITIVE, NEGATIVE, SILENT = 1, 0, -1
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matches:
    """`label` [a] int8: POSITIVE, NEGATIVE or SILENT; `face` [a] int64: the index of the face of a positive anchor."""

    label: npt.NDArray[np.int8]
    face: Indices


def match(anchors: Floats, boxes: Floats, ignored: Bools, positive: float, negative: float) -> Matches:
    """Anchors (a, 4) cx, cy, w, h against boxes (faces, 4) xyxy, of which `ignored` (faces,) are silent regions.

    Raises BadData for a face without area, or with a coordinate that is no number.
    """
    corners, faces = _corners(anchors), _faces(boxes, ignored)
    if not len(faces):
        return _background(corners, boxes[ignored])
    overlap = iou(corners, boxes[faces])  # (a, faces)
    best, most = overlap.argmax(1), overlap.max(1)
    between = (most >= negative) & (most < positive)
    owner = np.where(most >= positive, best, -1)
    return _matches(corners, overlap, owner, between, faces, boxes[ignored])


def atss(
    anchors: Floats, boxes: Floats, ignored: Bools, levels: Sequence[tuple[int, int]], nearest: int = 9
) -> Matches:
    """Adaptive selection (Zhang et al. 2020, arXiv 1912.02424): of the `nearest` cells' anchors of each level, those
    whose IoU reaches the mean plus one standard deviation, and whose centre lies in the face. None is silent between.

    levels: (cells, anchors a cell) of each; otherwise as `match`.
    """
    corners, faces = _corners(anchors), _faces(boxes, ignored)
    if not len(faces):
        return _background(corners, boxes[ignored])
    overlap = iou(corners, boxes[faces])
    candidates = _nearest(anchors, boxes[faces], levels, nearest)
    around = np.take_along_axis(overlap, candidates, 0)
    chosen = np.zeros(overlap.shape, bool)
    np.put_along_axis(chosen, candidates, around >= around.mean(0) + around.std(0, ddof=1), 0)
    x, y = anchors[:, :1], anchors[:, 1:2]
    left, top, right, bottom = boxes[faces].T
    chosen &= (x > left) & (x < right) & (y > top) & (y < bottom)
    held = np.where(chosen, overlap, -1)
    owner = np.where(chosen.any(1), held.argmax(1), -1)
    return _matches(corners, overlap, owner, np.zeros(len(owner), bool), faces, boxes[ignored])


def _nearest(
    anchors: Floats, boxes: Floats, levels: Sequence[tuple[int, int]], cells: int
) -> npt.NDArray[np.intp]:
    """(candidates, faces): the anchors of the `cells` cells of each level that are nearest to each face's centre."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    apart = np.square(anchors[:, None, :2] - middle).sum(-1)
    found, start = [], 0
    for count, per_cell in levels:
        stop = start + count * per_cell
        near = np.argsort(apart[start:stop], axis=0, kind="stable")[: cells * per_cell]
        found.append(start + near)
        start = stop
    return np.concatenate(found)


def _corners(anchors: Floats) -> Floats:
    return np.concatenate([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)


def _faces(boxes: Floats, ignored: Bools) -> npt.NDArray[np.intp]:
    """The indices of the faces to learn. What has no area would be learnt as log 0."""
    faces = np.flatnonzero(~ignored)
    extent = boxes[faces, 2:] - boxes[faces, :2]
    if not (extent > 0).all() or not np.isfinite(extent).all():
        wrong = faces[~((extent > 0) & np.isfinite(extent)).all(1)][0]
        raise BadData(
            f"face {wrong} has the box {boxes[wrong].tolist()}, without area: mark such faces as ignored"
        )
    return faces


def _background(corners: Floats, regions: Floats) -> Matches:
    label = np.full(len(corners), NEGATIVE, np.int8)
    _silence(label, corners, regions)
    return Matches(label, np.zeros(len(corners), np.int64))


def _matches(
    corners: Floats, overlap: Floats, owner: Indices, between: Bools, faces: Indices, regions: Floats
) -> Matches:
    """From each anchor's `owner` (a,), a column of `overlap` or −1, to what it learns."""
    label = np.full(len(corners), NEGATIVE, np.int8)
    label[between] = SILENT
    forced = _forced(overlap, owner)
    for index, anchor in forced:
        owner[anchor] = index
    label[owner >= 0] = POSITIVE
    _silence(label, corners, regions)
    return Matches(label, faces[owner.clip(min=0)])


def _forced(overlap: Floats, owner: Indices) -> list[tuple[int, int]]:
    """(face, anchor) for each face that is nobody's `owner` (a,) yet, the surest faces first; −1 is a free anchor."""
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


def _silence(label: npt.NDArray[np.int8], corners: Floats, regions: Floats) -> None:
    for region in regions:
        label[(label == NEGATIVE) & _inside(corners, region)] = SILENT


def _inside(corners: Floats, region: Floats) -> Bools:
    """Anchors of which more than half lies in the region: whatever they see there, nobody knows."""
    left, top, right, bottom = corners.T
    x1, y1, x2, y2 = region
    common = (np.minimum(right, x2) - np.maximum(left, x1)).clip(0) * (
        np.minimum(bottom, y2) - np.maximum(top, y1)
    ).clip(0)
    x, y = (left + right) / 2, (top + bottom) / 2
    holds = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    inside: Bools = holds | (common > 0.5 * (right - left) * (bottom - top))
    return inside
