"""Under which terms a bundle stands: the strictest of what its models learnt from and of what measured them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.manifest import Licence
from training import gates
from training.data import synthetic
from training.embedder.records import REFERENCE
from training.export.checkpoints import Trained
from training.export.measure import data_terms, stated
from training.export.taken_over import TakenOver
from training.loop.records import NOT_RECORDED, AnyRecord, Record, TeacherRecord

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

Embedder = Trained[Any, Any]
Detector = Trained[Any, Any] | TakenOver


def undrawn(embedder: Embedder, detector: Detector) -> list[str]:
    """Each set and teacher that the models do not record as drawn, in words."""
    return [
        f"the {role} learnt from more than drawn pictures ({of}): train it anew with --synthetic"
        for role, records in (("embedder", embedder.records), ("detector", detector.records))
        for of in records
        if of.terms != synthetic.TERMS or _densely_taught(of)
    ]


def terms(data: Path, drawn: bool, embedder: Embedder, detector: Detector) -> dict[str, str]:
    """Of everything below the data sets' folder, of what the models record, which is all that they and those that they
    were begun with have learnt from, and of the bundle that a detector is taken over from.

    drawn: the models are made of nothing else than the sets (see `undrawn`).
    """
    told: dict[str, str] = {**data_terms(data)}
    if isinstance(detector, TakenOver):  # whatever its records say: nobody may pass it on under wider terms
        source = detector.bundle.manifest
        told[f"the detector's bundle {source.model_id}"] = source.licence.id
    if drawn:
        return told
    for role, records in (("embedder", embedder.records), ("detector", detector.records)):
        for of in records:
            if told.get(of.name) != stated(of.terms):
                told[f"the {role}'s {of.name}"] = stated(of.terms)
            if _densely_taught(of):
                told[f"the dense teacher of {of.name}"] = RESEARCH.id
    return told


def licence(drawn: bool, terms: Mapping[str, str], embedder: Embedder) -> Licence:
    """What the bundle may claim. drawn: it is published as made from drawn pictures; a gate judges that claim."""
    if drawn:
        return DRAWN
    if gates.strictest(terms) == STATED.id:
        return STATED
    return DISTILLED if taught_by_reference(embedder) else RESEARCH


def taught_by_reference(embedder: Embedder) -> bool:
    """Whether its teacher was the reference embedder; taken to be so where a distilled run did not record it."""
    return any(
        of.sha256 == REFERENCE
        if isinstance(of, TeacherRecord)
        else of.name == NOT_RECORDED and embedder.config.distilled
        for of in embedder.records
    )


def _densely_taught(of: AnyRecord) -> bool:
    return isinstance(of, Record) and ("imitates" in of.labels or "pseudo" in of.labels)
