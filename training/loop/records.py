"""What a run has learnt from, sets and teachers, each with its terms, as its checkpoints keep it.

In a detector's checkpoint it is a list under PHOTOGRAPHS, a set each, the earliest first: [{"name": "wider",
"pictures": 1109, "faces": 5862, "names": "…", "labels": "official, …", "terms": "…"}, …]; in an embedder's one under
LEARNT_FROM, of sets of faces and of teachers. What a resumed run no longer reads stays in it, and so does what a run
was trained on whose weights another begins with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from training.config import RunConfig, wrong_values
from training.loop.checkpoint import UnreadableCheckpoint

PHOTOGRAPHS = "photographs"
LEARNT_FROM = "learnt_from"
NOT_RECORDED = "not recorded"  # the name of what an older checkpoint was trained on
NOT_STATED = "not stated"  # the terms of what states none


class Record(RunConfig):
    """A set of photographs. faces: that somebody boxed, ignored ones apart; names: SHA-256 of the pictures' names, one
    a line in order; labels: "official, …" where people boxed the faces, "pseudo, by …" where a program alone did;
    left_out: pictures that are none of these, for they look like one that is measured with; None: not compared."""

    name: str
    pictures: int = Field(ge=0)
    faces: int = Field(ge=0)
    names: str
    labels: str
    terms: str = NOT_STATED
    left_out: int | None = Field(None, ge=0)

    def __str__(self) -> str:
        known = f"{self.pictures:,} pictures, {self.faces:,} boxed faces; {self.labels}"
        if self.left_out is not None:
            whole = self.pictures + self.left_out
            known += f"; {whole:,} compared with the validation pictures, {self.left_out:,} left out"
        return _told(self, known)


class FaceRecord(RunConfig):
    """Faces of a set, one a picture. digest: SHA-256 that changes with the whole set; labels: "official" where its own
    folders or table say who is who; sources: where the set has its faces from, the largest first."""

    kind: Literal["faces"] = "faces"
    name: str
    identities: int = Field(ge=0)
    faces: int = Field(ge=0)
    digest: str
    labels: str
    sources: tuple[str, ...] = ()
    terms: str = NOT_STATED

    def __str__(self) -> str:
        of = f" of {', '.join(self.sources)}" if self.sources else ""
        return _told(self, f"{self.identities:,} identities, {self.faces:,} faces{of}; {self.labels}")


class TeacherRecord(RunConfig):
    """An embedder whose embeddings were learnt. sha256: of its file."""

    kind: Literal["teacher"] = "teacher"
    name: str
    sha256: str
    terms: str = NOT_STATED

    def __str__(self) -> str:
        return f"{self.name}: a teacher, sha256:{self.sha256}; terms: {self.terms}"


AnyRecord = Record | FaceRecord | TeacherRecord
Records = tuple[Record, ...]
LearntFrom = tuple[Annotated[FaceRecord | TeacherRecord, Field(discriminator="kind")], ...]
Kept = TypeVar("Kept", bound=tuple[AnyRecord, ...])
_RECORDS: TypeAdapter[Records] = TypeAdapter(Records)
_LEARNT_FROM: TypeAdapter[LearntFrom] = TypeAdapter(LearntFrom)


def records_of(state: Mapping[str, Any], source: Path) -> Records:
    """What the detector's checkpoint `state`, read from `source`, was trained on. Raises UnreadableCheckpoint.

    One that is older than these records has a single one, which says that nobody knows.
    """
    if PHOTOGRAPHS not in state:
        return (Record(name=NOT_RECORDED, pictures=0, faces=0, names="", labels=_unknown(state)),)
    return _read(_RECORDS, state[PHOTOGRAPHS], source)


def learnt_from(state: Mapping[str, Any], source: Path) -> LearntFrom:
    """What the embedder's checkpoint `state` was trained on, and likewise."""
    if LEARNT_FROM not in state:
        return (FaceRecord(name=NOT_RECORDED, identities=0, faces=0, digest="", labels=_unknown(state)),)
    return _read(_LEARNT_FROM, state[LEARNT_FROM], source)


def united(earlier: Kept, now: Kept) -> Kept:
    """All of them, each once; where the same pictures were compared later with those to measure with, it is said."""
    each: dict[AnyRecord, AnyRecord] = {}
    for of in (*earlier, *now):
        same = of.model_copy(update={"left_out": None}) if isinstance(of, Record) else of
        if same not in each or each[same] == same:
            each[same] = of
    return tuple(each.values())  # type: ignore[return-value]


def _told(of: Record | FaceRecord, known: str) -> str:
    return f"{of.name}: {of.labels if of.name == NOT_RECORDED else known}; terms: {of.terms}"


def _unknown(state: Mapping[str, Any]) -> str:
    return f"unknown, of the first {int(state['step']):,} steps"


def _read(kind: TypeAdapter[Kept], kept: Any, source: Path) -> Kept:
    try:
        return kind.validate_python(kept)
    except ValidationError as error:
        raise UnreadableCheckpoint(
            f"{source} has impossible records: {wrong_values(error)}; put them right, or use another checkpoint"
        ) from error
