"""The graphs of a bundle, exported from trained models and checked against them before anything else looks at them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.manifest import DetectorSpec, EmbedderSpec, Variant
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.embedder.config import EmbedderConfig
from training.export.checkpoints import Trained
from training.export.onnx import export_detector, export_embedder
from training.export.parity import check_detector, check_embedder, check_variant, golden_crops
from training.export.prelu import rewrite_prelu
from training.export.sessions import ServedGraph

REWRITTEN = "embedder.prelu-rewrite.onnx"


@dataclass(frozen=True)
class Graphs:
    """The two models as files, the embedder's variant, and what the parity checks measured by file name."""

    embedder: ServedGraph
    detector: ServedGraph
    rewritten: ServedGraph
    embedder_spec: EmbedderSpec
    detector_spec: DetectorSpec
    parity: dict[str, dict[str, float]]

    @property
    def files(self) -> dict[str, Path]:
        return {graph.path.name: graph.path for graph in (self.embedder, self.detector, self.rewritten)}

    @property
    def variants(self) -> tuple[Variant, ...]:
        return (
            Variant(
                file=self.rewritten.path.name,
                of="embedder",
                kind="prelu-rewrite",
                derived_from=self.embedder.digest,
                backends=("onnxruntime",),
                cost=self.parity[self.rewritten.path.name],
            ),
        )


def export_graphs(
    embedder: Trained[MobileFaceNet, EmbedderConfig],
    detector: Trained[RetinaNet, DetectorConfig],
    faces: np.ndarray,
    folder: Path,
    threads: int = 1,
) -> Graphs:
    """Write the graphs into `folder` and run the parity ladder; raises ParityFailed.

    faces: uint8 [n, 112, 112, 3] RGB, on which the variant is compared too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embedder_spec = EmbedderSpec(dimension=embedder.config.dimension)
    detector_spec = DetectorSpec(anchors=detector.config.anchors)
    served_embedder = export_embedder(embedder.model, folder / embedder_spec.file)
    served_detector = export_detector(detector.model, folder / detector_spec.file)
    rewrite_prelu(folder / embedder_spec.file, folder / REWRITTEN)
    names = embedder_spec.file, detector_spec.file, REWRITTEN
    graphs = [ServedGraph(folder / name, threads) for name in names]
    pace = {
        "milliseconds_a_face": _milliseconds(graphs[2]),
        "milliseconds_a_face_before": _milliseconds(graphs[0]),
    }
    parity = {
        names[0]: check_embedder(served_embedder, graphs[0]),
        names[1]: check_detector(served_detector, graphs[1], detector_spec.canvases),
        names[2]: check_variant(graphs[0], graphs[2], np.concatenate([golden_crops(), faces])) | pace,
    }
    return Graphs(graphs[0], graphs[1], graphs[2], embedder_spec, detector_spec, parity)


def _milliseconds(graph: ServedGraph, runs: int = 15) -> float:
    """The median of some single faces: enough to tell three times faster from as fast, on a machine with other work."""
    crop, seconds = golden_crops()[3:], []
    for _ in range(runs):
        started = time.perf_counter()
        graph.run(crop)
        seconds.append(time.perf_counter() - started)
    return round(float(np.median(seconds)) * 1e3, 2)
