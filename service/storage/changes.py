"""The log by which replicas follow a gallery: one row a revision, written in the transaction that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import delete, select

from service.storage.database import ReadSession, WriteSession
from service.storage.models import ChangeRow, GalleryRow, now

KEPT = timedelta(hours=6)  # a replica that was away for longer loads the gallery anew


class Kind(StrEnum):
    """What a revision did; the index cares for the last four."""

    GALLERY = "gallery"
    PERSON = "person"  # created or updated, without faces
    FACES_ADDED = "faces_added"
    FACE_DELETED = "face_deleted"
    PERSON_DELETED = "person_deleted"
    RELOAD = "reload"  # many rows at once: load the gallery anew


@dataclass(frozen=True, slots=True)
class Change:
    """One revision of one gallery."""

    revision: int
    kind: Kind
    person_id: str | None
    face_id: str | None


async def record(
    session: WriteSession,
    gallery: GalleryRow,
    kind: Kind,
    *,
    person_id: str | None = None,
    face_id: str | None = None,
    size: int = 0,
    templates: int = 0,
) -> None:
    """The gallery's next revision did `kind`; `size` persons and `templates` faces more (or less) are there
    now."""
    gallery.revision += 1
    gallery.size += size
    gallery.templates += templates
    session.add(
        ChangeRow(
            gallery_id=gallery.id, revision=gallery.revision, kind=kind, person_id=person_id, face_id=face_id
        )
    )
    await session.flush()


async def between(session: ReadSession, gallery_id: str, after: int, up_to: int) -> Sequence[Change] | None:
    """The changes after `after` up to `up_to`, in order; None if the log does not reach back that far."""
    wanted = select(ChangeRow).where(
        ChangeRow.gallery_id == gallery_id, ChangeRow.revision > after, ChangeRow.revision <= up_to
    )
    rows = (await session.scalars(wanted.order_by(ChangeRow.revision))).all()
    if len(rows) != up_to - after:
        return None
    return [Change(row.revision, Kind(row.kind), row.person_id, row.face_id) for row in rows]


async def prune(session: WriteSession) -> None:
    """Forgets what every living replica has long applied."""
    await session.execute(delete(ChangeRow).where(ChangeRow.created < now() - KEPT))
