"""Average precision as WIDER FACE's own evaluation computes it, on whatever pictures of its lists are present.

Kept from the original, odd as it is: scores normalised over the data set, 1,000 thresholds, one pixel added to every
side, a detection compared with all faces including those that the setting ignores. Not kept: its trust in the order.

The official lists hold whole numbers of class int32, and MATLAB then rounds whatever it computes with them: corners,
areas, and the IoU itself, to 0 or 1, so that the first face of the list wins and not the best. Ports to Python, which
published figures are of, compute in real numbers, and so does this module unless asked for `whole` ones. YuNet within
640 × 480, its best 400 anchors, has 0.9359, 0.9053, 0.6897 in real and 0.9358, 0.9050, 0.6915 in whole numbers: what
the official MATLAB code says under Octave too, to 1e-12, of real and of whole lists.
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
from training.evaluation.bootstrap import Interval, drawn_people
from training.evaluation.detection import area

Setting = Literal["easy", "medium", "hard"]
SETTINGS: tuple[Setting, ...] = ("easy", "medium", "hard")
THRESHOLDS = 1000
OFFICIAL_WIDTH = 1024  # pixels


@dataclass(frozen=True, slots=True)
class Truth:
    """Boxes (faces, 4) of one picture as x, y, width, height, and which of them a setting counts."""

    boxes: Floats
    counts: npt.NDArray[np.bool_]  # (faces,)


def listed(folder: Path) -> bool:
    """Whether the official lists of all settings are there."""
    return all(_list(folder, setting).is_file() for setting in SETTINGS)


def protocol(folder: Path, setting: Setting) -> dict[str, Truth]:
    """The official list of a setting by "event/picture" (no suffix), read from `wider_{setting}_val.mat`."""
    lists: Any = loadmat(str(_list(folder, setting)))
    truths = {}
    for event, files, boxes, kept in zip(
        *(lists[key][:, 0] for key in ("event_list", "file_list", "face_bbx_list", "gt_list")), strict=True
    ):
        for file, faces, counted in zip(files[:, 0], boxes[:, 0], kept[:, 0], strict=True):
            counts = np.zeros(len(faces), bool)
            counts[counted.ravel().astype(int) - 1] = True
            truths[f"{event[0]}/{file[0]}"] = Truth(faces.astype(np.float32), counts)
    return truths


def _list(folder: Path, setting: Setting) -> Path:
    return folder / f"wider_{setting}_val.mat"


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


@dataclass(frozen=True, slots=True)
class Tally:
    """What each picture adds: at each threshold proposals and faces recalled, and its faces that count."""

    curves: npt.NDArray[np.float32]  # (pictures, THRESHOLDS, 2)
    faces: npt.NDArray[np.int64]  # (pictures,)

    @property
    def average_precision(self) -> float:
        return float(self.average_precisions(np.ones((1, len(self.faces))))[0])

    def average_precisions(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """AP where picture j counts `weights[i, j]` times, float (n,) for float (n, pictures); 0 where no face does."""
        curves = (weights @ self.curves.reshape(len(self.faces), -1)).reshape(-1, THRESHOLDS, 2)
        return np.array([_ap(of, total) for of, total in zip(curves, weights @ self.faces, strict=True)])


def tally(truths: Mapping[str, Truth], found: Mapping[str, Detections], whole: bool = False) -> Tally:
    """Picture by picture, in the order of `truths`; one that `found` lacks counts as nothing found in it.

    whole: compute as MATLAB does with the official lists, see above.
    """
    faces = np.array([int(of.counts.sum()) for of in truths.values()])
    curves = np.zeros((len(truths), THRESHOLDS, 2), np.float32)
    answers = [found[name].scores for name in truths if name in found and len(found[name])]
    if answers:
        scores = np.concatenate(answers)
        low, span = float(scores.min()), max(float(scores.max()) - float(scores.min()), 1e-12)
        for place, (name, truth) in enumerate(truths.items()):
            if name in found and len(found[name]) and len(truth.boxes):
                curves[place] = _picture(truth, found[name], low, span, whole)
    return Tally(curves, faces)


def average_precision(
    truths: Mapping[str, Truth], found: Mapping[str, Detections], whole: bool = False
) -> float:
    """AP over the pictures of `truths`; see `tally`."""
    return tally(truths, found, whole).average_precision


def difference(ours: Tally, theirs: Tally, draws: int = 1000, seed: int = 0) -> Interval:
    """AP of ours less theirs on the same pictures, with 95 % by drawing pictures anew, the same ones for both.

    Scores stay normalised over the whole set.
    """
    weights = drawn_people(len(ours.faces), draws, seed)
    return Interval.of(ours.average_precisions(weights) - theirs.average_precisions(weights))


def _ap(counts: npt.NDArray[np.float64], faces: float) -> float:
    proposals, recalled = counts[:, 0], counts[:, 1]
    if not faces:
        return 0.0
    precision = np.divide(recalled, proposals, out=np.zeros(THRESHOLDS), where=proposals > 0)
    return area(recalled / faces, precision)


def _picture(
    truth: Truth, found: Detections, low: float, span: float, whole: bool
) -> npt.NDArray[np.float64]:
    """(thresholds, 2): proposals, and faces recalled, among the detections above each threshold."""
    order = np.argsort(-found.scores, kind="stable")
    scores = (found.scores[order].astype(np.float64) - low) / span
    overlap = _overlap(found.boxes[order], truth.boxes, whole)
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


def _overlap(boxes: Floats, truth: Floats, whole: bool) -> npt.NDArray[np.float64]:
    """(n, m) IoU of xyxy boxes (pixel centres at integers) with x, y, width, height, by the original's convention."""

    def told(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.sign(value) * np.floor(np.abs(value) + 0.5) if whole else value  # as MATLAB rounds

    # Its corners are x and x + width, and it takes both as inside: hence the half pixel and the one added.
    own, face = boxes.astype(np.float64) + 0.5, truth.astype(np.float64)
    low = told(np.maximum(own[:, None, :2], face[None, :, :2]))
    high = told(np.minimum(own[:, None, 2:], face[None, :, :2] + face[None, :, 2:]))
    common = (high - low + 1).clip(0).prod(-1)
    area_own = (own[:, 2:] - own[:, :2] + 1).prod(1)
    either = told(area_own[:, None] + (face[:, 2:] + 1).prod(1)) - common
    return told(common / either)
