"""What a run is judged by while it trains: recall on the held-out tenth of its own training pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bundle.decode import Detections, detections
from bundle.preprocess import Size, letterbox
from training.data.widerface import Photograph
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet, ServedDetector
from training.evaluation.detection import counted, recall_at_false_positives

CANVAS: Size = (640, 480)


def select(model: RetinaNet, photographs: list[Photograph], config: DetectorConfig) -> dict[str, float]:
    """Recall of faces of 40 canvas pixels at one, and at a tenth of a, false positive a picture."""
    if not photographs:
        return {}
    sizes = [one.pixels.shape[:2] for one in photographs]
    scenes = [
        counted(one.boxes, one.ignored, min(CANVAS[0] / width, CANVAS[1] / height, 1.0))
        for one, (height, width) in zip(photographs, sizes, strict=True)
    ]
    found = [find(model, one.pixels, config) for one in photographs]
    return {
        "recall@1fp": recall_at_false_positives(scenes, found, 1.0).recall,
        "recall@0.1fp": recall_at_false_positives(scenes, found, 0.1).recall,
    }


@torch.inference_mode()
def find(
    model: RetinaNet, picture: npt.NDArray[np.uint8], config: DetectorConfig, min_score: float = 0.02
) -> Detections:
    """Faces of an RGB picture (h, w, 3) in its own pixels, through the same letterbox and decoding as served."""
    canvas, placed = letterbox(picture, CANVAS)
    outputs: Any = ServedDetector(model)(torch.from_numpy(canvas[None]))
    scores, deltas, offsets = (of[0].numpy() for of in outputs)
    on = detections(scores, deltas, offsets, *CANVAS, config.anchors, min_score, 0.4, 750)
    return Detections(placed.to_picture(on.boxes), placed.to_picture(on.landmarks), on.scores)
