"""Answers that were given, by idempotency key: stored in the transaction of the write they answer, for 24
hours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete

from service.errors import IdempotencyConflict, InvalidParameter
from service.storage.database import ReadSession, WriteSession
from service.storage.models import IdempotencyRow, now

KEPT = timedelta(hours=24)
KEY_LIMIT = 255  # characters


def check_key(key: str) -> None:
    """Raises `InvalidParameter` unless `key` is 1 to 255 visible ASCII characters."""
    if not 1 <= len(key) <= KEY_LIMIT or not all("!" <= character <= "~" for character in key):
        raise InvalidParameter(
            f"an idempotency key is 1 to {KEY_LIMIT} visible ASCII characters", parameter="idempotency_key"
        )


async def find(session: ReadSession, principal: str, key: str, digest: str) -> dict[str, Any] | None:
    """The stored answer; None if there is none; `IdempotencyConflict` if the key was for another request."""
    row = await session.get(IdempotencyRow, (principal, key))
    if row is None or row.created < now() - KEPT:
        return None
    if row.digest != digest:
        raise IdempotencyConflict("this idempotency key was used for another request")
    return row.answer


async def store(
    session: WriteSession, principal: str, key: str, digest: str, answer: Mapping[str, Any]
) -> None:
    """Raises SQLAlchemy's IntegrityError when another transaction stored the same key first."""
    await session.execute(
        delete(IdempotencyRow).where(
            IdempotencyRow.principal == principal,
            IdempotencyRow.key == key,
            IdempotencyRow.created < now() - KEPT,
        )
    )
    session.add(IdempotencyRow(principal=principal, key=key, digest=digest, answer=dict(answer)))
    await session.flush()


async def prune(session: WriteSession) -> None:
    await session.execute(delete(IdempotencyRow).where(IdempotencyRow.created < now() - KEPT))
