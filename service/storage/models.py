"""The tables. A change here needs a migration in `migrations/` (a test compares the two).

Every write to a gallery adds one to `galleries.revision` and leaves one row in `gallery_changes`, in one
transaction.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

Json = JSON().with_variant(JSONB(), "postgresql")
# SQLite numbers rows itself only in a column of type INTEGER.
Sequence = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC; SQLite keeps no zone, so it is taken off and put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: Json,
        list[float]: Json,
        bytes: LargeBinary,
    }


class GalleryRow(Base):
    """`size` and `templates` are counts of persons and faces, kept by whoever writes them."""

    __tablename__ = "galleries"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    incarnation: Mapped[str] = mapped_column(String(32))
    name: Mapped[str | None] = mapped_column(String(256))
    # `metadata` is SQLAlchemy's own word on a model
    extra: Mapped[dict[str, Any]] = mapped_column("metadata")
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    templates: Mapped[int] = mapped_column(BigInteger, default=0)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class PersonRow(Base):
    __tablename__ = "persons"
    __table_args__ = (
        UniqueConstraint("gallery_id", "external_id"),
        Index(None, "gallery_id", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"))
    external_id: Mapped[str | None] = mapped_column(String(256))
    name: Mapped[str | None] = mapped_column(String(256))
    extra: Mapped[dict[str, Any]] = mapped_column("metadata")
    templates: Mapped[int] = mapped_column(BigInteger, default=0)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now)


class FaceRow(Base):
    """`embedding` is float32, little endian, of `embedding_space`; `revision` is the gallery's that added
    it."""

    __tablename__ = "faces"
    __table_args__ = (
        UniqueConstraint("person_id", "digest"),
        Index(None, "gallery_id", "seq"),
        Index(None, "gallery_id", "revision"),
        Index(None, "gallery_id", "embedding_space"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"))
    person_id: Mapped[str] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    revision: Mapped[int] = mapped_column(BigInteger)
    embedding_space: Mapped[str] = mapped_column(String(80))
    embedding: Mapped[bytes]
    digest: Mapped[str] = mapped_column(String(128))
    box: Mapped[list[float]]
    score: Mapped[float]
    quality: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now)


class ChangeRow(Base):
    """What one revision did, for replicas that follow: exactly one row a revision, old ones are pruned."""

    __tablename__ = "gallery_changes"

    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(32))
    person_id: Mapped[str | None] = mapped_column(String(32))
    face_id: Mapped[str | None] = mapped_column(String(32))
    created: Mapped[datetime] = mapped_column(default=now, index=True)


class IdempotencyRow(Base):
    __tablename__ = "idempotency"

    principal: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(256), primary_key=True)
    digest: Mapped[str] = mapped_column(String(128))
    answer: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now, index=True)


class ApiKeyRow(Base):
    """`hash` is BLAKE2b of the whole token under the pepper in `meta`; the token itself is nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    scopes: Mapped[str] = mapped_column(String(256))  # sorted, separated by spaces
    hash: Mapped[bytes]
    created: Mapped[datetime] = mapped_column(default=now)
    last_used: Mapped[datetime | None]
    revoked: Mapped[datetime | None]


class MetaRow(Base):
    """Single values of the whole installation, by name."""

    __tablename__ = "meta"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(1024))
