"""What a bundle tells people: REPORT.md, and the figures in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import onnx

from bundle.calibration import Calibration
from bundle.manifest import Licence, Provenance
from training.evaluation import plots, report
from training.evaluation.recorded import RecordedDetection
from training.evaluation.results import About, Results
from training.export import ladder
from training.export.graphs import Graphs
from training.export.measure import told_terms
from training.export.taken_over import FIGURE
from training.gates import Gate
from training.licence import Detector, Embedder, taught_by_reference
from training.order import Order

Figures = Mapping[str, tuple[str, bytes]]  # file → caption and PNG

PRINTED = {"mobilefacenet": "MobileFaceNet"}  # backbones as the report names them


@dataclass(frozen=True)
class Card:
    """pictures: file → PNG; reference: the reference embedder's graph, which may be absent."""

    about: About
    results: Results
    calibration: Calibration
    graphs: Graphs
    pictures: Mapping[str, bytes]
    reference: Path

    def text(self, held: Sequence[Gate]) -> bytes:
        """REPORT.md: what was measured, and the lists that say what was let through, and why."""
        of, lines = self.results.detection, "\n".join(f"- {gate}" for gate in held)
        detector, judged = (
            (
                f"As {of.origin} recorded it when it was published; that they run here was seen to, and no more.",
                f", the detector by what {of.origin} recorded",
            )
            if isinstance(of, RecordedDetection)
            else (
                "Likewise, on the pictures held out for selection; recall at one false positive a picture, the "
                "canonical graph against the trained model on golden scenes and every tenth picture.",
                "",
            )
        )
        return (
            f"{report.card(self.about, self.results, self.calibration)}\n## Forms of the embedder\n\nEach against the "
            "canonical graph, and that against the trained model, on the golden inputs and on faces of `validation`; "
            f"ONNX Runtime on a CPU, one thread, processor time.\n\n{ladder.table(self.graphs.ladder.rungs)}\n\n"
            f"## Forms of the detector\n\n{detector}\n\n{ladder.table(self.graphs.detector_ladder.rungs)}\n\n"
            f"## Gates\n\nEach held{judged}:\n\n{lines}\n{self._not_rewritten()}"
        ).encode()

    def _not_rewritten(self) -> str:
        """Of the reference, beside which our rewritten form was timed."""
        rewritten = any(of.kind == ladder.EXACT and of.published for of in self.graphs.ladder.rungs)
        if not rewritten or not self.reference.is_file():
            return ""
        operators = {node.op_type for node in onnx.load(self.reference).graph.node}
        if "PRelu" in operators or "Clip" not in operators:  # Clip is how ONNX writes ReLU6
            return ""
        return (
            "\nThe reference embedder is timed as it is: it has ReLU6 and no PReLU, so the rewrite that ours is served "
            "with would change nothing in it.\n"
        )


def card_of(
    order: Order,
    graphs: Graphs,
    results: Results,
    calibration: Calibration,
    models: tuple[Embedder, Detector],
    licence: Licence,
    provenance: Provenance,
    created: datetime,
) -> Card:
    """The card of the bundle that is made of `graphs`. models: what they were exported from."""
    embedder, detector = models
    figures = _figures(order, graphs, results, calibration)
    about = About(
        model_id=f"{order.bundle}@{order.dated(created)}",
        created=f"{created:%Y-%m-%d}",
        synthetic=order.synthetic,
        distilled=taught_by_reference(embedder),
        licence=licence.text,
        commit=provenance.commit,
        command=order.command,
        datasets=provenance.datasets,
        steps={"embedder": embedder.step, "detector": detector.step},
        lineage=embedder.lineage,
        records={"embedder": embedder.records, "detector": detector.records},
        sets=told_terms(order.data),
        figures={file: caption for file, (caption, _) in figures.items()},
        embedder=PRINTED.get(embedder.config.backbone, embedder.config.backbone),
    )
    pictures = {file: png for file, (_, png) in figures.items()}
    reference = order.data / "reference" / "MobileFaceNet.onnx"
    return Card(about, results, calibration, graphs, pictures, reference)


def _figures(order: Order, graphs: Graphs, results: Results, calibration: Calibration) -> Figures:
    named = any(of.on_lfw and of.on_lfw.named for of in results.recognition)
    pairs = " and on all pairs of the verification pictures" if named else ""
    figures = {
        "report-recognition.png": (
            f"DET and our scores, on validation{pairs}",
            plots.embedder_figure(results.recognition),
        ),
        "report-identification.png": (
            "One to many: FNIR over FPIR",
            plots.identification_figure(results.recognition),
        ),
        **_of_detection(graphs, results),
        "report-calibration.png": ("False match rate by threshold", plots.calibration_figure(calibration)),
        "report-promise.png": (
            "FPIR asked for and realised, by the size of the gallery",
            plots.promise_figure(results.promise or {}),
        ),
        "report-training.png": _of_training(order, graphs),
    }
    if results.ablations:
        figures["report-ablations.png"] = (
            "FNMR by the size of the training set, with the teacher and without",
            plots.ablation_figure(results.ablations),
        )
    return figures


def _of_detection(graphs: Graphs, results: Results) -> Figures:
    caption = "Precision and recall, WIDER's AP, and recall by height and by the share of the frame"
    of = results.detection
    if not isinstance(of, RecordedDetection):
        return {FIGURE: (caption, plots.detector_figure(of))}
    png = graphs.taken_over.figure() if graphs.taken_over else None
    return {FIGURE: (f"{caption}; drawn when {of.origin} was published", png)} if png else {}


def _of_training(order: Order, graphs: Graphs) -> tuple[str, bytes]:
    runs = {"embedder": order.embedder.parent / "metrics.jsonl"}
    if graphs.taken_over:
        return "The embedder's training run", plots.training_figure(runs)
    runs["detector"] = order.detector.parent / "metrics.jsonl"
    return "The two training runs", plots.training_figure(runs)
