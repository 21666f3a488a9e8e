"""Single values of the whole installation: the pepper of the API keys, the revision of their list."""

from __future__ import annotations

from service.storage.database import ReadSession, WriteSession
from service.storage.models import MetaRow


async def get(session: ReadSession, name: str) -> str | None:
    row = await session.get(MetaRow, name)
    return None if row is None else row.value


async def put(session: WriteSession, name: str, value: str) -> None:
    row = await session.get(MetaRow, name, with_for_update=True)
    if row is None:
        session.add(MetaRow(name=name, value=value))
    else:
        row.value = value
    await session.flush()
