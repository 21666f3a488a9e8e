"""A tiny but real bundle for the service's tests, and the pictures that it recognises.

What works: drawn faces from 12 to 480 pixels on the detector's canvas (from 40 pixels identities are told
apart), upright, whole, at least a face's side away from each other, on bright backgrounds; JPEG down to
quality 60; grey pictures (less similar).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bundle.align import CROP
from bundle.calibration import Calibration
from bundle.folder import Bundle, write_bundle
from tests.drawn_faces import blank, draw_face, draw_person, draw_scene, patterns, place_people
from tests.synthetic_models import DIMENSION, LAYOUT, detector_model, embedder_model
from training.evaluation.calibration import Models, fit_calibration

__all__ = [
    "DIMENSION",
    "blank",
    "detector_model",
    "draw_face",
    "draw_person",
    "draw_scene",
    "embedder_model",
    "place_people",
    "write_synthetic_bundle",
]

_PEOPLE, _FIRST_PERSON = 600, 1_000_000  # drawn for the calibration, far from the identities of tests


def write_synthetic_bundle(
    path: Path, dimension: int = DIMENSION, name: str = "synthetic", version: str = "1", **fields: Any
) -> Bundle:
    """Write the bundle at `path`; under 2 s the first time in a process, then milliseconds.

    `fields` replace fields of the manifest, e.g. another licence.
    """
    detector, embedder = detector_model(), embedder_model(dimension)
    manifest: dict[str, Any] = {
        "name": name,
        "version": version,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "licence": {"id": "commercial", "text": "Drawn by a program: no rights are reserved."},
        "detector": {"anchors": LAYOUT, "min_score": 0.5, "nms_iou": 0.4, "top_k": 400},
        "embedder": {"dimension": dimension},
        "calibration": _calibration(dimension),
        "metrics": {},
        "provenance": {
            "datasets": ("drawn",),
            "commit": "none",
            "configs": {},
            "command": "tests/synthetic_bundle.py",
        },
    }
    files = {
        "detector.onnx": detector,
        "embedder.onnx": embedder,
        "REPORT.md": b"# Synthetic\n\nFor tests only.\n",
    }
    return write_bundle(path, {**manifest, **fields}, files)


@lru_cache(maxsize=4)
def _calibration(dimension: int) -> Calibration:
    """Fitted by training's own code, on drawn people whom no test uses."""
    counts = np.where(np.arange(_PEOPLE) % 20 == 0, 10, np.where(np.arange(_PEOPLE) % 8 == 1, 3, 1))
    identity = np.repeat(np.arange(_PEOPLE), counts)
    variation = np.concatenate([np.arange(1, count + 1) for count in counts])
    crops = patterns(np.stack([identity + _FIRST_PERSON, variation], 1), CROP)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # beside other work a second thread costs more than it brings
    session = onnxruntime.InferenceSession(
        embedder_model(dimension), options, providers=["CPUExecutionProvider"]
    )
    parts = [session.run(None, {"image": crops[at : at + 128]})[0] for at in range(0, len(crops), 128)]
    digests = (hashlib.sha256(model).hexdigest() for model in (detector_model(), embedder_model(dimension)))
    return fit_calibration(
        np.concatenate(parts),
        identity,
        np.full(len(identity), ""),
        dataset="drawn",
        models=Models(*digests),
        bootstraps=20,
    )
