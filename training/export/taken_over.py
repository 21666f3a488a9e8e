"""The detector of a published bundle, taken over byte for byte: its graphs, how they are read, and what is on record.

For those who train an embedder of their own and have no boxed photographs to judge a detector with. Nothing of it is
measured anew; that its graphs run here, and answer a picture alike in every batch, is asked of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from bundle.folder import Bundle, open_bundle
from bundle.manifest import MANIFEST, DetectorSpec, Variant
from training.config import wrong_values
from training.data.identities import BadData
from training.evaluation.recorded import RecordedDetection
from training.export.ladder import CANONICAL, PICTURES, Ladder, Rung
from training.export.parity import FoundAgreement, ParityFailed, check_detector_batches
from training.export.sessions import ServedGraph, served_graph
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.lineage import LINEAGE, Lineage, lineage_of
from training.loop.records import PHOTOGRAPHS, Records, records_of

FIGURE = "report-detection.png"
_RUNG: TypeAdapter[Rung] = TypeAdapter(Rung)


@dataclass(frozen=True)
class TakenOver:
    """What a bundle holds and says of its detector.

    rungs: of the ladder, the canonical graph's first; alike: training photographs that look like a validation
    photograph; recorded: the manifest's own account of the training.
    """

    bundle: Bundle
    detection: RecordedDetection
    rungs: tuple[Rung, ...]
    alike: int
    recorded: Mapping[str, Any]
    step: int
    lineage: Lineage
    records: Records

    @property
    def spec(self) -> DetectorSpec:
        """The operating point belongs to the graph."""
        return self.bundle.manifest.detector

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(of for of in self.bundle.manifest.variants if of.of == "detector")

    def provenance(self) -> dict[str, Any]:
        """As the manifest keeps it: as it was kept."""
        return dict(self.recorded)

    def figure(self) -> bytes | None:
        """The PNG of its figures, where the bundle has one."""
        files = self.bundle.manifest.files
        return self.bundle.file(FIGURE).read_bytes() if FIGURE in files else None

    def graphs(self) -> tuple[ServedGraph, Ladder]:
        """The canonical graph, and the ladder with the form that is served here.

        Raises ParityFailed for a form that does not run here, or whose answers are not finite or change with the
        batch.
        """
        for name in (self.spec.file, *(of.file for of in self.variants)):
            _check(self.bundle.file(name), self.spec)
        canonical = ServedGraph(self.bundle.file(self.spec.file))
        return canonical, Ladder(self.rungs, served_graph(self.bundle, "detector"))


def take_over(path: Path) -> TakenOver:
    """The detector of the bundle at `path`.

    Raises BundleError for a damaged one, and BadData for a folder that is none, or for one whose manifest lacks what
    publishing records.
    """
    if not (path / MANIFEST).is_file():
        raise BadData(
            f"{path}: no bundle, for it has no {MANIFEST}; name a published bundle's folder (models/default), or a "
            "checkpoint (a run's last.pt)"
        )
    bundle = open_bundle(path)
    manifest, metrics = bundle.manifest, cast(Mapping[str, Any], bundle.manifest.metrics)
    files = {manifest.detector.file, *(of.file for of in manifest.variants if of.of == "detector")}
    try:
        recorded = manifest.provenance.configs["detector"]
        state = {LINEAGE: recorded[LINEAGE], PHOTOGRAPHS: recorded["records"], "step": recorded["steps"]}
        return TakenOver(
            bundle,
            detection=RecordedDetection.of(
                manifest.model_id,
                manifest.files[manifest.detector.file].sha256,
                metrics["detection"],
                _report(bundle),
            ),
            rungs=_rungs(metrics["detector_ladder"], files),
            alike=int(metrics["training_photographs_like_validation"]),
            recorded=recorded,
            step=int(recorded["steps"]),
            lineage=lineage_of(state, path),
            records=records_of(state, path),
        )
    except KeyError as error:
        reason = f"{error} is missing"
    except ValidationError as error:
        reason = wrong_values(error)
    except (AttributeError, TypeError, ValueError, UnreadableCheckpoint) as error:
        reason = str(error)
    raise BadData(
        f"{path}: its manifest does not record how its detector was made and measured ({reason}); only a bundle that "
        "`python -m training publish` wrote can be taken over from"
    )


def _report(bundle: Bundle) -> str:
    if "REPORT.md" not in bundle.manifest.files:
        return ""
    return bundle.file("REPORT.md").read_text("utf-8")


def _rungs(ladder: Mapping[str, Mapping[str, Any]], files: set[str]) -> tuple[Rung, ...]:
    """The rungs that `Rung.row` wrote. Raises ValueError where those that were published are not the bundle's files."""
    rungs = tuple(_rung(kind, row) for kind, row in ladder.items())
    published = [of for of in rungs if of.published]
    if not published or published[0].kind != CANONICAL or not all(of.agreement for of in published):
        raise ValueError("the ladder does not tell how near its graph is to the trained model")
    if (told := {of.file for of in published}) != files:
        raise ValueError(
            f"the ladder tells of {', '.join(sorted(told))}, the bundle holds {', '.join(sorted(files))}"
        )
    return rungs


def _rung(kind: str, row: Mapping[str, Any]) -> Rung:
    named = {of.name for of in fields(FoundAgreement)}
    near = {name: math.nan if value is None else value for name, value in row.items() if name in named}
    return _RUNG.validate_python(
        {
            "kind": kind,
            "file": row["file"],
            "published": row["published"],
            "reason": row["reason"],
            "agreement": near or None,
            "milliseconds": row[f"milliseconds_a_{PICTURES.unit}"],
            "megabytes": row["megabytes"],
            "difference": row[f"{PICTURES.rate}_difference"],
            "told": PICTURES,
        }
    )


def _check(path: Path, spec: DetectorSpec) -> None:
    try:
        check_detector_batches(ServedGraph(path), spec.canvases[0])
    except ParityFailed:
        raise
    except (
        Exception
    ) as error:  # ONNX Runtime has a kind of its own for everything that can be wrong with a graph
        raise ParityFailed(f"{path.name}: does not run here ({error})") from error
