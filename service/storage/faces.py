"""Faces and their vectors in the database: little-endian float32, each with the space it belongs to.

Vectors leave here in blocks of one embedding space; two spaces never share a block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, delete, func, select, update

from service.errors import FaceNotFound
from service.storage import fields
from service.storage.database import ReadSession, WriteSession
from service.storage.ids import new_id
from service.storage.models import FaceRow, PersonRow
from service.storage.records import Face, Page

Floats = npt.NDArray[np.float32]
BLOCK = 8_192  # rows read at once: 16 MiB of 512-d vectors


@dataclass(frozen=True, slots=True)
class NewFace:
    """A template to enrol: `embedding` float32 [d] of unit length, `digest` of the picture's pixels (hex),
    `box` xyxy in pixels of the upright picture, `score` and the values of `quality` 0 to 1."""

    embedding: Floats
    digest: str
    box: tuple[float, float, float, float]
    score: float
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Block:
    """Templates as the index takes them: `persons`, `faces` ids and `vectors` [n, d], row by row."""

    persons: Sequence[str]
    faces: Sequence[str]
    vectors: Floats


def record(row: FaceRow) -> Face:
    left, top, right, bottom = row.box
    return Face(row.id, row.person_id, (left, top, right, bottom), row.score, row.quality, row.created)


async def get(session: ReadSession, gallery_id: str, person_id: str, face_id: str) -> FaceRow:
    wanted = select(FaceRow).where(
        FaceRow.id == face_id, FaceRow.person_id == person_id, FaceRow.gallery_id == gallery_id
    )
    row = (await session.scalars(wanted)).one_or_none()
    if row is None:
        raise FaceNotFound("no face of this person has this id")
    return row


async def find(session: ReadSession, person_id: str, cursor: str | None, limit: int) -> Page[Face]:
    """A person's faces in the order of their enrolment."""
    wanted = select(FaceRow).where(FaceRow.person_id == person_id, FaceRow.seq > fields.after_number(cursor))
    rows = (await session.scalars(wanted.order_by(FaceRow.seq).limit(limit + 1))).all()
    more = fields.cursor(rows[limit - 1].seq) if len(rows) > limit else None
    return Page(tuple(record(row) for row in rows[:limit]), more)


async def digests(session: ReadSession, person_id: str) -> frozenset[str]:
    return frozenset(await session.scalars(select(FaceRow.digest).where(FaceRow.person_id == person_id)))


async def create(
    session: WriteSession,
    gallery_id: str,
    person_id: str,
    revision: int,
    embedding_space: str,
    faces: Sequence[NewFace],
) -> list[FaceRow]:
    rows = [_row(gallery_id, person_id, revision, embedding_space, face) for face in faces]
    session.add_all(rows)
    await session.flush()
    return rows


def _row(gallery_id: str, person_id: str, revision: int, embedding_space: str, face: NewFace) -> FaceRow:
    return FaceRow(
        id=new_id("fac"),
        gallery_id=gallery_id,
        person_id=person_id,
        revision=revision,
        embedding_space=embedding_space,
        embedding=np.ascontiguousarray(face.embedding, dtype="<f4").tobytes(),
        digest=face.digest,
        box=[float(edge) for edge in face.box],
        score=float(face.score),
        quality={name: float(value) for name, value in face.quality.items()},
    )


async def remove(session: WriteSession, face_id: str) -> None:
    await session.execute(delete(FaceRow).where(FaceRow.id == face_id))


async def spaces(session: ReadSession, gallery_id: str) -> dict[str, int]:
    """The embedding spaces of a gallery's vectors, and how many there are of each."""
    counted = (
        select(FaceRow.embedding_space, func.count())
        .where(FaceRow.gallery_id == gallery_id)
        .group_by(FaceRow.embedding_space)
    )
    return {space: count for space, count in await session.execute(counted)}


async def of_person(session: ReadSession, person_id: str, embedding_space: str, dimension: int) -> Block:
    """One person's templates."""
    wanted = _vectors(embedding_space).where(FaceRow.person_id == person_id).order_by(FaceRow.seq)
    return _block((await session.execute(wanted)).all(), dimension)


async def added(
    session: ReadSession, gallery_id: str, embedding_space: str, dimension: int, after: int, up_to: int
) -> Block:
    """The templates added by the revisions after `after` up to `up_to` that still exist."""
    wanted = _vectors(embedding_space).where(
        FaceRow.gallery_id == gallery_id, FaceRow.revision > after, FaceRow.revision <= up_to
    )
    return _block((await session.execute(wanted.order_by(FaceRow.seq))).all(), dimension)


async def blocks(
    session: ReadSession, gallery_id: str, embedding_space: str, dimension: int
) -> AsyncIterator[Block]:
    """All templates of a gallery, `BLOCK` at a time, in the order of their enrolment."""
    last: int = 0
    wanted = (
        _vectors(embedding_space).where(FaceRow.gallery_id == gallery_id).order_by(FaceRow.seq).limit(BLOCK)
    )
    while rows := (await session.execute(wanted.where(FaceRow.seq > last))).all():
        last = rows[-1].seq
        yield _block(rows, dimension)


def _vectors(embedding_space: str) -> Select[int, str, str, bytes]:
    columns = select(FaceRow.seq, FaceRow.person_id, FaceRow.id, FaceRow.embedding)
    return columns.where(FaceRow.embedding_space == embedding_space)


def _block(rows: Sequence[Any], dimension: int) -> Block:
    # A damaged row must stop the load, not shift its neighbours.
    if any(len(row[3]) != 4 * dimension for row in rows):
        raise ValueError(f"a stored vector is not {dimension} float32 values")
    vectors = np.frombuffer(b"".join(row[3] for row in rows), dtype="<f4").reshape(len(rows), dimension)
    return Block([row[1] for row in rows], [row[2] for row in rows], vectors.astype(np.float32, copy=False))


async def has_foreign(session: ReadSession, gallery_id: str, embedding_space: str) -> bool:
    """Whether a vector of another embedding space is in the gallery; two probes of an index, however many
    there are."""
    of_gallery = select(FaceRow.embedding_space).where(FaceRow.gallery_id == gallery_id).limit(1)
    for other in (FaceRow.embedding_space < embedding_space, FaceRow.embedding_space > embedding_space):
        if await session.scalar(of_gallery.where(other)) is not None:
            return True
    return False


async def remove_foreign(session: WriteSession, gallery_id: str, embedding_space: str) -> int:
    """Deletes the faces of other embedding spaces and sets the persons' counts right; how many they were."""
    of_gallery = FaceRow.gallery_id == gallery_id
    foreign = (of_gallery, FaceRow.embedding_space != embedding_space)
    count = await session.scalar(select(func.count()).select_from(FaceRow).where(*foreign)) or 0
    await session.execute(delete(FaceRow).where(*foreign))
    templates = select(func.count()).where(FaceRow.person_id == PersonRow.id).scalar_subquery()
    await session.execute(
        update(PersonRow)
        .where(PersonRow.gallery_id == gallery_id)
        .values(templates=templates)
        .execution_options(synchronize_session=False)
    )
    return count
