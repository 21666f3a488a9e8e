"""The graphs of a bundle, exported from trained models and checked against them before anything else looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.manifest import DetectorSpec, EmbedderSpec, Variant
from bundle.sentinel import Sentinel, WrongAnswer, sentinel
from training.data.identities import Faces
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.export.checkpoints import Trained
from training.export.ladder import CANONICAL, Budget, Ladder, climb
from training.export.onnx import export_detector, export_embedder
from training.export.parity import ParityFailed, check_detector
from training.export.sessions import ServedGraph


@dataclass(frozen=True)
class Graphs:
    """The two models as files, the embedder's other forms, and what the parity checks measured."""

    embedder: ServedGraph  # canonical: the embedding space is this file's
    detector: ServedGraph
    served: ServedGraph  # the embedder as it is served here: the fastest form in the bundle
    embedder_spec: EmbedderSpec
    detector_spec: DetectorSpec
    sentinel: Sentinel
    ladder: Ladder
    detector_parity: dict[str, float]

    @property
    def files(self) -> dict[str, Path]:
        """What goes into the bundle."""
        folder = self.embedder.path.parent
        paths = [self.embedder.path, self.detector.path, *(folder / of.file for of in self.ladder.variants)]
        return {path.name: path for path in paths}

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The fastest first: the service takes the first that its backend can run."""
        before = self.ladder.rungs[0].milliseconds or 0
        return tuple(
            Variant(
                file=of.file,
                of="embedder",
                kind=of.kind,
                derived_from=self.embedder.digest,
                backends=("onnxruntime",),
                cost=of.cost(before),
            )
            for of in self.ladder.variants
        )

    @property
    def parity(self) -> dict[str, dict[str, float]]:
        """By file, the published ones."""
        rungs = [of for of in self.ladder.rungs if of.published and of.agreement]
        before = self.ladder.rungs[0].milliseconds or 0
        costs = {
            of.file: of.agreement.row() if of.kind == CANONICAL and of.agreement else of.cost(before)
            for of in rungs
        }
        return {**costs, self.detector.path.name: self.detector_parity}


def export_graphs(
    embedder: Trained[Any, Any],
    detector: Trained[RetinaNet, DetectorConfig],
    validation: Faces,
    folder: Path,
    cache: Path,
    budget: Budget | None = None,
    threads: int = 1,
) -> Graphs:
    """Write the graphs into `folder`, check and climb the parity ladder; raises ParityFailed.

    validation: faces on which the embedder's forms are compared, and int8 is calibrated; cache: for their embeddings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embedder_spec = EmbedderSpec(dimension=embedder.model.dimension)
    detector_spec = DetectorSpec(anchors=detector.config.anchors)
    served_embedder = export_embedder(embedder.model, folder / embedder_spec.file)
    served_detector = export_detector(detector.model, folder / detector_spec.file)
    canonical = ServedGraph(folder / embedder_spec.file, threads)
    found = ServedGraph(folder / detector_spec.file, threads)
    detector_parity = check_detector(served_detector, found, detector_spec.canvases)
    try:
        guard = sentinel(lambda crops: canonical.run(crops)[0])
    except WrongAnswer as error:
        raise ParityFailed(f"{canonical.path.name}: {error}") from error
    ladder = climb(served_embedder, canonical, guard, validation, budget or Budget(), cache)
    served = ServedGraph(ladder.served.path, threads)
    return Graphs(canonical, found, served, embedder_spec, detector_spec, guard, ladder, detector_parity)
