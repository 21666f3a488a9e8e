"""Brings the schema up to date when the service starts.

Migrations run in one transaction under a lock, so that replicas which start together migrate once, and a
failed migration leaves nothing behind.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service.errors import StartFailed

LOCK = 0x0FACE7  # any number, as long as every version of Facet takes the same


def migrate(connection: Connection) -> None:
    """Upgrades to the newest revision inside the caller's transaction; `StartFailed` if the database is
    newer."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    config = configuration()
    scripts = ScriptDirectory.from_config(config)
    current = set(MigrationContext.configure(connection).get_current_heads())
    refuse_newer(current, scripts)
    if current != set(scripts.get_heads()):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def configuration() -> Config:
    """Alembic's configuration without a file: the folder of the migrations, wherever this package is
    installed."""
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    return config


def folder() -> Path:
    """`migrations/`: inside this package when installed from a wheel, at the root of a clone."""
    here = Path(__file__).resolve()
    for place in (here.parent / "migrations", here.parents[2] / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise StartFailed("this installation of Facet has no migrations folder: install it again")


def refuse_newer(current: set[str], scripts: ScriptDirectory) -> None:
    """Raises `StartFailed` when the database is at a revision that this code does not know."""
    unknown = current - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        raise StartFailed(
            f"the database was written by a newer Facet (schema {', '.join(sorted(unknown))}): "
            "install that version or restore a backup"
        )
