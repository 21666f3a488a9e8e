"""API keys in the database: hashes, never tokens. Every change raises the list's revision, by which replicas
follow."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, select, update

from service.errors import ApiKeyNotFound
from service.storage import meta
from service.storage.database import ReadSession, WriteSession
from service.storage.models import ApiKeyRow, now
from service.storage.records import ApiKey

PEPPER = "api_key_pepper"
REVISION = "api_keys_revision"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key and the hash that its token must have."""

    key: ApiKey
    hash: bytes


def record(row: ApiKeyRow) -> ApiKey:
    return ApiKey(row.id, row.name, frozenset(row.scopes.split()), row.created, row.last_used, row.revoked)


async def pepper(session: WriteSession) -> bytes:
    """The installation's secret under which tokens are hashed; made when first asked for."""
    known = await meta.get(session, PEPPER)
    if known is None:
        known = secrets.token_hex(32)
        await meta.put(session, PEPPER, known)
    return bytes.fromhex(known)


async def known_pepper(session: ReadSession) -> bytes | None:
    """The pepper if it was made."""
    known = await meta.get(session, PEPPER)
    return None if known is None else bytes.fromhex(known)


async def revision(session: ReadSession) -> int:
    return int(await meta.get(session, REVISION) or 0)


async def find(session: ReadSession) -> list[StoredKey]:
    """Every key, oldest first."""
    rows = await session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created, ApiKeyRow.id))
    return [StoredKey(record(row), row.hash) for row in rows]


async def count(session: ReadSession) -> int:
    return await session.scalar(select(func.count()).select_from(ApiKeyRow)) or 0


async def create(
    session: WriteSession, key_id: str, name: str, scopes: Collection[str], hashed: bytes
) -> ApiKey:
    row = ApiKeyRow(id=key_id, name=name, scopes=" ".join(sorted(scopes)), hash=hashed)
    session.add(row)
    await _changed(session)
    return record(row)


async def revoke(session: WriteSession, key_id: str) -> None:
    """`ApiKeyNotFound` if there is none; a second time changes nothing."""
    row = await session.get(ApiKeyRow, key_id, with_for_update=True)
    if row is None:
        raise ApiKeyNotFound("no API key has this id")
    if row.revoked is None:
        row.revoked = now()
        await _changed(session)


async def used(session: WriteSession, key_ids: Collection[str]) -> None:
    """These keys were used just now; not a change that replicas need to hear of."""
    await session.execute(update(ApiKeyRow).where(ApiKeyRow.id.in_(key_ids)).values(last_used=now()))


async def _changed(session: WriteSession) -> None:
    await meta.put(session, REVISION, str(await revision(session) + 1))
