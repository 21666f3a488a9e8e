"""From two checkpoints to a published bundle, read downwards: export → parity → measure → floors → calibrate → write.

What is measured is the exported graphs, as served. An older bundle is replaced only after every floor held; the
calibration split is read for the calibration alone, and only once the models stand.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bundle.calibration import Calibration
from bundle.folder import Bundle, write_bundle
from bundle.manifest import DetectorSpec, Licence, Provenance
from training.config import REPOSITORY
from training.data.identities import Faces, load_faces
from training.evaluation import plots
from training.evaluation.floors import Floors, judged
from training.evaluation.report import card
from training.evaluation.results import About, Results
from training.export.checkpoints import Trained, trained_detector, trained_embedder
from training.export.graphs import Graphs, export_graphs
from training.export.measure import (
    calibrate,
    dataset_digests,
    lfw_measured,
    likenesses,
    measure_detection,
    measure_recognition,
    operating_point,
)
from training.export.parity import ParityFailed

GATED_FMR = 1e-3
RESEARCH = Licence(
    id="research-only",
    text="Research only. The weights were trained on pictures of people under non-commercial research terms, and the "
    "embedder with a teacher trained on MS1M; they inherit those terms. Not for commercial use.",
)
DRAWN = Licence(id="commercial", text="Apache-2.0, like the code: made from drawn pictures alone.")


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


def publish(order: Order) -> Bundle:
    """Publish at `order.to`, or raise Refused; either way `order.work / outcome.json` says what happened and why."""
    outcome: dict[str, Any] = {"to": str(order.to), "published": False, "reasons": []}
    try:
        bundle = _publish(order, outcome)
        outcome |= {"published": True, "model_id": bundle.manifest.model_id, "seal": bundle.manifest.seal}
        return bundle
    except ParityFailed as error:
        outcome["reasons"] = [f"parity: {error}"]
        raise Refused(outcome["reasons"]) from error
    except Refused as error:
        outcome["reasons"] = error.reasons
        raise
    except Exception as error:
        outcome["reasons"] = [f"{type(error).__name__}: {error}"]
        raise
    finally:
        order.work.mkdir(parents=True, exist_ok=True)
        (order.work / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")


def evaluate(order: Order) -> Results:
    """Everything that `publish` measures, without a bundle; the calibration split stays unread."""
    validation = load_faces(order.data / "faces", "validation")
    return measured(order, _graphs(order, validation)[2], validation)


def measured(order: Order, graphs: Graphs, validation: Faces) -> Results:
    """The graphs on validation data, beside the references, and the verdict on every floor.

    The embedder is measured through its rewritten form, three times as fast and, by the parity just checked on a
    tenth of these very faces, the same function to 1e-4 at most (in practice 1e-7).
    """
    cache = order.work / "cache"
    people, ratio = measure_recognition(graphs.rewritten, order.data, validation, cache)
    faces = measure_detection(graphs.detector, graphs.detector_spec, order.data, order.work)
    gated = ratio[GATED_FMR].value if ratio and GATED_FMR in ratio else None
    return Results(
        recognition=people,
        fnmr_ratio=ratio,
        finding=faces,
        parity=graphs.parity,
        verdicts=judged(order.floors, people[0].lfw, gated, faces[0].at_one.recall),
        duplicates=likenesses(order.data, cache),
        lfw_measured=lfw_measured(order.data, cache),
    )


def _publish(order: Order, outcome: dict[str, Any]) -> Bundle:
    validation = load_faces(order.data / "faces", "validation")
    embedder, detector, graphs = _graphs(order, validation)
    results = measured(order, graphs, validation)
    outcome["floors"] = [asdict(verdict) for verdict in results.verdicts]
    reasons = [str(verdict) for verdict in results.verdicts if not verdict.holds]
    if results.duplicates:
        reasons.append(f"{len(results.duplicates)} training photographs look like a validation photograph")
    if reasons:
        raise Refused(reasons)
    spec = operating_point(graphs.detector, graphs.detector_spec, order.data)
    of = f"{'drawn' if order.synthetic else 'faces'}, split calibration"
    calibration, promise = calibrate(graphs, order.data, order.work / "cache", of)
    outcome["calibration"] = promise
    return _write(order, (embedder, detector), graphs, spec, replace(results, promise=promise), calibration)


def _graphs(order: Order, validation: Faces) -> tuple[Trained[Any, Any], Trained[Any, Any], Graphs]:
    embedder, detector = trained_embedder(order.embedder), trained_detector(order.detector)
    some = validation.crops()[::10]
    return embedder, detector, export_graphs(embedder, detector, some, order.work / "graphs", order.threads)


def _write(
    order: Order,
    trained: tuple[Trained[Any, Any], Trained[Any, Any]],
    graphs: Graphs,
    spec: DetectorSpec,
    results: Results,
    calibration: Calibration,
) -> Bundle:
    embedder, detector = trained
    created = datetime.now(UTC).replace(microsecond=0)
    name, version = order.name or order.to.name, order.version or f"{created:%Y.%m.%d}"
    licence = DRAWN if order.synthetic else RESEARCH
    provenance = Provenance(
        datasets=dataset_digests(order.data),
        commit=commit(),
        configs={
            of: one.config.model_dump(mode="json") | {"steps": one.step}
            for of, one in (("embedder", embedder), ("detector", detector))
        },
        command=order.command,
    )
    figures = _figures(order, results, calibration)
    about = About(
        model_id=f"{name}@{version}",
        created=f"{created:%Y-%m-%d}",
        synthetic=order.synthetic,
        distilled=embedder.config.distillation_weight > 0,
        licence=licence.text,
        commit=provenance.commit,
        command=order.command,
        datasets=provenance.datasets,
        steps={"embedder": embedder.step, "detector": detector.step},
        figures={file: caption for file, (caption, _) in figures.items()},
    )
    fields = {
        "name": name,
        "version": version,
        "created": created,
        "licence": licence,
        "detector": spec,
        "embedder": graphs.embedder_spec,
        "variants": graphs.variants,
        "calibration": calibration,
        "metrics": results.metrics(),
        "provenance": provenance,
    }
    files: dict[str, Path | bytes] = {**graphs.files, "REPORT.md": card(about, results, calibration).encode()}
    return write_bundle(order.to, fields, files | {file: data for file, (_, data) in figures.items()})


def _figures(order: Order, results: Results, calibration: Calibration) -> Mapping[str, tuple[str, bytes]]:
    """File → caption and PNG."""
    runs = {
        name: of.parent / "metrics.jsonl"
        for name, of in (("embedder", order.embedder), ("detector", order.detector))
    }
    return {
        "report-recognition.png": (
            "DET on validation and our scores",
            plots.embedder_figure(results.recognition),
        ),
        "report-detection.png": (
            "Precision and recall, and recall by height",
            plots.detector_figure(results.finding),
        ),
        "report-calibration.png": ("False match rate by threshold", plots.calibration_figure(calibration)),
        "report-training.png": ("The two training runs", plots.training_figure(runs)),
    }


def commit() -> str:
    """The working tree's commit, with "+changes" where files differ from it; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--verify", "HEAD")
    return (head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")) or "unknown"
