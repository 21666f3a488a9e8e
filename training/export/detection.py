"""What the exported detector can do on the WIDER validation pictures and beyond, beside YuNet in the same run.

YuNet is a yardstick that never changes: its answers are kept in a cache, under digests of model, pictures and scale.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from bundle.decode import Detections
from bundle.manifest import DetectorSpec
from training.data.widerface import Photograph, wider
from training.data.yunet import YuNet
from training.evaluation.detectors import (
    ONE_VIEW,
    OURS,
    REFERENCE,
    Contender,
    DetectorResults,
    Key,
    look,
    results,
)
from training.evaluation.faceless import faceless
from training.evaluation.finding import Finding, keep, kept
from training.evaluation.scales import NMS_IOU, PUBLISHED, VGA, Scale
from training.export.looks import digest_of_files, looked
from training.export.sessions import LEAST_SCORE, ServedGraph, finder

OVERLAYS = 12
# Anchors that reach NMS while WIDER's AP is measured, ours with one view and YuNet's alike: crowds have hundreds of
# faces, each with several anchors.
TOP_K = 2000


def contenders(graph: ServedGraph, spec: DetectorSpec, scales: Sequence[Scale]) -> list[Contender]:
    """Ours as it is served at VGA, and with one view of a picture at every scale."""
    one_view = spec.model_copy(update={"near_scale": 0.0, "top_k": TOP_K})
    return [
        Contender(OURS, finder(graph, spec), (VGA,)),
        Contender(ONE_VIEW, finder(graph, one_view), tuple(scales)),
    ]


def measure_detection(
    graph: ServedGraph,
    spec: DetectorSpec,
    data: Path,
    work: Path,
    scales: Sequence[Scale] = PUBLISHED,
    without_faces: Path | None = None,
) -> DetectorResults:
    """Everything of ours and, where it is present, of YuNet; overlays into `work`.

    without_faces: a folder of pictures without anybody in them, beside those that are drawn.
    """
    root, cache = data / "wider", work / "cache"
    served = looked({OURS: (graph, spec)}, root, "val", cache)[1][OURS]
    known: dict[Key, list[Detections]] = {(OURS, VGA.name): served}
    asked, files = contenders(graph, spec, scales), dict[Key, Path]()
    yunet = data / "reference" / "yunet_n_dynamic.onnx"
    if yunet.is_file():
        asked.append(Contender(REFERENCE, YuNet(yunet, LEAST_SCORE, NMS_IOU, TOP_K).detect, tuple(scales)))
        files = {(REFERENCE, of.name): cache / f"yunet-{_digest(yunet, root, of)}.npz" for of in scales}
        known |= {key: kept(file) for key, file in files.items() if file.is_file()}
    seen = look(
        asked,
        wider(root, "val"),
        faceless(without_faces),
        known,
        canvases=spec.canvases,
    )
    for key, file in files.items():
        if key not in known:
            keep(seen.found[key], file)
    found = results(seen, scales, root / "val_protocol")
    overlay(itertools.islice(wider(root, "val"), OVERLAYS), served, found.served, work / "overlays")
    return found


def overlay(
    photographs: Iterable[Photograph], found: Sequence[Detections], result: Finding, folder: Path
) -> None:
    """Pictures with what was found at one false positive a picture; for the git-ignored run folder alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (photograph, of) in enumerate(zip(photographs, found, strict=False)):
        picture = np.ascontiguousarray(photograph.pixels[..., ::-1])
        for box, points, score in zip(of.boxes, of.landmarks, of.scores, strict=True):
            if score >= result.at_one.threshold:
                x0, y0, x1, y1 = (round(float(v)) for v in box)
                cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 255, 0), 2)
                for x, y in points:
                    cv2.circle(picture, (round(float(x)), round(float(y))), 2, (0, 0, 255), -1)
        cv2.imwrite(str(folder / f"{index:02d}.jpg"), picture)


def _digest(yunet: Path, root: Path, scale: Scale) -> str:
    """Of all that changes what YuNet finds."""
    how = f"{digest_of_files([yunet, *root.glob('*.*')])} {scale} {LEAST_SCORE} {NMS_IOU} {TOP_K}"
    return hashlib.sha256(how.encode()).hexdigest()[:32]
