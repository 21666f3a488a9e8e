"""The graphs of a bundle: exported from trained models and checked against them before anything else looks at them, or
the detector's as another bundle has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bundle.manifest import DetectorSpec, EmbedderSpec, Variant
from bundle.preprocess import canvases_of
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
from training.export.taken_over import TakenOver


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
    variants: tuple[
        Variant, ...
    ]  # of each model the fastest first: the service takes the first that it can run
    taken_over: TakenOver | None = None  # where the detector is from, if it was not exported now

    @property
    def files(self) -> dict[str, Path]:
        """What goes into the bundle."""
        canonical: dict[str, Path] = {"embedder": self.embedder.path, "detector": self.detector.path}
        paths = [*canonical.values(), *(canonical[of.of].parent / of.file for of in self.variants)]
        return {path.name: path for path in paths}

    @property
    def parity(self) -> dict[str, dict[str, float]]:
        """By file, the published ones."""
        return {
            of.file: of.agreement.row()
            if of.kind == CANONICAL
            else of.cost(ladder.rungs[0].milliseconds or 0)
            for ladder in (self.ladder, self.detector_ladder)
            for of in ladder.rungs
            if of.published and of.agreement
        }


def export_graphs(
    embedder: Trained[Any, Any],
    detector: Trained[RetinaNet, DetectorConfig] | TakenOver,
    validation: Faces,
    photographs: Path,
    folder: Path,
    cache: Path,
    budget: EmbedderBudget | None = None,
    detector_budget: DetectorBudget | None = None,
    threads: int = 1,
) -> Graphs:
    """Write the graphs into `folder`, check and climb both parity ladders; raises ParityFailed.

    detector: one that is taken over stays where it is, and its ladder is the recorded one; validation: faces on which
    the embedder's forms are compared, and int8 is calibrated; photographs: the folder of the WIDER set, for the
    detector's; cache: for what they answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    budget = budget or EmbedderBudget()
    embedder_spec = EmbedderSpec(dimension=embedder.model.dimension)
    trained_embedder = export_embedder(embedder.model, folder / embedder_spec.file)
    canonical = ServedGraph(folder / embedder_spec.file, threads)
    try:
        guard = sentinel(lambda crops: canonical.run(crops)[0])
    except WrongAnswer as error:
        raise ParityFailed(f"{canonical.path.name}: {error}") from error
    if isinstance(detector, TakenOver):
        detector_spec, variants = detector.spec, detector.variants
        found, of_detector = detector.graphs()
    else:
        detector_spec = spec_of(detector.config)
        found, of_detector = _exported(
            detector.model, detector_spec, photographs, folder, cache, detector_budget
        )
        variants = variants_of("detector", found, of_detector)
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
        variants=(*variants_of("embedder", canonical, of_embedder), *variants),
        taken_over=detector if isinstance(detector, TakenOver) else None,
    )


def spec_of(config: DetectorConfig) -> DetectorSpec:
    """How a detector that was trained by `config` is run: on canvases that its coarsest stride divides."""
    layout = config.anchors
    return DetectorSpec(anchors=layout, canvases=canvases_of(max(layout.strides)))


def _exported(
    model: RetinaNet,
    spec: DetectorSpec,
    photographs: Path,
    folder: Path,
    cache: Path,
    budget: DetectorBudget | None,
) -> tuple[ServedGraph, Ladder]:
    """The detector's canonical graph, written into `folder`, and its ladder."""
    trained = export_detector(model, folder / spec.file)
    canonical = ServedGraph(folder / spec.file)
    forms = DetectorForms(trained, canonical, spec, photographs, cache)
    return canonical, climb(forms, budget or DetectorBudget())


def variants_of(
    role: Literal["embedder", "detector"], canonical: ServedGraph, ladder: Ladder
) -> tuple[Variant, ...]:
    """The forms that the ladder let through, the fastest first."""
    return tuple(
        Variant(
            file=of.file,
            of=role,
            kind=of.kind,
            derived_from=canonical.digest,
            backends=("onnxruntime",),
            cost=of.cost(ladder.rungs[0].milliseconds or 0),
        )
        for of in ladder.variants
    )
