"""Detectors side by side: the same pictures, the same scales, the same rules; what follows is compared by picture.

Ours is looked at as it is served, with the small copy of each canvas, and with one view alone: only that may be
compared with a single-scale figure. Read downwards: look → judge → results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.decode import Detections
from bundle.preprocess import CANVASES, Picture, Size, canvas_for, letterbox
from training.data.photographs import Photograph
from training.evaluation.bootstrap import Interval
from training.evaluation.detection import Curve, Scene, curve
from training.evaluation.faceless import FalseFinds, false_finds
from training.evaluation.finding import Band, Find, Finding, Truth, finding, precisions, tallies
from training.evaluation.landmark_error import LandmarkError, landmark_error
from training.evaluation.near import Framed, large_faces
from training.evaluation.scales import ORIGINAL, PUBLISHED, VGA, Scale, seen, seen_at
from training.evaluation.wider_protocol import SETTINGS, Tally, difference

OURS, ONE_VIEW, REFERENCE = "facet", "facet, one view", "YuNet"
FRACTIONS = (
    0.5,
    0.7,
    0.9,
)  # of the frame, for the bands 40–60, 60–80 and 80–100 %: frames may miss theirs by 15 %
BANDS = {0.5: "40–60 %", 0.7: "60–80 %", 0.9: "80–100 %"}

Key = tuple[str, str]  # a detector's and a scale's name


@dataclass(frozen=True)
class Contender:
    """A detector, and the scales at which it is asked."""

    name: str
    find: Find
    scales: tuple[Scale, ...] = PUBLISHED


@dataclass
class Looked:
    """Everything that was found, before anything is judged; `found` may hold what is known from before."""

    truth: list[Truth] = field(default_factory=list)
    found: dict[Key, list[Detections]] = field(default_factory=dict)
    frames: list[Framed] = field(default_factory=list)  # with the shape of their pixels alone
    near: dict[str, list[Detections]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    faceless: dict[str, list[Detections]] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectorResults:
    """Everything measured of a bundle's detector beside the reference.

    findings: ours as served comes first; differences: AP of ours with one view less the reference's, by scale and
    setting, drawn by picture; near, points, faceless: by detector, at VGA;
    the last two not of one view.
    """

    findings: Sequence[Finding]
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    near: Mapping[str, Mapping[str, Band]] = field(default_factory=dict)
    points: Mapping[str, LandmarkError] = field(default_factory=dict)
    faceless: Mapping[str, Sequence[FalseFinds]] = field(default_factory=dict)

    @property
    def served(self) -> Finding:
        return self.findings[0]

    @property
    def recall(self) -> float:
        """Of the claim's faces, as served, at one false positive a picture, 0–1."""
        return self.served.at_one.recall

    def at(self, scale: str) -> list[Finding]:
        """Of every detector that was asked at that scale."""
        return [of for of in self.findings if of.scale == scale]

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it: each detector's figures at its first scale, and the others' below `at`."""
        kept: dict[str, object] = {}
        for name in dict.fromkeys(of.name for of in self.findings):
            first, *others = (of for of in self.findings if of.name == name)
            kept[name] = first.metrics() | {
                "at": {of.scale: of.metrics() for of in others},
                "by_fraction_of_frame": {band: vars(of) for band, of in self.near.get(name, {}).items()},
                "points": vars(self.points[name]) if name in self.points else {},
                "false_finds": [vars(of) for of in self.faceless.get(name, ())],
            }
        less = {
            scale: {of: vars(interval) for of, interval in by.items()}
            for scale, by in self.differences.items()
        }
        return kept | {"average_precision_less_reference": less}


def look(
    contenders: Sequence[Contender],
    photographs: Iterable[Photograph],
    without_faces: Iterable[tuple[str, Picture]] = (),
    known: Mapping[Key, list[Detections]] | None = None,
    canvases: Sequence[Size] = CANVASES,
) -> Looked:
    """Every contender on every picture, one decoded at a time; what is `known` is not asked for again.

    canvases: those of the bundle, on which all of them see the frames that a face fills.
    """
    looked = Looked(found=dict(known or {}))
    asked = {
        of.name: [scale for scale in of.scales if (of.name, scale.name) not in looked.found]
        for of in contenders
    }
    for frame in large_faces(_passing(photographs, contenders, asked, looked), FRACTIONS):
        height, width = frame.pixels.shape[:2]
        looked.frames.append(replace(frame, pixels=np.empty((height, width, 0), np.uint8)))
        for of in contenders:
            looked.near.setdefault(of.name, []).append(_served(of.find, frame.pixels, canvases))
    for source, picture in without_faces:
        looked.sources.append(source)
        for of in contenders:
            if of.name == ONE_VIEW:
                continue
            looked.faceless.setdefault(of.name, []).append(seen(of.find, picture, VGA))
    return looked


def _passing(
    photographs: Iterable[Photograph],
    contenders: Sequence[Contender],
    asked: Mapping[str, Sequence[Scale]],
    looked: Looked,
) -> Iterator[Photograph]:
    """The photographs, each looked at as it passes."""
    for photograph in tqdm(photographs, desc="finding faces", unit="picture", mininterval=5):
        looked.truth.append(Truth.of(photograph))
        pixels = np.asarray(photograph.pixels)
        for of in contenders:
            scales = asked[of.name]
            for scale, found in zip(scales, seen_at(of.find, pixels, scales), strict=True):
                looked.found.setdefault((of.name, scale.name), []).append(found)
        yield photograph


def _served(find: Find, picture: Picture, canvases: Sequence[Size]) -> Detections:
    """Faces in the picture's pixels, on the canvas that the service would take."""
    canvas, placed = letterbox(picture, canvas_for(picture.shape[1], picture.shape[0], canvases))
    on = find(canvas)
    return Detections(placed.to_picture(on.boxes), placed.to_picture(on.landmarks), on.scores)


def results(looked: Looked, scales: Sequence[Scale], lists: Path) -> DetectorResults:
    """What follows from everything that was found. lists: the folder of WIDER's official lists."""
    findings: list[Finding] = []
    differences: dict[str, Mapping[str, Interval]] = {}
    for scale in scales:
        counted: dict[str, dict[str, Tally]] = {}
        for name in (OURS, ONE_VIEW, REFERENCE):
            if (found := looked.found.get((name, scale.name))) is None:
                continue
            counted[name] = tallies(looked.truth, found, lists)
            whole = precisions(tallies(looked.truth, found, lists, whole=True))
            findings.append(finding(name, looked.truth, found, precisions(counted[name]), scale, whole))
        single = counted.get(ONE_VIEW, counted.get(OURS))
        if single and REFERENCE in counted:
            differences[scale.name] = {of: difference(single[of], counted[REFERENCE][of]) for of in SETTINGS}
    at_vga = {of.name: of for of in findings if of.scale == VGA.name}
    return DetectorResults(
        findings,
        differences,
        near={name: _near(looked, name, of) for name, of in at_vga.items()} if looked.frames else {},
        points=_points(looked, at_vga),
        faceless={
            name: false_finds(
                looked.sources, looked.faceless[name], of.at_one.threshold, of.at_tenth.threshold
            )
            for name, of in at_vga.items()
            if name in looked.faceless
        },
    )


def _near(looked: Looked, name: str, at: Finding) -> dict[str, Band]:
    """Of faces that fill a frame; what is found beside them is not judged, for frames show other people too."""
    bands = {}
    for fraction, band in BANDS.items():
        pairs = [
            (frame, found)
            for frame, found in zip(looked.frames, looked.near[name], strict=True)
            if frame.fraction == fraction
        ]
        if pairs:
            bands[band] = Band.of(_on_the_face(pairs), at.at_one.threshold)
    return bands


def _on_the_face(pairs: Sequence[tuple[Framed, Detections]]) -> Curve:
    scenes, answers = [], []
    for frame, found in pairs:
        height, width = frame.pixels.shape[:2]
        edges = np.array([width, height, width, height], np.float32)
        face, boxes = frame.box.clip(0, edges), found.boxes.clip(0, edges)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        on = ((middle > face[:2]) & (middle < face[2:])).all(1)
        scenes.append(Scene(face[None], np.zeros(1, bool)))
        answers.append(Detections(boxes[on], found.landmarks[on], found.scores[on]))
    return curve(scenes, answers)


def _points(looked: Looked, at_vga: Mapping[str, Finding]) -> dict[str, LandmarkError]:
    """At VGA against the reference at the pictures' own size, where its points are at their best."""
    reference = looked.found.get((REFERENCE, ORIGINAL.name))
    if reference is None:
        return {}
    against = f"{REFERENCE}, {ORIGINAL.name}"
    return {
        name: landmark_error(
            looked.truth, looked.found[name, VGA.name], reference, against, of.at_one.threshold
        )
        for name, of in at_vga.items()
        if name != ONE_VIEW
    }
