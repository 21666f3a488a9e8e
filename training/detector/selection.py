"""What a run is judged by while it trains: AP and recall on the held-out tenth of its own training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from bundle.decode import Detections, Floats
from bundle.manifest import DetectorSpec
from bundle.preprocess import Size, canvases_of, letterbox
from bundle.views import faces_in, views
from training.data.photographs import Photograph
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet, ServedDetector
from training.evaluation.detection import Scene, counted, curve

GATED = "ap"  # what the best checkpoint is chosen by: recall of large faces is blind to small ones
LEAST_HEIGHT = 10.0  # canvas pixels of the faces that "ap" counts, the least that WIDER's own evaluation does
SHOWN = 6  # pictures of a validation that TensorBoard gets
SHOWN_SCORE = 0.5
FACE, FOUND = (60, 120, 255), (255, 180, 0)  # RGB


def select(model: RetinaNet, photographs: Sequence[Photograph], config: DetectorConfig) -> dict[str, float]:
    """AP of faces of `LEAST_HEIGHT` canvas pixels and more; of those of 40, recall at one, and at a tenth of a, false
    positive a picture."""
    if not photographs:
        return {}
    width, height = canvas_of(config)
    found = [find(model, np.asarray(one.pixels), config) for one in photographs]

    def scenes(at_least: float) -> list[Scene]:
        sizes = (one.pixels.shape[:2] for one in photographs)
        scales = (min(width / wide, height / tall, 1.0) for tall, wide in sizes)
        return [
            counted(one.boxes, one.ignored, scale, at_least)
            for one, scale in zip(photographs, scales, strict=True)
        ]

    large = curve(scenes(40.0), found)
    return {
        "ap": curve(scenes(LEAST_HEIGHT), found).average_precision,
        "recall@1fp": large.at_false_positives(1.0).recall,
        "recall@0.1fp": large.at_false_positives(0.1).recall,
    }


def canvas_of(config: DetectorConfig) -> Size:
    """The canvas of lying pictures that the exported detector will have."""
    return canvases_of(config.anchors.strides[-1])[0]


@torch.inference_mode()
def find(
    model: RetinaNet, picture: npt.NDArray[np.uint8], config: DetectorConfig, min_score: float = 0.02
) -> Detections:
    """Faces of an RGB picture (h, w, 3) in its own pixels, seen and decoded as served: in both views of its canvas.

    model: in eval mode, on any device.
    """
    size = canvas_of(config)
    spec = DetectorSpec(anchors=config.anchors, canvases=(size,))
    canvas, placed = letterbox(picture, size)
    served, device = ServedDetector(model), next(model.parameters()).device
    seen = views(canvas, spec)
    asked = (torch.from_numpy(view.pixels[None]).to(device) for view in seen)
    outputs = [[of[0].cpu().numpy() for of in served(one)] for one in asked]
    on = faces_in(seen, outputs, spec, min_score)
    return Detections(placed.to_picture(on.boxes), placed.to_picture(on.landmarks), on.scores)


def drawn(
    picture: npt.NDArray[np.uint8], boxes: Floats, found: Detections, longest: int = 640
) -> npt.NDArray[np.uint8]:
    """A copy of the RGB picture, at most `longest` pixels long: people's boxes in blue, what was found in orange with
    its five points and score."""
    scale = min(1.0, longest / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    copy: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for box in boxes:
        _rectangle(copy, box * scale, FACE)
    for box, points, score in zip(found.boxes, found.landmarks, found.scores, strict=True):
        _rectangle(copy, box * scale, FOUND)
        for x, y in points * scale:
            cv2.circle(copy, (round(float(x)), round(float(y))), 1, FOUND, -1)
        corner = round(float(box[0] * scale)), round(float(box[1] * scale)) - 3
        cv2.putText(copy, f"{score:.2f}", corner, cv2.FONT_HERSHEY_SIMPLEX, 0.35, FOUND, 1, cv2.LINE_AA)
    return np.asarray(copy, np.uint8)


def _rectangle(picture: Any, box: Floats, colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(float(of)) for of in box)
    cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)


def show(
    model: RetinaNet, photographs: Sequence[Photograph], config: DetectorConfig, run: Path, step: int
) -> None:
    """Give TensorBoard the first pictures with what is found on them; without TensorBoard, nothing. The pictures stay
    in the run's folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(run / "tensorboard")) as board:
        for place, one in enumerate(photographs[:SHOWN]):
            picture = np.asarray(one.pixels)
            found = find(model, picture, config, SHOWN_SCORE)
            shown = drawn(picture, one.boxes[~one.ignored], found)
            board.add_image(f"selection/{place}", shown, step, dataformats="HWC")
