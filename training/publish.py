"""From two models to a published bundle, read downwards: export → ladder → measure → gates → calibrate → write.

What is measured is the exported graphs, as served; of a detector that is taken over from another bundle, what was
recorded there. An older bundle is replaced only after every gate held, and stays byte for byte otherwise; the
calibration split is read for the calibration alone, and only once the models stand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bundle.folder import Bundle, write_bundle
from training import gates
from training.card import card_of
from training.config import BadConfig
from training.data.identities import BadData, Faces, load_faces
from training.evaluation import ablations, aligned
from training.evaluation.floors import judged
from training.evaluation.results import Results
from training.evaluation.scales import EVERY, PUBLISHED, VGA, Scale
from training.export.checkpoints import trained_detector, trained_embedder
from training.export.detection import measure_detection
from training.export.graphs import Graphs, export_graphs
from training.export.measure import calibrate, lfw_measured, likenesses, measure_recognition, operating_point
from training.export.parity import ParityFailed
from training.export.taken_over import take_over
from training.gates import Gate
from training.incumbent import compared, standing
from training.licence import Detector, Embedder, licence, terms, undrawn
from training.order import Order
from training.provenance import provenance

GATED_FMR = 1e-3


class Refused(Exception):
    """The bundle is not published, and what was there before stays; `reasons` says why, one a line."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def publish(order: Order) -> Bundle:
    """Publish at `order.to`, or raise Refused; either way `order.work / outcome.json` says what happened and why."""
    outcome: dict[str, Any] = {"to": str(order.to), "published": False, "reasons": []}
    try:
        bundle = _publish(order, outcome)
        outcome |= {"published": True, "model_id": bundle.manifest.model_id, "seal": bundle.manifest.seal}
        return bundle
    except ParityFailed as error:
        gate = gates.parity_gate((), failure=str(error))
        outcome |= {"gates": [gate.row()], "reasons": [str(gate)]}
        raise Refused(outcome["reasons"]) from error
    except Refused as error:
        outcome["reasons"] = error.reasons
        raise
    except Exception as error:
        outcome["reasons"] = [f"{type(error).__name__}: {error}"]
        raise
    finally:
        _tell(order.work / "outcome.json", outcome)


def evaluate(order: Order) -> Results:
    """Everything that `publish` measures, without a bundle; the calibration split stays unread."""
    validation = load_faces(order.data / "faces", "validation")
    return measured(order, _graphs(order, *_models(order), validation), validation, EVERY)


def measured(order: Order, graphs: Graphs, validation: Faces, scales: Sequence[Scale] = PUBLISHED) -> Results:
    """The graphs on validation data, beside the references, and the verdict on every floor.

    Both models are measured in the form that is served here, the fastest of those that the ladder let through.
    """
    cache, taken = order.work / "cache", graphs.taken_over
    people, ratio, overlap = measure_recognition(graphs.served, order.data, validation, cache)
    detection = (
        taken.detection
        if taken
        else measure_detection(
            graphs.served_detector, graphs.detector_spec, order.data, order.work, scales, order.without_faces
        )
    )
    gated = ratio[GATED_FMR].value if ratio and GATED_FMR in ratio else None
    less = min((of.value for of in detection.differences.get(VGA.name, {}).values()), default=None)
    return Results(
        recognition=people,
        fnmr_ratio=ratio,
        detection=detection,
        parity=graphs.parity,
        verdicts=judged(order.floors, people[0].lfw, gated, detection.recall, less),
        alike=taken.alike if taken else len(likenesses(order.data, cache)),
        lfw_measured=lfw_measured(order.data, cache),
        overlap=overlap,
        ablations=ablations.read_ablations(order.work.parent / ablations.FILE),
        aligned=None
        if taken
        else aligned.read_aligned(order.work.parent / aligned.FILE, graphs.detector.digest),
    )


def _publish(order: Order, outcome: dict[str, Any]) -> Bundle:
    created, cache = datetime.now(UTC).replace(microsecond=0), order.work / "cache"
    validation = load_faces(order.data / "faces", "validation")
    old = standing(order)
    embedder, detector = _models(order)
    if order.synthetic and (reasons := undrawn(embedder, detector)):
        raise Refused(reasons)
    graphs = _graphs(order, embedder, detector, validation)
    ladders = {"ladder": graphs.ladder.rungs, "detector_ladder": graphs.detector_ladder.rungs}
    outcome |= {name: {rung.kind: rung.row() for rung in rungs} for name, rungs in ladders.items()}
    results = measured(order, graphs, validation)
    outcome["floors"] = [asdict(verdict) for verdict in results.verdicts]
    stated = terms(order.data, order.synthetic, embedder, detector)
    claimed = licence(order.synthetic, stated, embedder)
    candidate, incumbent = compared(order, graphs, results, claimed, stated, old, validation)
    held = _hold(gates.judge(candidate, incumbent, order.standing), [], outcome)
    spec = graphs.detector_spec
    if not graphs.taken_over:
        spec = operating_point(graphs.served_detector, spec, order.data, cache)
    of = f"{'drawn' if order.synthetic else 'faces'}, split calibration"
    calibration, promise = calibrate(graphs, order.data, cache, of)
    outcome["calibration"] = promise
    held = _hold([gates.judge_calibration(promise["held_out_fmr"], order.standing)], held, outcome)
    results, made = replace(results, promise=promise), provenance(order, embedder, detector)
    card = card_of(order, graphs, results, calibration, (embedder, detector), claimed, made, created)
    files: dict[str, Path | bytes] = {**graphs.files, **card.pictures}
    size = sum(len(of) if isinstance(of, bytes) else of.stat().st_size for of in files.values())
    held = _hold([gates.judge_size(size + len(card.text(held)), order.standing)], held, outcome)
    decisions = {name: outcome[name] for name in ladders} | {"gates": {of.name: of.row() for of in held}}
    fields = {
        "name": order.bundle,
        "version": order.dated(created),
        "created": created,
        "licence": claimed,
        "detector": spec,
        "embedder": graphs.embedder_spec,
        "variants": graphs.variants,
        "calibration": calibration,
        "sentinel": graphs.sentinel,
        "metrics": results.metrics() | decisions,
        "provenance": made,
    }
    return write_bundle(order.to, fields, {**files, "REPORT.md": card.text(held)})


def _models(order: Order) -> tuple[Embedder, Detector]:
    """The embedder and the detector; a folder is a bundle whose detector is taken over.

    Raises UnreadableCheckpoint, BundleError, BadData; BadConfig where what is asked does not go together.
    """
    embedder = trained_embedder(order.embedder)
    if order.detector.is_dir():
        if order.without_faces:
            raise BadConfig(
                f"--faceless {order.without_faces}: the detector of {order.detector} is taken over with its figures, "
                "nothing of it is measured; leave --faceless out, or name a checkpoint as --detector"
            )
        return embedder, take_over(order.detector)
    detector = trained_detector(order.detector)
    if missing := [name for name in ("wider", "masks") if not (order.data / name).is_dir()]:
        raise BadData(
            f"{order.data}: no {' and no '.join(missing)}; a detector's checkpoint is measured on photographs with "
            "boxes: put them there, or take a published detector over as it is (--detector models/default)"
        )
    return embedder, detector


def _graphs(order: Order, embedder: Embedder, detector: Detector, validation: Faces) -> Graphs:
    return export_graphs(
        embedder,
        detector,
        validation,
        order.data / "wider",
        order.work / "graphs",
        order.work / "cache",
        order.standing.variants,
        order.standing.detector_variants,
        order.threads,
    )


def _hold(judged: Sequence[Gate], before: Sequence[Gate], outcome: dict[str, Any]) -> list[Gate]:
    """All gates so far, kept in `outcome`; raises Refused where one of `judged` does not hold."""
    every = [*before, *judged]
    outcome["gates"] = [gate.row() for gate in every]
    if reasons := [str(gate) for gate in judged if not gate.holds]:
        raise Refused(reasons)
    return every


def _tell(file: Path, outcome: Mapping[str, Any]) -> None:
    """What happened, for programs. A disk without room for it does not hide what that was."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(outcome, indent=2) + "\n")
    except OSError as error:
        print(f"{file} could not be written ({error})", file=sys.stderr)
