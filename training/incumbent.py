"""The bundle that stands where another is to be published, and the comparison that the gates judge."""

from __future__ import annotations

from collections.abc import Mapping

from bundle.folder import Bundle, open_bundle
from bundle.manifest import MANIFEST, Licence
from training.data.identities import Faces
from training.evaluation.results import Results
from training.export.graphs import Graphs
from training.export.measure import (
    measure_incumbent,
    measure_old_detector,
    paces,
    picture_paces,
    same_detector,
)
from training.export.sessions import served_graph
from training.gates import Candidate, Incumbent
from training.order import Order


def standing(order: Order) -> Bundle | None:
    """The bundle that would be replaced, if it is of the same name. Raises BundleError if it is damaged."""
    if order.first or not (order.to / MANIFEST).is_file():
        return None
    old = open_bundle(order.to)
    return old if old.manifest.name == order.bundle else None


def compared(
    order: Order,
    graphs: Graphs,
    results: Results,
    licence: Licence,
    terms: Mapping[str, str],
    old: Bundle | None,
    validation: Faces,
) -> tuple[Candidate, Incumbent | None]:
    """What the gates judge; the old bundle's models are run on the same faces and pictures now."""
    contenders = {"new": graphs.served.path} | ({"old": served_graph(old).path} if old else {})
    pace = paces(contenders, order.data / "reference" / "MobileFaceNet.onnx")
    candidate = Candidate(
        rungs=(*graphs.ladder.rungs, *graphs.detector_ladder.rungs),
        verdicts=results.verdicts,
        milliseconds=pace["new"],
        reference_milliseconds=pace.get("reference"),
        picture_milliseconds=picture_paces(
            graphs.served_detector.path,
            graphs.detector_spec,
            order.data / "reference" / "yunet_n_dynamic.onnx",
        ),
        sizes={
            "embedder": graphs.embedder.path.stat().st_size,
            "detector": graphs.detector.path.stat().st_size,
        },
        licence=licence,
        terms=terms,
        alike=results.alike,
    )
    if old is None:
        return candidate, None
    cache, detector = order.work / "cache", (graphs.served_detector, graphs.detector_spec)
    same = same_detector(old, *detector)
    less = None if same else measure_old_detector(old, *detector, order.data, cache)
    return candidate, Incumbent(
        old.manifest.model_id,
        fnmr_difference=measure_incumbent(old, graphs.served, validation, cache, order.standing.fmr),
        milliseconds=pace["old"],
        recall_difference=less.recall if less else None,
        ap_differences=less.average_precision if less else None,
        same_detector=same,
    )
