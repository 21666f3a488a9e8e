"""The graphs of a bundle, exported from trained models and checked against them before anything else looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bundle.manifest import DetectorSpec, EmbedderSpec, Variant
from bundle.sentinel import Sentinel, WrongAnswer, sentinel
from training.data.identities import Faces
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.export.checkpoints import Trained
from training.export.detector_forms import DetectorBudget, DetectorForms
from training.export.embedder_forms import EmbedderBudget, EmbedderForms
from training.export.ladder import CANONICAL, Ladder, climb
from training.export.onnx import export_detector, export_embedder
from training.export.parity import ParityFailed
from training.export.sessions import ServedGraph


@dataclass(frozen=True)
class Graphs:
    """The two models as files, their other forms, and what the parity checks measured."""

    embedder: ServedGraph  # canonical: the embedding space is this file's
    detector: ServedGraph
    served: ServedGraph  # the embedder as it is served here: the fastest form in the bundle
    served_detector: ServedGraph
    embedder_spec: EmbedderSpec
    detector_spec: DetectorSpec
    sentinel: Sentinel
    ladder: Ladder  # the embedder's
    detector_ladder: Ladder

    @property
    def files(self) -> dict[str, Path]:
        """What goes into the bundle."""
        paths = [self.embedder.path, self.detector.path]
        for graph, ladder in self._ladders.values():
            paths += [graph.path.parent / of.file for of in ladder.variants]
        return {path.name: path for path in paths}

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Of each model the fastest first: the service takes the first that its backend can run."""
        return tuple(
            Variant(
                file=of.file,
                of=role,
                kind=of.kind,
                derived_from=graph.digest,
                backends=("onnxruntime",),
                cost=of.cost(ladder.rungs[0].milliseconds or 0),
            )
            for role, (graph, ladder) in self._ladders.items()
            for of in ladder.variants
        )

    @property
    def parity(self) -> dict[str, dict[str, float]]:
        """By file, the published ones."""
        return {
            of.file: of.agreement.row()
            if of.kind == CANONICAL
            else of.cost(ladder.rungs[0].milliseconds or 0)
            for _, ladder in self._ladders.values()
            for of in ladder.rungs
            if of.published and of.agreement
        }

    @property
    def _ladders(self) -> dict[Literal["embedder", "detector"], tuple[ServedGraph, Ladder]]:
        return {"embedder": (self.embedder, self.ladder), "detector": (self.detector, self.detector_ladder)}


def export_graphs(
    embedder: Trained[Any, Any],
    detector: Trained[RetinaNet, DetectorConfig],
    validation: Faces,
    photographs: Path,
    folder: Path,
    cache: Path,
    budget: EmbedderBudget | None = None,
    detector_budget: DetectorBudget | None = None,
    threads: int = 1,
) -> Graphs:
    """Write the graphs into `folder`, check and climb both parity ladders; raises ParityFailed.

    validation: faces on which the embedder's forms are compared, and int8 is calibrated; photographs: the folder of the
    WIDER set, for the detector's; cache: for what they answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    budget, detector_budget = budget or EmbedderBudget(), detector_budget or DetectorBudget()
    embedder_spec = EmbedderSpec(dimension=embedder.model.dimension)
    detector_spec = DetectorSpec(anchors=detector.config.anchors)
    trained_embedder = export_embedder(embedder.model, folder / embedder_spec.file)
    trained_detector = export_detector(detector.model, folder / detector_spec.file)
    canonical = ServedGraph(folder / embedder_spec.file, threads)
    found = ServedGraph(folder / detector_spec.file, threads)
    try:
        guard = sentinel(lambda crops: canonical.run(crops)[0])
    except WrongAnswer as error:
        raise ParityFailed(f"{canonical.path.name}: {error}") from error
    of_detector = climb(
        DetectorForms(trained_detector, found, detector_spec, photographs, cache), detector_budget
    )
    of_embedder = climb(
        EmbedderForms(trained_embedder, canonical, guard, validation, budget.fmr, cache), budget
    )
    return Graphs(
        embedder=canonical,
        detector=found,
        served=ServedGraph(of_embedder.served.path, threads),
        served_detector=ServedGraph(of_detector.served.path, threads),
        embedder_spec=embedder_spec,
        detector_spec=detector_spec,
        sentinel=guard,
        ladder=of_embedder,
        detector_ladder=of_detector,
    )
