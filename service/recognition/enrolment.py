"""One enrolment: what `gallery_sync` is asked for and answers, and what happens inside its transaction.

Only `gallery_sync` calls the functions: they expect the gallery to be locked, and neither commit nor touch
the index but by the effect that they return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import ExternalIdExists, NameConflict
from service.gallery.index import GalleryIndex
from service.storage import changes as log
from service.storage import faces, galleries, idempotency, people
from service.storage.changes import Kind
from service.storage.database import ReadSession, WriteSession
from service.storage.faces import NewFace
from service.storage.models import FaceRow, GalleryRow, PersonRow
from service.storage.records import Face, Gallery, Person

Effect = Callable[[GalleryIndex], object]  # what a write does to the index, before it is published


@dataclass(frozen=True, slots=True)
class PersonRef:
    """Who is enrolled. With `id`: that person, who must exist. With `external_id`: the person who has it,
    else a new one. With neither: a new person. A name that differs from an existing person's is a conflict;
    one who has no name gets it; metadata, when given, replaces."""

    id: str | None = None
    external_id: str | None = None
    name: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What `add_faces` did. `faces` are the new ones in the order given, `indices` their places in the given
    list, `duplicates` the places of those left out because this person already has the same pixels. All
    duplicates: nothing was written, `faces` is empty."""

    gallery: Gallery
    person: Person
    faces: tuple[Face, ...]
    indices: tuple[int, ...]
    duplicates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Makes one write happen once: `principal` (key id) and `key` name it, `digest` is that of the whole
    request.

    `answer` turns what the write did into the JSON body of the answer; it runs inside the transaction, so
    that the answer is stored if and only if the write is. The record lives for 24 hours.
    """

    principal: str
    key: str
    digest: str
    answer: Callable[[Any], Mapping[str, Any]]  # Added, Gallery or Person → the answer's JSON


@dataclass(frozen=True, slots=True)
class Replay:
    """The request was answered before: give this answer again."""

    answer: Mapping[str, Any]


async def enrol(
    session: WriteSession,
    gallery: GalleryRow,
    embedding_space: str,
    ref: PersonRef,
    new_faces: Sequence[NewFace],
) -> tuple[Added, Effect | None]:
    """Inside the transaction of a write: the person, the faces, the revision; None as effect: nothing was
    new."""
    row = await who(session, gallery.id, ref)
    new_person = row is None
    if row is None:
        row = await people.create(session, gallery.id, ref.external_id, ref.name, ref.metadata)
    indices, duplicates = _apart(new_faces, await faces.digests(session, row.id))
    if not indices:
        return Added(galleries.record(gallery), people.record(row), (), (), duplicates), None
    if not new_person:
        await people.update(session, row, _told(row, ref))
    chosen = [new_faces[index] for index in indices]
    revision = gallery.revision + 1
    rows = await faces.create(session, gallery.id, row.id, revision, embedding_space, chosen)
    row.templates += len(rows)
    await log.record(
        session, gallery, Kind.FACES_ADDED, person_id=row.id, size=int(new_person), templates=len(rows)
    )
    records = tuple(faces.record(face) for face in rows)
    added = Added(galleries.record(gallery), people.record(row), records, indices, duplicates)
    return added, _adding(row, rows, chosen)


def _adding(person: PersonRow, rows: Sequence[FaceRow], chosen: Sequence[NewFace]) -> Effect:
    owners, ids = [person.id] * len(rows), [row.id for row in rows]
    vectors = np.stack([face.embedding for face in chosen])
    return lambda index: index.add(owners, ids, vectors)


def _apart(new_faces: Sequence[NewFace], known: frozenset[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the faces to add, and of those whose pixels are known or come twice."""
    seen = set(known)
    indices: list[int] = []
    duplicates: list[int] = []
    for index, face in enumerate(new_faces):
        (duplicates if face.digest in seen else indices).append(index)
        seen.add(face.digest)
    return tuple(indices), tuple(duplicates)


async def who(session: ReadSession, gallery_id: str, ref: PersonRef) -> PersonRow | None:
    """The existing person that `ref` names, None for a new one; raises if what it says of them is not so."""
    if ref.id is not None:
        row: PersonRow | None = await people.get(session, gallery_id, ref.id)
    elif ref.external_id is not None:
        row = await people.by_external_id(session, gallery_id, ref.external_id)
    else:
        return None
    if row is None:
        return None
    if ref.external_id is not None and row.external_id not in (None, ref.external_id):
        raise ExternalIdExists("this person has another external_id", person=row.id)
    if ref.name is not None and row.name not in (None, ref.name):
        raise NameConflict("this person has another name", person=row.id)
    return row


def _told(row: PersonRow, ref: PersonRef) -> dict[str, Any]:
    """What an enrolment says about an existing person that is not known yet."""
    told: dict[str, Any] = {}
    if ref.name is not None and row.name is None:
        told["name"] = ref.name
    if ref.external_id is not None and row.external_id is None:
        told["external_id"] = ref.external_id
    if ref.metadata is not None:
        told["metadata"] = ref.metadata
    return told


async def answered(session: ReadSession, once: Idempotency | None) -> Replay | None:
    """What was answered to this request before, if anything; `IdempotencyConflict` if its key was for
    another."""
    if once is None:
        return None
    idempotency.check_key(once.key)
    answer = await idempotency.find(session, once.principal, once.key, once.digest)
    return None if answer is None else Replay(answer)


async def remember(session: WriteSession, once: Idempotency | None, result: Added | Gallery | Person) -> None:
    """Stores the answer with the write, for the next time that the same is asked."""
    if once is not None:
        await idempotency.store(session, once.principal, once.key, once.digest, once.answer(result))
