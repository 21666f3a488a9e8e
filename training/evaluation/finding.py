"""What a detector can do, measured on the WIDER validation pictures scaled to fit 640 × 480, as it is served."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bundle.decode import Detections, Floats
from bundle.preprocess import Letterbox, Picture, Size, letterbox
from training.data.identities import BadData
from training.data.widerface import Photograph
from training.evaluation.detection import Recall, Scene, counted, judge, recall_at_false_positives
from training.evaluation.wider_protocol import SETTINGS, average_precision, official, protocol

CANVAS: Size = (640, 480)
HEIGHT_LEAST = 40.0  # pixels of a face on the canvas, for the claim
HEIGHTS = (10.0, 20.0, 40.0, 80.0, 160.0, float("inf"))

Find = Callable[[Picture], Detections]  # on a canvas, in its pixels


@dataclass(frozen=True)
class Truth:
    """The boxes of one picture, in its own pixels, and how it lies on the canvas."""

    name: str
    boxes: Floats
    ignored: npt.NDArray[np.bool_]
    placed: Letterbox

    @property
    def scale(self) -> float:
        return self.placed.scale

    def scene(self, least: float = HEIGHT_LEAST, most: float = float("inf")) -> Scene:
        """In which only faces of `least` to below `most` canvas pixels of height count."""
        tall = (self.boxes[:, 3] - self.boxes[:, 1]) * self.scale >= most
        return counted(self.boxes, self.ignored | tall, self.scale, least)


@dataclass(frozen=True)
class Finding:
    """One detector's results: recall at 1 and 0.1 false positives a picture, by height at 1, the curve, WIDER's AP."""

    name: str
    at_one: Recall
    at_tenth: Recall
    by_height: dict[str, tuple[float, int]]  # recall and faces
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    average_precision: dict[str, float]

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        return {
            "recall@1fp": self.at_one.recall,
            "threshold@1fp": self.at_one.threshold,
            "recall@0.1fp": self.at_tenth.recall,
            "faces": self.at_one.faces,
            "pictures": self.at_one.pictures,
            "recall_by_height": {
                name: {"recall": share, "faces": n} for name, (share, n) in self.by_height.items()
            },
            "average_precision": self.average_precision,
        }


def look(
    photographs: Iterable[Photograph], finders: Mapping[str, Find]
) -> tuple[list[Truth], dict[str, list[Detections]]]:
    """The truth of each picture, and what each finder finds on its canvas, in the picture's own pixels.

    One pass, a picture at a time: decoded, the validation pictures are a gigabyte.
    """
    truth, found = [], {name: list[Detections]() for name in finders}
    for photograph in tqdm(photographs, desc="finding faces", unit="picture", mininterval=5):
        canvas, placed = letterbox(photograph.pixels, CANVAS)
        truth.append(Truth(photograph.name, photograph.boxes, photograph.ignored, placed))
        for name, find in finders.items():
            on = find(canvas)
            found[name].append(
                Detections(placed.to_picture(on.boxes), placed.to_picture(on.landmarks), on.scores)
            )
    return truth, found


def precisions(truth: Sequence[Truth], found: Sequence[Detections], lists: Path) -> dict[str, float]:
    """WIDER's AP by setting over the pictures present, a subset of the official validation set."""
    by_name = {
        of.name.removeprefix("val/").rsplit(".", 1)[0]: official(one, of.placed.width)
        for of, one in zip(truth, found, strict=True)
    }
    results: dict[str, float] = {}
    for setting in SETTINGS:
        listed = protocol(lists, setting)
        missing = sorted(set(by_name) - set(listed))
        if missing:
            raise BadData(f"{len(missing)} pictures are not in the official list, the first: {missing[0]}")
        results[setting] = average_precision({name: listed[name] for name in by_name}, by_name)
    return results


def finding(
    name: str, truth: Sequence[Truth], found: Sequence[Detections], average_precision: dict[str, float]
) -> Finding:
    """The claim counts faces of HEIGHT_LEAST canvas pixels; smaller ones neither count nor harm."""
    scenes = [of.scene() for of in truth]
    at_one = recall_at_false_positives(scenes, found, 1.0)
    precision, recall = _curve(scenes, found)
    return Finding(
        name=name,
        at_one=at_one,
        at_tenth=recall_at_false_positives(scenes, found, 0.1),
        by_height=_by_height(truth, found, at_one.threshold),
        precision=precision,
        recall=recall,
        average_precision=average_precision,
    )


def _curve(scenes: Sequence[Scene], found: Sequence[Detections]) -> tuple[npt.NDArray[np.float64], ...]:
    verdicts = [judge(scene, of) for scene, of in zip(scenes, found, strict=True)]
    scores, hit, miss = (np.concatenate([verdict[i] for verdict in verdicts]) for i in range(3))
    order = np.argsort(-scores, kind="stable")
    hits, misses = np.cumsum(hit[order]), np.cumsum(miss[order])
    faces = max(1, int(sum((~scene.ignored).sum() for scene in scenes)))
    return hits / np.maximum(hits + misses, 1), hits / faces


def _by_height(
    truth: Sequence[Truth], found: Sequence[Detections], threshold: float
) -> dict[str, tuple[float, int]]:
    results = {}
    for least, most in pairwise(HEIGHTS):
        hits = faces = 0
        for of, all_found in zip(truth, found, strict=True):
            scene, sure = of.scene(least, most), all_found.scores >= threshold
            chosen = Detections(all_found.boxes[sure], all_found.landmarks[sure], all_found.scores[sure])
            hits += int(judge(scene, chosen)[1].sum())
            faces += int((~scene.ignored).sum())
        name = f"{least:.0f}–{most:.0f} px" if np.isfinite(most) else f"≥ {least:.0f} px"
        results[name] = (hits / faces if faces else float("nan"), faces)
    return results


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
