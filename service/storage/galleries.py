"""Galleries in the database. `lock` is how every write to a gallery begins: it makes writers of one gallery
queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select

from service.errors import GalleryExists, GalleryNotFound
from service.storage import fields
from service.storage.database import ReadSession, WriteSession
from service.storage.ids import new_id
from service.storage.models import GalleryRow, now
from service.storage.records import Gallery, Page


def record(row: GalleryRow) -> Gallery:
    return Gallery(
        id=row.id,
        name=row.name,
        metadata=row.extra,
        size=row.size,
        templates=row.templates,
        revision=row.revision,
        created=row.created,
        updated=row.updated,
        incarnation=row.incarnation,
    )


async def get(session: ReadSession, gallery_id: str) -> GalleryRow:
    row = await session.get(GalleryRow, gallery_id)
    if row is None:
        raise GalleryNotFound("no gallery has this id")
    return row


async def lock(session: WriteSession, gallery_id: str) -> GalleryRow:
    """The gallery, held until the transaction ends; its counts and revision are the newest there are."""
    # SQLite needs no row lock: there a write transaction is alone from its beginning.
    row = await session.get(GalleryRow, gallery_id, with_for_update=True)
    if row is None:
        raise GalleryNotFound("no gallery has this id")
    return row


async def find(session: ReadSession, cursor: str | None, limit: int) -> Page[Gallery]:
    """Galleries by id."""
    wanted = (
        select(GalleryRow)
        .where(GalleryRow.id > fields.after(cursor))
        .order_by(GalleryRow.id)
        .limit(limit + 1)
    )
    rows = (await session.scalars(wanted)).all()
    more = fields.cursor(rows[limit - 1].id) if len(rows) > limit else None
    return Page(tuple(record(row) for row in rows[:limit]), more)


async def revisions(session: ReadSession) -> dict[str, tuple[str, int]]:
    """Every gallery's incarnation and revision: what replicas poll."""
    rows = await session.execute(select(GalleryRow.id, GalleryRow.incarnation, GalleryRow.revision))
    return {gallery_id: (incarnation, revision) for gallery_id, incarnation, revision in rows}


async def create(
    session: WriteSession, gallery_id: str, name: str | None, metadata: Mapping[str, Any] | None
) -> GalleryRow:
    gallery_id = fields.slug(gallery_id)
    if await session.get(GalleryRow, gallery_id) is not None:
        raise GalleryExists("a gallery with this id exists", gallery=gallery_id)
    row = GalleryRow(
        id=gallery_id,
        incarnation=new_id("inc"),
        name=fields.text("name", name),
        extra=fields.metadata(metadata),
        revision=0,
        size=0,
        templates=0,
    )
    session.add(row)
    await session.flush()
    return row


def update(row: GalleryRow, changes: Mapping[str, Any]) -> None:
    if "name" in changes:
        row.name = fields.text("name", changes["name"])
    if "metadata" in changes:
        row.extra = fields.metadata(changes["metadata"])
    row.updated = now()


async def remove(session: WriteSession, gallery_id: str) -> None:
    """The gallery and, by cascade, everything in it."""
    await session.execute(delete(GalleryRow).where(GalleryRow.id == gallery_id))


async def names(session: ReadSession) -> Sequence[str]:
    return (await session.scalars(select(GalleryRow.id).order_by(GalleryRow.id))).all()
