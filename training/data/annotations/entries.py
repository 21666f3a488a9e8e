"""What a set says of its pictures, and what of it can be believed.

Coordinates of an entry are edges: a picture of w × h pixels reaches from (0, 0) to (w, h), or to (1, 1) where they are
fractions. A `Photograph` counts from the centre of the first pixel, half a pixel less.

A box that cannot be placed hides a face that would be taught as background, so its picture is left out whole. All that
is left out or changed is a `Finding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from training.data.photographs import Floats

Doubles = npt.NDArray[np.float64]
Place = tuple[Path, int, int]  # file, offset, length in bytes; length −1: to its end

LEAST = 1.0  # pixels: what is less wide or high is no face that anybody could see
ROUNDING = 1.0  # pixels that a box may reach out of its picture unreported
NEAR = 0.25  # of the box's width and height that a landmark may lie out of it: a nose in profile does
TURNED = 0.1  # how surely the eyes are in the wrong order; about 0 in profile, where nobody can say

Lost = Literal[
    "unreadable",  # no whole picture
    "wrong_size",  # not as large as annotated
    "malformed",  # a line or an entry that does not follow the format
    "not_a_number",
    "outside",  # no part of the box is in the picture
    "normalised",  # fractions where the format has pixels
    "absolute",  # pixels where the format has fractions
]
Kind = Literal[
    Lost,
    "no_annotation",
    "no_picture",
    "named_twice",
    "other_class",
    "clipped",
    "no_area",
    "landmarks_outside",
    "landmarks_mirrored",
    "landmarks_unread",
    "copy",
]
DONE: dict[str, str] = {  # what becomes of them
    **dict.fromkeys(get_args(Lost), "the picture is left out"),
    "no_annotation": "the picture is left out: nobody said that it shows no face",
    "no_picture": "the annotation is left out",
    "named_twice": "the second entry is left out",
    "other_class": "the boxes are left out: they are not faces",
    "clipped": "the box ends at the picture's edge",
    "no_area": "the place is ignored: neither face nor background",
    "landmarks_outside": "the box stays, its points are unknown",
    "landmarks_mirrored": "the box stays, its points are unknown",
    "landmarks_unread": "the boxes stay, their points are unknown",
    "copy": "both stay",
}


class Finding(NamedTuple):
    """where: the file with its line or entry."""

    kind: Kind
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.detail}"


class Row(NamedTuple):
    """A box as a reader found it: left, top, right and bottom edge; ten numbers of five points, or none."""

    where: str
    box: tuple[float, float, float, float]
    ignored: bool = False
    landmarks: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One picture of a set. boxes: (n, 4) edges; landmarks: (n, 5, 2), NaN where unknown; where: (n,) of each box.

    relative: both are fractions of the picture; size: (width, height) that the annotation states, if any;
    findings: what of the annotation could not be read.
    """

    name: str
    place: Place
    where: tuple[str, ...]
    boxes: Doubles
    ignored: npt.NDArray[np.bool_]
    landmarks: Doubles
    relative: bool
    size: tuple[int, int] | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, eq=False)
class Annotations:
    """A set. form: its format in words; findings: what belongs to no entry; points: who marked the landmarks, where the
    set says that it was a program."""

    form: str
    source: Path
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    points: str = ""


class Judged(NamedTuple):
    """An entry in the pixels of its picture, centres at integers; `findings` say what was changed."""

    boxes: Floats
    ignored: npt.NDArray[np.bool_]
    landmarks: Floats
    findings: tuple[Finding, ...]


def entry(
    name: str,
    place: Place,
    rows: Sequence[Row],
    *,
    relative: bool = False,
    size: tuple[int, int] | None = None,
    findings: Sequence[Finding] = (),
) -> Entry:
    unknown = (np.nan,) * 10
    return Entry(
        name,
        place,
        tuple(row.where for row in rows),
        np.array([row.box for row in rows], np.float64).reshape(-1, 4),
        np.array([row.ignored for row in rows], bool),
        np.array([row.landmarks or unknown for row in rows], np.float64).reshape(-1, 5, 2),
        relative,
        size,
        tuple(findings),
    )


def judged(of: Entry, width: int, height: int) -> Judged:
    """What the entry says of its picture of `width` × `height` pixels, and what is wrong with it.

    Where a finding's kind is among `Lost`, a face's place is unknown.
    """
    whole = np.array([width, height, width, height], np.float64)
    boxes = of.boxes * whole if of.relative else of.boxes.copy()
    findings = list(of.findings)

    def find(kind: Kind, which: npt.NDArray[np.bool_], detail: str) -> None:
        for row in np.flatnonzero(which):
            findings.append(Finding(kind, of.where[row], f"{detail}: {_text(of.boxes[row])}"))

    given, finite = of.boxes, np.asarray(np.isfinite(boxes).all(1))
    with np.errstate(invalid="ignore"):
        fractions = ((given >= 0) & (given <= 1)).all(1) & (given % 1 != 0).any(1)
        small = np.asarray(finite & fractions & (not of.relative))
        large = np.asarray(finite & ((given > 2) | (given < -1)).any(1) & of.relative)
        extent = boxes[:, 2:] - boxes[:, :2]
    sound = finite & ~small & ~large
    shown = np.minimum(boxes, whole)[:, 2:] - np.maximum(boxes, 0)[:, :2]
    inside = (shown > 0).all(1)
    flat = sound & ((extent < LEAST).any(1) | (inside & (shown < LEAST).any(1)))
    boxes[flat, 2:] = boxes[flat, :2] + extent[flat].clip(0)
    beyond = np.maximum(-boxes, boxes - whole).max(1) > ROUNDING
    find("not_a_number", ~finite, "the box has coordinates that are no numbers")
    find("normalised", small, "fractions of the picture where pixels are expected")
    find("absolute", large, "pixels where fractions of the picture are expected")
    find("outside", sound & ~flat & ~inside, f"no part of it is in the picture of {width} × {height}")
    find("no_area", flat, "less than a pixel of it wide or high")
    find("clipped", sound & ~flat & inside & beyond, f"it reaches out of the picture of {width} × {height}")
    boxes = boxes.clip(0, whole)
    points = of.landmarks * whole[:2] if of.relative else of.landmarks.copy()
    points[~np.isfinite(points).all((1, 2))] = np.nan
    away, mirrored = _away(points, boxes) & sound & ~flat, _mirrored(points) & sound & ~flat
    find("landmarks_outside", away, "landmarks far out of the box")
    find("landmarks_mirrored", mirrored & ~away, "left and right landmarks are swapped")
    points[away | mirrored] = np.nan
    half = np.float64(0.5)
    return Judged(
        (boxes - half).astype(np.float32),
        of.ignored | flat,
        (points - half).astype(np.float32),
        tuple(findings),
    )


def lost(of: Finding) -> bool:
    """Whether it costs a picture that was there with its annotation."""
    return of.kind in get_args(Lost)


def _text(box: Doubles) -> str:
    return " ".join(f"{edge:g}" for edge in box)


def _away(points: Doubles, boxes: Doubles) -> npt.NDArray[np.bool_]:
    """Whether a point lies further from the box (n, 4) than `NEAR` of its extent."""
    slack = NEAR * (boxes[:, 2:] - boxes[:, :2])
    low, high = (boxes[:, :2] - slack)[:, None], (boxes[:, 2:] + slack)[:, None]
    return np.asarray(((points < low) | (points > high)).any((1, 2)))


def _mirrored(points: Doubles) -> npt.NDArray[np.bool_]:
    """Whether the way from the first eye to the second turns the wrong way round on its way to the mouth.

    True of no face that is only turned in its plane, even upside down.
    """
    across = points[:, 1] - points[:, 0]
    down = points[:, 3:].mean(1) - points[:, :2].mean(1)
    turn = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    return np.asarray(turn < -TURNED * (down**2).sum(1))
