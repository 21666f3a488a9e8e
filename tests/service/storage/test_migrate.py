"""The schema at the start: from nothing, up to date, newer than the code."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.util import greenlet_spawn

from service.errors import StartFailed
from service.storage.database import Database, write_ahead
from service.storage.migrate import configuration, folder
from service.storage.models import Base
from tests.service.databases import threads_ended


async def test_a_cold_database_gets_exactly_the_tables_of_the_models(url: str) -> None:
    database = Database(url)
    differences: list[object] = []

    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences.extend(compare_metadata(context, Base.metadata))

    await database.migrate()
    await database.migrate()  # up to date: nothing to do
    await database.run(compare)
    await database.close()
    assert differences == []


async def test_a_database_of_a_newer_facet_is_refused(url: str) -> None:
    database = Database(url)
    await database.migrate()
    async with database.writing() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '2099_01_01_0000'"))
    with pytest.raises(StartFailed, match=r"newer Facet .*2099_01_01_0000"):
        await database.migrate()
    await database.close()


async def test_replicas_that_start_together_migrate_once(url: str) -> None:
    replicas = [Database(url) for _ in range(4)]
    await asyncio.gather(*(replica.migrate() for replica in replicas))
    async with replicas[0].reading() as session:
        assert len((await session.execute(text("SELECT version_num FROM alembic_version"))).all()) == 1
    await asyncio.gather(*(replica.close() for replica in replicas))


class _Busy:
    """A cursor on a new file that another process is opening too."""

    def __init__(self, refusals: int, code: int = sqlite3.SQLITE_BUSY) -> None:
        self.refusals, self.code = refusals, code

    def execute(self, _statement: str) -> None:
        if self.refusals:
            self.refusals -= 1
            refused = sqlite3.OperationalError("database is locked")
            refused.sqlite_errorcode = self.code
            raise refused


async def test_a_new_file_that_another_process_opens_at_the_same_moment_is_asked_again() -> None:
    busy = _Busy(refusals=2)
    await greenlet_spawn(write_ahead, busy)
    assert busy.refusals == 0
    with pytest.raises(sqlite3.OperationalError):  # what waiting does not cure is not waited for
        await greenlet_spawn(write_ahead, _Busy(refusals=1, code=sqlite3.SQLITE_IOERR))


async def test_a_downgrade_leaves_nothing_and_can_be_taken_back(url: str) -> None:
    from alembic import command

    def down(connection: Connection) -> None:
        config = configuration()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    database = Database(url)
    await database.migrate()
    await database.run(down)
    await database.migrate()
    await database.close()


@pytest.mark.parametrize(
    "wrong",
    ["", "no url", "mysql://localhost/facet", "sqlite://", "sqlite:///:memory:", "postgresql+nothing"],
)
def test_a_url_that_is_no_database_for_facet_fails_the_start(wrong: str) -> None:
    with pytest.raises(StartFailed, match="FACET_DATABASE_URL"):
        Database(wrong)


async def test_a_database_that_does_not_answer_fails_the_start_without_its_password(tmp_path: Path) -> None:
    unreachable = Database("postgresql://facet:hush@127.0.0.1:9/facet")
    with pytest.raises(StartFailed) as refused:
        await unreachable.migrate()
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)
    await unreachable.close()
    (tmp_path / "file").write_text("this is no database, and long enough to be looked at" * 100)
    broken = Database(f"sqlite:///{tmp_path}/file")
    with pytest.raises(StartFailed, match="sqlite database cannot be opened"):
        await broken.migrate()
    await broken.close()
    await threads_ended()


def test_migrations_have_dated_names_and_one_line_of_descent() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    assert len(scripts.get_heads()) == 1
    names = [path.name for path in (folder() / "versions").glob("*.py")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d-\d{4}_[a-z0-9_]+\.py", name) for name in names)
