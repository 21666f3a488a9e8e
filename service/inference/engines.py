"""A bundle's two models behind their engines, on one backend: what bootstrap constructs and closes.

Which file of the bundle is run is decided here alone: the first variant made for the backend, else the canonical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bundle import sentinel
from bundle.folder import Bundle
from bundle.views import VIEWS
from service.config import BackendKind
from service.errors import StartFailed
from service.inference.backend import Backend, Model, open_backend
from service.inference.engine import Engine
from service.inference.worker import Lanes
from service.telemetry.metrics import Metrics

Role = Literal["detector", "embedder"]

# Items in a batch unless configured. On a CPU larger batches are slower, not faster: the detector ran 55, 55 and 50
# pictures per core-second in batches of 1, 2 and 4, the embedder takes 3.5 ms a face alone and 14.5 ms in a batch of
# 16 (ONNX Runtime 1.31, AVX-512, 2026-11-22). A GPU needs them to be filled.
CPU_BATCH = 1
GPU_BATCH = 32

# A picture's faces enter the embedder's queue in groups of this many, so that a crowd does not fill it alone.
FACES_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Engines:
    """Detector and embedder on shared lanes. `backend` is what really runs, e.g. "onnxruntime"."""

    detector: Engine
    embedder: Engine
    lanes: Lanes
    backend: str

    def close(self) -> None:
        """Let running batches end, fail what waits, release the models. Blocks up to a few seconds."""
        self.lanes.close()
        self.embedder.close()
        self.detector.close()


def open_engines(
    bundle: Bundle,
    kind: BackendKind,
    *,
    lanes: int,
    queue_limit: int,
    max_batch: int | None,
    metrics: Metrics,
) -> Engines:
    """Open both models of `bundle` on one backend. Raises `StartFailed` when that cannot be had."""
    detector = open_backend(kind, model_of(bundle, "detector", kind), lanes)
    try:
        # Both models on the same backend, whatever "auto" found for the first.
        embedder = open_backend(_chosen(detector), model_of(bundle, "embedder", detector.name), lanes)
        _answers_as_promised(bundle, embedder)
    except BaseException:
        detector.close()
        raise
    batch = max_batch or (GPU_BATCH if detector.name in ("cuda", "tensorrt") else CPU_BATCH)
    shared = Lanes(lanes)
    return Engines(
        Engine(
            "detector",
            detector,
            shared,
            metrics,
            limit=queue_limit * VIEWS,
            max_batch=batch,
            stage=0,
        ),
        Engine(
            "embedder",
            embedder,
            shared,
            metrics,
            limit=queue_limit * FACES_IN_FLIGHT,
            max_batch=batch,
            stage=1,
        ),
        shared,
        detector.name,
    )


def _answers_as_promised(bundle: Bundle, embedder: Backend) -> None:
    """Ask the opened embedder about the bundle's test picture: swapped channels would cost accuracy in silence."""
    if bundle.manifest.sentinel is None:
        return
    try:
        sentinel.check(bundle.manifest.sentinel, lambda crops: embedder.run(crops)[0])
    except sentinel.WrongAnswer as wrong:
        embedder.close()
        raise StartFailed(
            f"the embedder of {bundle.manifest.model_id} on {embedder.name}: {wrong}"
        ) from wrong


def model_of(bundle: Bundle, role: Role, backend: str) -> Model:
    """The file of `role` to run on `backend`, and its ends."""
    manifest = bundle.manifest
    detector, embedder = manifest.detector, manifest.embedder
    made = [of.file for of in manifest.variants if of.of == role and backend in of.backends]
    if role == "detector":
        return Model(_file(bundle, made, detector.file), detector.input, detector.outputs)
    return Model(_file(bundle, made, embedder.file), embedder.input, (embedder.output,))


def _file(bundle: Bundle, made: list[str], canonical: str) -> Path:
    return bundle.file(made[0] if made else canonical)


def _chosen(opened: Backend) -> BackendKind:
    for kind in ("onnxruntime", "openvino", "cuda", "tensorrt"):
        if kind == opened.name:
            return kind
    raise AssertionError(opened.name)
