"""From two checkpoints to a published bundle, read downwards: export → ladder → measure → gates → calibrate → write.

What is measured is the exported graphs, as served. An older bundle is replaced only after every gate held, and stays
byte for byte otherwise; the calibration split is read for the calibration alone, and only once the models stand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bundle.calibration import Calibration
from bundle.folder import Bundle, open_bundle, write_bundle
from bundle.manifest import MANIFEST, Licence, Provenance
from training import gates
from training.config import REPOSITORY
from training.data import synthetic
from training.data.identities import Faces, load_faces
from training.embedder.records import REFERENCE
from training.evaluation import ablations, plots
from training.evaluation.floors import Floors, judged
from training.evaluation.report import card
from training.evaluation.results import About, Results
from training.evaluation.scales import EVERY, PUBLISHED, Scale
from training.export import ladder
from training.export.checkpoints import Trained, trained_detector, trained_embedder
from training.export.detection import measure_detection
from training.export.graphs import Graphs, export_graphs
from training.export.measure import (
    calibrate,
    data_terms,
    dataset_digests,
    incumbent_graph,
    lfw_measured,
    likenesses,
    measure_incumbent,
    measure_old_detector,
    measure_recognition,
    operating_point,
    paces,
    stated,
    told_terms,
)
from training.export.parity import ParityFailed
from training.gates import Candidate, Gate, Incumbent, Policy
from training.loop.lineage import LINEAGE
from training.loop.records import NOT_RECORDED, AnyRecord, Record, TeacherRecord

GATED_FMR = 1e-3
RESEARCH = Licence(
    id="research-only",
    text="Research only. The weights inherit the strictest terms of what they were made from, and not all of that "
    "states that commercial use is allowed: REPORT.md lists it. Not for commercial use.",
)
DISTILLED = Licence(
    id="research-only",
    text="Research only. The weights inherit the strictest terms of what they were made from, the embedder's teacher, "
    "which was trained on MS1M, included: REPORT.md lists it. Not for commercial use.",
)
STATED = Licence(
    id="commercial",
    text="Commercial use is allowed, as far as the terms go that every data set and teacher states: each says so.",
)
DRAWN = Licence(id="commercial", text="Apache-2.0, like the code: made from drawn pictures alone.")
PRINTED = {"mobilefacenet": "MobileFaceNet"}  # backbones as the report names them


class Refused(Exception):
    """The bundle is not published, and what was there before stays; `reasons` says why, one a line."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Order:
    """What to publish, from what, and where. `work` keeps graphs, caches, overlays and outcome.json."""

    embedder: Path  # a checkpoint
    detector: Path  # a checkpoint
    data: Path
    to: Path
    work: Path
    floors: Floors
    command: str
    synthetic: bool = False
    name: str = ""  # of the bundle; the folder's where empty
    version: str = ""  # the day's date where empty
    threads: int = 1
    policy: Policy | None = None  # of the gates; where None the repository's, for real or for drawn data
    without_faces: Path | None = None  # pictures on which every face that is found is false
    first: bool = False  # not compared with the bundle that is there, whatever its name


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


def _tell(file: Path, outcome: Mapping[str, Any]) -> None:
    """What happened, for programs. A disk without room for it does not hide what that was."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(outcome, indent=2) + "\n")
    except OSError as error:
        print(f"{file} could not be written ({error})", file=sys.stderr)


def evaluate(order: Order) -> Results:
    """Everything that `publish` measures, without a bundle; the calibration split stays unread."""
    validation = load_faces(order.data / "faces", "validation")
    return measured(order, _graphs(order, *_trained(order), validation, _policy(order)), validation, EVERY)


def measured(order: Order, graphs: Graphs, validation: Faces, scales: Sequence[Scale] = PUBLISHED) -> Results:
    """The graphs on validation data, beside the references, and the verdict on every floor.

    Both models are measured in the form that is served here, the fastest of those that the ladder let through.
    """
    cache = order.work / "cache"
    people, ratio, overlap = measure_recognition(graphs.served, order.data, validation, cache)
    faces = measure_detection(
        graphs.served_detector, graphs.detector_spec, order.data, order.work, scales, order.without_faces
    )
    gated = ratio[GATED_FMR].value if ratio and GATED_FMR in ratio else None
    return Results(
        recognition=people,
        fnmr_ratio=ratio,
        detection=faces,
        parity=graphs.parity,
        verdicts=judged(order.floors, people[0].lfw, gated, faces.served.at_one.recall),
        duplicates=likenesses(order.data, cache),
        lfw_measured=lfw_measured(order.data, cache),
        overlap=overlap,
        ablations=ablations.read_ablations(order.work.parent / ablations.FILE),
    )


def _publish(order: Order, outcome: dict[str, Any]) -> Bundle:
    policy, created = _policy(order), datetime.now(UTC).replace(microsecond=0)
    validation = load_faces(order.data / "faces", "validation")
    old = _incumbent(order)
    embedder, detector = _trained(order)
    if order.synthetic:
        _refuse_undrawn(embedder, detector)
    graphs = _graphs(order, embedder, detector, validation, policy)
    outcome["ladder"] = {rung.kind: rung.row() for rung in graphs.ladder.rungs}
    outcome["detector_ladder"] = {rung.kind: rung.row() for rung in graphs.detector_ladder.rungs}
    results = measured(order, graphs, validation)
    outcome["floors"] = [asdict(verdict) for verdict in results.verdicts]
    terms = _terms(order, embedder, detector)
    licence = _licence(order, terms, embedder)
    candidate, incumbent = _compared(order, graphs, results, licence, terms, old, validation, policy)
    held = _hold(gates.judge(candidate, incumbent, policy), [], outcome)
    spec = operating_point(graphs.served_detector, graphs.detector_spec, order.data, order.work / "cache")
    of = f"{'drawn' if order.synthetic else 'faces'}, split calibration"
    calibration, promise = calibrate(graphs, order.data, order.work / "cache", of)
    outcome["calibration"] = promise
    held = _hold([gates.judge_calibration(promise["held_out_fmr"], policy)], held, outcome)
    results = replace(results, promise=promise)
    provenance = _provenance(order, embedder, detector)
    figures = _figures(order, results, calibration)
    about = _about(order, licence, embedder, detector, provenance, figures, created)
    text = card(about, results, calibration)
    pictures = {file: data for file, (_, data) in figures.items()}
    size = sum(path.stat().st_size for path in graphs.files.values()) + sum(map(len, pictures.values()))
    size += len(_with_decisions(text, graphs, held))
    held = _hold([gates.judge_size(size, policy)], held, outcome)
    decisions = {name: outcome[name] for name in ("ladder", "detector_ladder")}
    decisions["gates"] = {gate.name: gate.row() for gate in held}
    fields = {
        "name": _name(order),
        "version": _version(order, created),
        "created": created,
        "licence": licence,
        "detector": spec,
        "embedder": graphs.embedder_spec,
        "variants": graphs.variants,
        "calibration": calibration,
        "sentinel": graphs.sentinel,
        "metrics": results.metrics() | decisions,
        "provenance": provenance,
    }
    report = _with_decisions(text, graphs, held)
    return write_bundle(order.to, fields, {**graphs.files, **pictures, "REPORT.md": report})


def _policy(order: Order) -> Policy:
    return order.policy or gates.standing_policy(order.synthetic)


def _incumbent(order: Order) -> Bundle | None:
    """The bundle that would be replaced, if it is of the same name. Raises BundleError if it is damaged."""
    if order.first or not (order.to / MANIFEST).is_file():
        return None
    old = open_bundle(order.to)
    return old if old.manifest.name == _name(order) else None


def _compared(
    order: Order,
    graphs: Graphs,
    results: Results,
    licence: Licence,
    terms: Mapping[str, str],
    old: Bundle | None,
    validation: Faces,
    policy: Policy,
) -> tuple[Candidate, Incumbent | None]:
    """What the gates judge; the old bundle's models are run on the same faces and pictures now."""
    contenders = {"new": graphs.served.path} | ({"old": incumbent_graph(old).path} if old else {})
    pace = paces(contenders, order.data / "reference" / "MobileFaceNet.onnx")
    candidate = Candidate(
        rungs=(*graphs.ladder.rungs, *graphs.detector_ladder.rungs),
        verdicts=results.verdicts,
        milliseconds=pace["new"],
        reference_milliseconds=pace.get("reference"),
        sizes={
            "embedder": graphs.embedder.path.stat().st_size,
            "detector": graphs.detector.path.stat().st_size,
        },
        licence=licence,
        terms=terms,
        alike=len(results.duplicates),
    )
    if old is None:
        return candidate, None
    cache = order.work / "cache"
    return candidate, Incumbent(
        old.manifest.model_id,
        fnmr_difference=measure_incumbent(old, graphs.served, validation, cache, policy.fmr),
        milliseconds=pace["old"],
        recall_difference=measure_old_detector(
            old, graphs.served_detector, graphs.detector_spec, order.data, cache
        ),
    )


def _hold(judged: Sequence[Gate], before: Sequence[Gate], outcome: dict[str, Any]) -> list[Gate]:
    """All gates so far, kept in `outcome`; raises Refused where one of `judged` does not hold."""
    every = [*before, *judged]
    outcome["gates"] = [gate.row() for gate in every]
    if reasons := [str(gate) for gate in judged if not gate.holds]:
        raise Refused(reasons)
    return every


def _trained(order: Order) -> tuple[Trained[Any, Any], Trained[Any, Any]]:
    """The embedder and the detector."""
    return trained_embedder(order.embedder), trained_detector(order.detector)


def _refuse_undrawn(embedder: Trained[Any, Any], detector: Trained[Any, Any]) -> None:
    """Raises Refused, naming each set and teacher that the checkpoints do not record as drawn."""
    if undrawn := [
        f"the {role} learnt from more than drawn pictures ({of}): train it anew with --synthetic"
        for role, model in (("embedder", embedder), ("detector", detector))
        for of in model.records
        if of.terms != synthetic.TERMS or _densely_taught(of)
    ]:
        raise Refused(undrawn)


def _densely_taught(of: AnyRecord) -> bool:
    return isinstance(of, Record) and ("imitates" in of.labels or "pseudo" in of.labels)


def _graphs(
    order: Order,
    embedder: Trained[Any, Any],
    detector: Trained[Any, Any],
    validation: Faces,
    policy: Policy,
) -> Graphs:
    return export_graphs(
        embedder,
        detector,
        validation,
        order.data / "wider",
        order.work / "graphs",
        order.work / "cache",
        policy.variants,
        policy.detector_variants,
        order.threads,
    )


def _name(order: Order) -> str:
    return order.name or order.to.name


def _version(order: Order, created: datetime) -> str:
    return order.version or f"{created:%Y.%m.%d}"


def _terms(order: Order, embedder: Trained[Any, Any], detector: Trained[Any, Any]) -> dict[str, str]:
    """Of everything below the data sets' folder, and of what the checkpoints record, which is all that they and those
    that they were begun with have learnt from."""
    terms: dict[str, str] = {**data_terms(order.data)}
    if order.synthetic:  # made of nothing else: see `_refuse_undrawn`
        return terms
    for role, model in (("embedder", embedder), ("detector", detector)):
        for of in model.records:
            if terms.get(of.name) != stated(of.terms):
                terms[f"the {role}'s {of.name}"] = stated(of.terms)
            if _densely_taught(of):
                terms[f"the dense teacher of {of.name}"] = RESEARCH.id
    return terms


def _licence(order: Order, terms: Mapping[str, str], embedder: Trained[Any, Any]) -> Licence:
    if order.synthetic:
        return DRAWN
    if gates.strictest(terms) == STATED.id:
        return STATED
    return DISTILLED if _taught_by_reference(embedder) else RESEARCH


def _taught_by_reference(embedder: Trained[Any, Any]) -> bool:
    """Whether its teacher was the reference embedder; taken to be so where a distilled run did not record it."""
    return any(
        of.sha256 == REFERENCE
        if isinstance(of, TeacherRecord)
        else of.name == NOT_RECORDED and embedder.config.distilled
        for of in embedder.records
    )


def _provenance(order: Order, embedder: Trained[Any, Any], detector: Trained[Any, Any]) -> Provenance:
    return Provenance(
        datasets=dataset_digests(order.data),
        commit=commit(),
        configs={"embedder": _config(embedder), "detector": _config(detector)},
        command=order.command,
    )


def _config(of: Trained[Any, Any]) -> dict[str, Any]:
    """What the model was trained with and learnt from."""
    return of.config.model_dump(mode="json") | {
        "steps": of.step,
        LINEAGE: [each.model_dump() for each in of.lineage],
        "records": [each.model_dump(mode="json") for each in of.records],
    }


def _about(
    order: Order,
    licence: Licence,
    embedder: Trained[Any, Any],
    detector: Trained[Any, Any],
    provenance: Provenance,
    figures: Mapping[str, tuple[str, bytes]],
    created: datetime,
) -> About:
    return About(
        model_id=f"{_name(order)}@{_version(order, created)}",
        created=f"{created:%Y-%m-%d}",
        synthetic=order.synthetic,
        distilled=_taught_by_reference(embedder),
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


def _with_decisions(text: str, graphs: Graphs, held: Sequence[Gate]) -> bytes:
    """REPORT.md: the card, and the two lists that say what was let through, and why."""
    lines = "\n".join(f"- {gate}" for gate in held)
    return (
        f"{text}\n## Forms of the embedder\n\nEach against the canonical graph, and that against the trained model, on "
        "the golden inputs and on faces of `validation`; ONNX Runtime on a CPU, one thread, processor time.\n\n"
        f"{ladder.table(graphs.ladder.rungs)}\n\n## Forms of the detector\n\nLikewise, on the pictures held out for "
        "selection; recall at one false positive a picture, the canonical graph against the trained model on golden "
        "scenes and every tenth picture.\n\n"
        f"{ladder.table(graphs.detector_ladder.rungs)}\n\n## Gates\n\nEach held:\n\n{lines}\n"
    ).encode()


def _figures(order: Order, results: Results, calibration: Calibration) -> Mapping[str, tuple[str, bytes]]:
    """File → caption and PNG."""
    runs = {
        name: of.parent / "metrics.jsonl"
        for name, of in (("embedder", order.embedder), ("detector", order.detector))
    }
    figures = {
        "report-recognition.png": (
            "DET and our scores, on validation and on all pairs of the verification pictures",
            plots.embedder_figure(results.recognition),
        ),
        "report-identification.png": (
            "One to many: FNIR over FPIR",
            plots.identification_figure(results.recognition),
        ),
        "report-detection.png": (
            "Precision and recall, WIDER's AP, and recall by height and by the share of the frame",
            plots.detector_figure(results.detection),
        ),
        "report-calibration.png": ("False match rate by threshold", plots.calibration_figure(calibration)),
        "report-promise.png": (
            "FPIR asked for and realised, by the size of the gallery",
            plots.promise_figure(results.promise or {}),
        ),
        "report-training.png": ("The two training runs", plots.training_figure(runs)),
    }
    if results.ablations:
        figures["report-ablations.png"] = (
            "FNMR by the size of the training set, with the teacher and without",
            plots.ablation_figure(results.ablations),
        )
    return figures


def commit() -> str:
    """The working tree's commit, with "+changes" where files differ from it; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--verify", "HEAD")
    return (head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")) or "unknown"
