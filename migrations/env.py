"""Runs the migrations: on the connection that the service hands over at its start, or for `alembic` on the
command line on the database of `FACET_DATABASE_URL`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from service.storage.models import Base


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def run_alone() -> None:
    import asyncio

    from service.config import load_settings
    from service.storage.database import Database

    async def main() -> None:
        database = Database(load_settings().url)
        try:
            await database.run(run)
        finally:
            await database.close()

    asyncio.run(main())


handed_over = context.config.attributes.get("connection")
if handed_over is None:
    run_alone()
else:
    run(handed_over)
