"""Transactions: what is undone, what readers see, what happens when the database does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from service.errors import NotReady
from service.storage import galleries, meta
from service.storage.database import Database
from tests.service.databases import threads_ended


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database(url)
    await opened.migrate()
    yield opened
    await opened.close()


async def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    async def write_and_raise() -> None:
        async with database.writing() as session:
            await meta.put(session, "a", "1")
            raise LookupError

    with pytest.raises(LookupError):
        await write_and_raise()
    async with database.reading() as session:
        assert await meta.get(session, "a") is None


async def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    async with database.writing() as session:
        await meta.put(session, "a", "1")
    async with database.reading() as reading:
        assert await reading.scalar(text("SELECT value FROM meta WHERE name = 'a'")) == "1"
        async with database.writing() as session:
            await meta.put(session, "a", "2")
        assert await reading.scalar(text("SELECT value FROM meta WHERE name = 'a'")) == "1"
    async with database.reading() as reading:
        assert await meta.get(reading, "a") == "2"


async def test_many_writers_at_once_all_get_their_turn(database: Database) -> None:
    async with database.writing() as session:
        await galleries.create(session, "g", None, None)

    async def write() -> None:
        async with database.writing() as session:
            gallery = await galleries.lock(session, "g")
            gallery.revision += 1

    await asyncio.gather(*(write() for _ in range(30)))
    async with database.reading() as session:
        assert (await galleries.get(session, "g")).revision == 30


async def test_two_processes_may_write_one_sqlite_file(tmp_path: Path) -> None:
    one, other = (Database(f"sqlite:///{tmp_path}/facet.sqlite3") for _ in range(2))
    await one.migrate()

    async def write(database: Database, name: str) -> None:
        for number in range(20):
            async with database.writing() as session:
                await meta.put(session, f"{name}{number}", "1")

    await asyncio.gather(write(one, "a"), write(other, "b"))
    async with one.reading() as session:
        assert await session.scalar(text("SELECT count(*) FROM meta")) == 40
    await one.close()
    await other.close()


async def test_sqlite_keeps_what_it_promised(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/data/facet.sqlite3")
    await database.migrate()
    async with database.reading() as session:
        pragmas = {
            name: await session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "page_size")
        }
    await database.close()
    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "page_size": 8192,
    }
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


async def test_a_database_that_went_away_is_said_to_be_not_ready(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/never/made/facet.sqlite3")

    async def read() -> None:
        async with database.reading() as session:
            await meta.get(session, "a")

    with pytest.raises(NotReady) as refused:
        await read()
    assert refused.value.details == {"reason": "database"}
    await database.close()
    await threads_ended()
