"""Five points for faces that come with a box only: asked of the reference detector, kept where it agrees.

A face whose box the teacher does not confirm trains without landmarks; a guess would teach worse than nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.decode import Detections, Floats, iou
from training.data.widerface import Photograph, masks, wider
from training.data.yunet import YuNet

AGREEMENT_IOU = 0.5


def teach(datasets: Path, cache: Path, scales: tuple[float, ...] = (0.4, 1.0, 1.6)) -> dict[str, Floats]:
    """Landmarks (faces, 5, 2) in annotated pixels of every training photograph by name; NaN where unknown.

    Asked once (about four minutes on one core) and kept in `cache`, an npz.
    """
    if not cache.exists():
        teacher = YuNet(datasets / "reference" / "yunet_n_dynamic.onnx", min_score=0.3)
        points = {
            photo.name: agreed(photo, teacher.detect(photo.pixels, scales)) for photo in _training(datasets)
        }
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.stem}.partial.npz")
        np.savez_compressed(partial, **points)  # type: ignore[arg-type]
        partial.rename(cache)
    with np.load(cache) as kept:
        return {name: kept[name] for name in kept.files}


def agreed(photograph: Photograph, found: Detections, at_least: float = AGREEMENT_IOU) -> Floats:
    """(faces, 5, 2): the points of the detection that overlaps each official box best, NaN below `at_least`."""
    points = np.full((len(photograph.boxes), 5, 2), np.nan, np.float32)
    if len(found) and len(photograph.boxes):
        overlap = iou(photograph.boxes, found.boxes)
        best = overlap.argmax(1)
        # The other way round too: in a crowd, one detection must not lend its points to two faces.
        sure = (overlap.max(1) >= at_least) & (overlap.argmax(0)[best] == np.arange(len(best)))
        points[sure] = found.landmarks[best[sure]]
    return points


def _training(datasets: Path) -> Iterable[Photograph]:
    photographs = [*wider(datasets / "wider", "train"), *masks(datasets / "masks")]
    return tqdm(photographs, desc="teacher's landmarks", unit="picture")
