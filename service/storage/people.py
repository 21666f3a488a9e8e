"""Persons in the database; every function expects the gallery to be locked by the caller before it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select

from service.errors import ExternalIdExists, PersonNotFound
from service.storage import fields
from service.storage.database import ReadSession, WriteSession
from service.storage.ids import new_id
from service.storage.models import PersonRow, now
from service.storage.records import Page, Person

IN_ONE_QUERY = 500  # ids; SQLite's oldest limit is 999 parameters


def record(row: PersonRow) -> Person:
    return Person(
        id=row.id,
        gallery_id=row.gallery_id,
        external_id=row.external_id,
        name=row.name,
        metadata=row.extra,
        templates=row.templates,
        created=row.created,
        updated=row.updated,
    )


async def get(session: ReadSession, gallery_id: str, person_id: str) -> PersonRow:
    wanted = select(PersonRow).where(PersonRow.id == person_id, PersonRow.gallery_id == gallery_id)
    row = (await session.scalars(wanted)).one_or_none()
    if row is None:
        raise PersonNotFound("no person of this gallery has this id")
    return row


async def get_many(session: ReadSession, gallery_id: str, person_ids: Sequence[str]) -> dict[str, Person]:
    """Those who exist, by id."""
    found: dict[str, Person] = {}
    for start in range(0, len(person_ids), IN_ONE_QUERY):
        some = person_ids[start : start + IN_ONE_QUERY]
        wanted = select(PersonRow).where(PersonRow.id.in_(some), PersonRow.gallery_id == gallery_id)
        found |= {row.id: record(row) for row in await session.scalars(wanted)}
    return found


async def by_external_id(session: ReadSession, gallery_id: str, external_id: str) -> PersonRow | None:
    wanted = select(PersonRow).where(PersonRow.gallery_id == gallery_id, PersonRow.external_id == external_id)
    return (await session.scalars(wanted)).one_or_none()


async def find(
    session: ReadSession, gallery_id: str, cursor: str | None, limit: int, external_id: str | None
) -> Page[Person]:
    """Persons in the order of their creation."""
    wanted = select(PersonRow).where(
        PersonRow.gallery_id == gallery_id, PersonRow.seq > fields.after_number(cursor)
    )
    if external_id is not None:
        wanted = wanted.where(PersonRow.external_id == external_id)
    rows = (await session.scalars(wanted.order_by(PersonRow.seq).limit(limit + 1))).all()
    more = fields.cursor(rows[limit - 1].seq) if len(rows) > limit else None
    return Page(tuple(record(row) for row in rows[:limit]), more)


async def create(
    session: WriteSession,
    gallery_id: str,
    external_id: str | None,
    name: str | None,
    metadata: Mapping[str, Any] | None,
) -> PersonRow:
    external_id = fields.text("external_id", external_id)
    if external_id is not None:
        await _refuse_taken(session, gallery_id, external_id)
    row = PersonRow(
        id=new_id("per"),
        gallery_id=gallery_id,
        external_id=external_id,
        name=fields.text("name", name),
        extra=fields.metadata(metadata),
        templates=0,
    )
    session.add(row)
    await session.flush()
    return row


async def update(session: WriteSession, row: PersonRow, changes: Mapping[str, Any]) -> None:
    """Sets those of `name`, `external_id` and `metadata` that are in `changes`."""
    if "external_id" in changes:
        external_id = fields.text("external_id", changes["external_id"])
        if external_id is not None and external_id != row.external_id:
            await _refuse_taken(session, row.gallery_id, external_id)
        row.external_id = external_id
    if "name" in changes:
        row.name = fields.text("name", changes["name"])
    if "metadata" in changes:
        row.extra = fields.metadata(changes["metadata"])
    row.updated = now()
    await session.flush()


async def remove(session: WriteSession, person_id: str) -> None:
    """The person and, by cascade, their faces."""
    await session.execute(delete(PersonRow).where(PersonRow.id == person_id))


async def _refuse_taken(session: ReadSession, gallery_id: str, external_id: str) -> None:
    if await by_external_id(session, gallery_id, external_id) is not None:
        raise ExternalIdExists("a person of this gallery has this external_id", external_id=external_id)
