"""What a detector can do on the WIDER validation pictures, at a scale: recall, precision, by height, and WIDER's AP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bundle.decode import Detections, Floats
from bundle.preprocess import Letterbox
from training.data.identities import BadData
from training.data.photographs import Photograph
from training.evaluation.detection import Curve, Recall, Scene, counted, curve
from training.evaluation.scales import CANVAS, VGA, Find, Scale, seen
from training.evaluation.wider_protocol import SETTINGS, Tally, official, protocol, tally

__all__ = [
    "CANVAS",
    "HEIGHTS",
    "HEIGHT_LEAST",
    "Band",
    "Find",
    "Finding",
    "Truth",
    "finding",
    "keep",
    "kept",
    "look",
]

HEIGHT_LEAST = 40.0  # pixels of a face as the detector sees it, for the claim
HEIGHTS = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, float("inf"))


@dataclass(frozen=True)
class Truth:
    """The boxes of one picture, in its own pixels, and how it lies on the canvas."""

    name: str
    boxes: Floats
    ignored: npt.NDArray[np.bool_]
    placed: Letterbox

    @staticmethod
    def of(photograph: Photograph) -> Truth:
        height, width = photograph.pixels.shape[:2]
        placed = Letterbox(VGA.ratio(width, height), width, height)
        return Truth(photograph.name, photograph.boxes, photograph.ignored, placed)

    def scene(self, least: float = HEIGHT_LEAST, below: float = float("inf"), scale: Scale = VGA) -> Scene:
        """In which only faces of `least` to `below` pixels of height count, as seen at the scale."""
        ratio = scale.ratio(self.placed.width, self.placed.height)
        return counted(self.boxes, self.ignored, ratio, least, below)


@dataclass(frozen=True)
class Band:
    """Faces of one size: the share found at one false positive a picture (of the claim's faces), and AP of these."""

    recall: float
    average_precision: float
    faces: int

    @staticmethod
    def of(found: Curve, threshold: float) -> Band:
        return Band(found.recall_from(threshold), found.average_precision, found.faces)


@dataclass(frozen=True)
class Finding:
    """One detector's results at one scale.

    at_one, at_tenth, precision, recall: of faces of HEIGHT_LEAST and more; whole: `average_precision` in MATLAB's
    arithmetic, see `wider_protocol`.
    """

    name: str
    scale: str
    at_one: Recall
    at_tenth: Recall
    by_height: Mapping[str, Band]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    average_precision: Mapping[str, float]
    whole: Mapping[str, float]

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        return {
            "scale": self.scale,
            "recall@1fp": self.at_one.recall,
            "threshold@1fp": self.at_one.threshold,
            "recall@0.1fp": self.at_tenth.recall,
            "threshold@0.1fp": self.at_tenth.threshold,
            "faces": self.at_one.faces,
            "pictures": self.at_one.pictures,
            "by_height": {name: vars(of) for name, of in self.by_height.items()},
            "average_precision": dict(self.average_precision),
            "average_precision_whole_numbers": dict(self.whole),
        }


def look(
    photographs: Iterable[Photograph], finders: Mapping[str, Find]
) -> tuple[list[Truth], dict[str, list[Detections]]]:
    """The truth of each picture, and what each finder finds at VGA, in the picture's own pixels.

    One pass, a picture at a time: decoded, the validation pictures are a gigabyte.
    """
    truth, found = [], {name: list[Detections]() for name in finders}
    for photograph in tqdm(photographs, desc="finding faces", unit="picture", mininterval=5):
        truth.append(Truth.of(photograph))
        for name, find in finders.items():
            found[name].append(seen(find, np.asarray(photograph.pixels), VGA))
    return truth, found


def tallies(
    truth: Sequence[Truth], found: Sequence[Detections], lists: Path, whole: bool = False
) -> dict[str, Tally]:
    """WIDER's own count by setting, over the pictures present, a subset of the official validation set.

    Raises BadData for a picture that the official lists do not have.
    """
    by_name = {
        of.name.removeprefix("val/").rsplit(".", 1)[0]: official(one, of.placed.width)
        for of, one in zip(truth, found, strict=True)
    }
    results: dict[str, Tally] = {}
    for setting in SETTINGS:
        listed = protocol(lists, setting)
        missing = sorted(set(by_name) - set(listed))
        if missing:
            raise BadData(f"{len(missing)} pictures are not in the official list, the first: {missing[0]}")
        results[setting] = tally({name: listed[name] for name in by_name}, by_name, whole)
    return results


def precisions(of: Mapping[str, Tally]) -> dict[str, float]:
    """WIDER's AP by setting."""
    return {setting: one.average_precision for setting, one in of.items()}


def finding(
    name: str,
    truth: Sequence[Truth],
    found: Sequence[Detections],
    average_precision: Mapping[str, float],
    scale: Scale = VGA,
    whole: Mapping[str, float] | None = None,
) -> Finding:
    """The claim counts faces of HEIGHT_LEAST pixels as seen; smaller ones neither count nor harm."""
    claim = curve([of.scene(scale=scale) for of in truth], found)
    at_one = claim.at_false_positives(1.0)
    return Finding(
        name=name,
        scale=scale.name,
        at_one=at_one,
        at_tenth=claim.at_false_positives(0.1),
        by_height={
            _named(least, below): Band.of(
                curve([of.scene(least, below, scale) for of in truth], found), at_one.threshold
            )
            for least, below in pairwise(HEIGHTS)
        },
        precision=claim.precision,
        recall=claim.recall,
        average_precision=average_precision,
        whole=whole or {},
    )


def _named(least: float, below: float) -> str:
    return f"{least:.0f}–{below:.0f} px" if np.isfinite(below) else f"≥ {least:.0f} px"


def keep(found: Sequence[Detections], file: Path) -> list[Detections]:
    """Write detections as one npz that `kept` reads."""
    counts = np.array([len(of) for of in found])
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        counts=counts,
        boxes=np.concatenate([of.boxes for of in found]),
        landmarks=np.concatenate([of.landmarks for of in found]),
        scores=np.concatenate([of.scores for of in found]),
    )
    partial.replace(file)
    return list(found)


def kept(file: Path) -> list[Detections]:
    """The detections that `keep` wrote."""
    with np.load(file) as of:
        ends = np.cumsum(of["counts"])[:-1]
        parts = [np.split(of[name], ends) for name in ("boxes", "landmarks", "scores")]
    return [Detections(*part) for part in zip(*parts, strict=True)]
