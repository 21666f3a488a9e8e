"""The connection to the database: SQLite in the data folder by default, PostgreSQL by URL.

`reading()` sees one moment; `writing()` commits when its block ends and undoes everything when it raises.
Nothing else commits.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NewType

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import await_only

from service.errors import NotReady, StartFailed
from service.storage.migrate import migrate

# A write in a read path does not type-check.
ReadSession = NewType("ReadSession", AsyncSession)
WriteSession = NewType("WriteSession", ReadSession)

BUSY_TIMEOUT_MS = 10_000  # how long SQLite waits for another process's write
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class Database:
    """One database. `Database(url)`, then `await migrate()` once, then sessions; `await close()` at the end.

    Sessions raise `NotReady` when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = _url(url)
        self.dialect = self._url.get_backend_name()
        self._engine = _engine(self._url)
        self._write_engine = self._engine.execution_options(facet_write=True)
        # SQLite has one writer: waiting for it here is fair and costs no thread.
        self._one_writer = asyncio.Lock() if self.dialect == "sqlite" else nullcontext()

    async def migrate(self) -> None:
        """Brings the schema up to date. `StartFailed` when the database is newer than this code, or
        unreachable."""
        if self.dialect == "sqlite" and self._url.database:
            # 0700: who can read the folder can read everybody's templates
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self.run(migrate)
        except (DBAPIError, OSError) as unreachable:
            raise StartFailed(
                f"the {self.dialect} database cannot be opened: {_why(unreachable)}"
            ) from unreachable

    async def run(self, work: Callable[[Connection], None]) -> None:
        """Synchronous work on a bare connection, in one write transaction: what alembic needs."""
        async with self._write_engine.begin() as connection:
            await connection.run_sync(work)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        """One consistent moment of the database, however long the block lasts."""
        with _answering():
            async with self._engine.connect() as connection:
                if self.dialect == "postgresql":
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                async with AsyncSession(connection, expire_on_commit=False) as session:
                    yield ReadSession(session)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[WriteSession]:
        """One transaction, committed when the block ends."""
        with _answering():
            async with (
                self._one_writer,
                self._write_engine.connect() as connection,
                AsyncSession(connection, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield WriteSession(ReadSession(session))

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()


def _url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise StartFailed("FACET_DATABASE_URL is not a database URL") from None
    driver = DRIVERS.get(url.drivername.partition("+")[0])
    if driver is None:
        raise StartFailed("FACET_DATABASE_URL must begin with sqlite:// or postgresql://")
    if driver.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise StartFailed("FACET_DATABASE_URL must name a file: in memory nothing would outlive the process")
    return url.set(drivername=driver)


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        return create_async_engine(url, pool_size=8, max_overflow=8, pool_timeout=10, pool_pre_ping=True)
    engine = create_async_engine(url, pool_size=8, max_overflow=0, pool_timeout=10)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver opens no transaction behind our back: `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA page_size = 8192")  # new files only: three 512-d templates a page instead of one
    write_ahead(cursor)
    # FULL, not NORMAL: an answered enrolment or delete must outlive a power cut too, not only a killed
    # process.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def write_ahead(cursor: Any) -> None:
    """Puts the file in WAL mode, asking again while another process opens the same new file.

    SQLite answers one of the two "locked" without waiting `busy_timeout`, because each holds what the other
    needs: letting go and asking again is the way out. Runs in the driver's greenlet.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as locked:
            if locked.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            await_only(asyncio.sleep(0.02))  # the driver runs this in a greenlet: the loop stays free
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer can be refused at once ("database is locked"): writers say so from the start.
    write = connection.get_execution_options().get("facet_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as failure:
        raise NotReady("the database does not answer", reason="database") from failure
    except DBAPIError as failure:
        if failure.connection_invalidated:
            raise NotReady("the database does not answer", reason="database") from failure
        raise


def _why(failure: Exception) -> str:
    # The driver's own sentence: SQLAlchemy's text would add the statement and its parameters.
    cause = failure.orig if isinstance(failure, DBAPIError) and failure.orig is not None else failure
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
