"""Galleries, persons, faces, the log of changes, idempotency records, API keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_22_0840"
down_revision = None
branch_labels = None
depends_on = None

# Types as they were on this day: a migration never follows the models.
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(1024), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("scopes", sa.String(256), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("last_used", MOMENT, nullable=True),
        sa.Column("revoked", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_table(
        "idempotency",
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("key", sa.String(256), nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("answer", JSON, nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created"])
    galleries()
    persons()
    faces()


def galleries() -> None:
    op.create_table(
        "galleries",
        sa.Column("id", sa.String(63), nullable=False),
        sa.Column("incarnation", sa.String(32), nullable=False),
        sa.Column("name", sa.String(256), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("templates", sa.BigInteger(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("updated", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_galleries"),
    )
    op.create_table(
        "gallery_changes",
        sa.Column("gallery_id", sa.String(63), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("person_id", sa.String(32), nullable=True),
        sa.Column("face_id", sa.String(32), nullable=True),
        sa.Column("created", MOMENT, nullable=False),
        of_gallery("gallery_changes"),
        sa.PrimaryKeyConstraint("gallery_id", "revision", name="pk_gallery_changes"),
    )
    op.create_index("ix_gallery_changes_created", "gallery_changes", ["created"])


def persons() -> None:
    op.create_table(
        "persons",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("gallery_id", sa.String(63), nullable=False),
        sa.Column("external_id", sa.String(256), nullable=True),
        sa.Column("name", sa.String(256), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("templates", sa.BigInteger(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("updated", MOMENT, nullable=False),
        of_gallery("persons"),
        sa.PrimaryKeyConstraint("seq", name="pk_persons"),
        sa.UniqueConstraint("gallery_id", "external_id", name="uq_persons_gallery_id_external_id"),
        sa.UniqueConstraint("id", name="uq_persons_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_persons_gallery_id_seq", "persons", ["gallery_id", "seq"])


def faces() -> None:
    op.create_table(
        "faces",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("gallery_id", sa.String(63), nullable=False),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("embedding_space", sa.String(80), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("box", JSON, nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("quality", JSON, nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        of_gallery("faces"),
        sa.ForeignKeyConstraint(
            ["person_id"], ["persons.id"], name="fk_faces_person_id_persons", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_faces"),
        sa.UniqueConstraint("id", name="uq_faces_id"),
        sa.UniqueConstraint("person_id", "digest", name="uq_faces_person_id_digest"),
        sqlite_autoincrement=True,
    )
    for column in ("seq", "revision", "embedding_space"):
        op.create_index(f"ix_faces_gallery_id_{column}", "faces", ["gallery_id", column])


def of_gallery(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["gallery_id"], ["galleries.id"], name=f"fk_{table}_gallery_id_galleries", ondelete="CASCADE"
    )


def downgrade() -> None:
    for table in ("faces", "persons", "gallery_changes", "galleries", "idempotency", "api_keys", "meta"):
        op.drop_table(table)
