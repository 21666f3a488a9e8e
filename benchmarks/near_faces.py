"""How much of the frame may a face fill and still be found, and what does the small copy of a canvas cost?

    python -m benchmarks.near_faces [--bundle DIR] [--data DIR] [--photographs N]

Faces of 200 pixels and more of the WIDER pictures that are held out for selection, cut and enlarged to a frame of
640 × 480 or 480 × 640; points are compared with YuNet's on the photograph scaled so that the face has 110 pixels.
Without a small copy, and with copies of several scales, in the same run; and the false positives of each on pictures
without a face (scikit-image's), and the processor time a picture. Without the data sets it says so and is left out.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.datasets import WIDER, YUNET_GRAPH, datasets
from benchmarks.graphs import DEFAULT_BUNDLE
from benchmarks.measure import Row, interleaved, versions, write_result
from bundle.decode import Detections, iou
from bundle.folder import open_bundle
from bundle.preprocess import Picture, canvas_for, letterbox
from training.data.photographs import Photograph
from training.data.widerface import wider
from training.data.yunet import YuNet
from training.evaluation.faceless import OF_SCIKIT
from training.evaluation.finding import Find
from training.evaluation.near import COMFORTABLE, TALL, Framed, by_fraction, large_faces
from training.export.sessions import ServedGraph, finder

NEAR_SCALES = (0.0, 0.25, 0.5)


def pointed(photographs: Iterator[Photograph], yunet: YuNet) -> Iterator[Photograph]:
    """With YuNet's points of each face, where its box agrees, from the scale at which that face is COMFORTABLE."""
    for photograph in photographs:
        points = np.full((len(photograph.boxes), 5, 2), np.nan, np.float32)
        for face, box in enumerate(photograph.boxes):
            if photograph.ignored[face] or box[3] - box[1] < TALL:
                continue
            found = yunet.detect(np.asarray(photograph.pixels), (COMFORTABLE / float(box[3] - box[1]),))
            overlap = iou(box[None], found.boxes)[0]
            if len(found) and overlap.max() > 0.45:
                points[face] = found.landmarks[int(overlap.argmax())]
        yield replace(photograph, landmarks=points)


def served(find: Find, picture: Picture) -> Detections:
    """Faces in the picture's pixels, on the canvas that the service would take."""
    canvas, placed = letterbox(picture, canvas_for(picture.shape[1], picture.shape[0]))
    found = find(canvas)
    return Detections(placed.to_picture(found.boxes), placed.to_picture(found.landmarks), found.scores)


def faceless() -> list[Picture]:
    """Pictures without a face, scaled to fill a canvas."""
    from skimage import data

    pictures = [np.asarray(getattr(data, name)()) for name in OF_SCIKIT]
    coloured = [np.repeat(of[..., None], 3, 2) if of.ndim == 2 else of[..., :3] for of in pictures]
    scale = [min(640 / of.shape[1], 480 / of.shape[0]) for of in coloured]
    return [
        np.asarray(cv2.resize(of, None, fx=by, fy=by, interpolation=cv2.INTER_AREA), np.uint8)
        for of, by in zip(coloured, scale, strict=True)
    ]


def rows_of(scale: float, find: Find, frames: list[Framed], empty: list[Picture], cpu_ms: float) -> list[Row]:
    fillings = by_fraction(frames, [served(find, frame.pixels) for frame in frames])
    false = sum(len(served(find, picture)) for picture in empty)
    cost = {"near_scale": scale, "cpu_ms_a_picture": round(cpu_ms, 2), "found_without_a_face": false}
    return [
        cost
        | {
            "fraction": of.fraction,
            "faces": of.faces,
            "recall": round(of.recall, 3),
            "points_median": round(of.error, 3),
            "points_p90": round(of.error_p90, 3),
            "parts": of.parts,
        }
        for of in fillings
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--data", type=Path, default=None, help="default: as training finds it")
    parser.add_argument("--photographs", type=int, default=None, help="the first N, not all")
    parser.add_argument("--rounds", type=int, default=30, help="of the timing")
    arguments = parser.parse_args()
    data = datasets("near_faces", arguments.data, (WIDER, YUNET_GRAPH))
    if data is None:
        return
    manifest = open_bundle(arguments.bundle).manifest
    spec = manifest.detector
    graph = ServedGraph(arguments.bundle / spec.file)
    finders = {
        scale: finder(graph, spec.model_copy(update={"near_scale": scale}), spec.min_score)
        for scale in NEAR_SCALES
    }
    yunet = YuNet(data / YUNET_GRAPH, 0.5)
    photographs = itertools.islice(wider(data / WIDER, "selection"), arguments.photographs)
    frames, empty = list(large_faces(pointed(photographs, yunet))), faceless()
    canvas = letterbox(frames[0].pixels, canvas_for(*frames[0].pixels.shape[1::-1]))[0]
    taken = interleaved(
        {str(scale): partial(find, canvas) for scale, find in finders.items()}, arguments.rounds
    )
    rows = [
        row
        for scale, find in finders.items()
        for row in rows_of(scale, find, frames, empty, float(np.median(taken[str(scale)].cpu)) * 1e3)
    ]
    write_result(
        "near_faces",
        "How much of the frame may a face fill and still be found? (near_scale 0: the canvas alone; points: distance "
        "to YuNet's, in distances of the eyes; parts: boxes in the face that are not it; cpu: detector and decoding, "
        "one thread)",
        rows,
        bundle=manifest.model_id,
        min_score=spec.min_score,
        pictures_without_a_face=len(empty),
        libraries=versions("onnxruntime", "numpy", "opencv-python-headless"),
    )


if __name__ == "__main__":
    main()
