"""What the database knows, as plain frozen values: nothing of SQLAlchemy leaves `service.storage` but through
here.

A record is a copy made inside a transaction; it never refreshes itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

Metadata = Mapping[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Gallery:
    """A gallery: `size` counts persons, `templates` faces, `revision` every write it ever had."""

    id: str
    name: str | None
    metadata: Metadata
    size: int
    templates: int
    revision: int
    created: datetime
    updated: datetime
    # Random for each life of the id: a gallery deleted and created again under one id is another gallery.
    incarnation: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """A person of one gallery; `id` is random and never used again, `external_id` is the caller's."""

    id: str
    gallery_id: str
    external_id: str | None
    name: str | None
    metadata: Metadata
    templates: int
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class Face:
    """One enrolled template, without its vector. `box` is xyxy in pixels of the upright picture it came
    from."""

    id: str
    person_id: str
    box: tuple[float, float, float, float]
    score: float
    quality: Mapping[str, float]
    created: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret. `last_used` is coarse: at most one update an hour."""

    id: str
    name: str
    scopes: frozenset[str]
    created: datetime
    last_used: datetime | None
    revoked: datetime | None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items in a stable order, and the cursor that continues after them (None: no more)."""

    items: tuple[Item, ...]
    next_cursor: str | None
