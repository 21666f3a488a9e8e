"""What the tests of `gallery_sync` share: templates, an open database, and the comparison of index and
database."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
from sqlalchemy import func, select

from service.recognition.gallery_sync import GallerySync, NewFace
from service.storage.database import Database
from service.storage.models import FaceRow, GalleryRow, PersonRow

D = 16
SPACE = "es_" + "a" * 64
OTHER_SPACE = "es_" + "b" * 64


def unit(seed: int, dimension: int = D) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def face(seed: int, digest: str | None = None) -> NewFace:
    return NewFace(unit(seed), digest or f"digest{seed}", (1.0, 2.0, 30.0, 40.0), 0.9, {"overall": 0.8})


@asynccontextmanager
async def opened(
    url: str,
    *,
    fault: Callable[[str], None] = lambda name: None,
    space: str = SPACE,
    interval_s: float = 3600,
    max_lag_s: float = 7200,
) -> AsyncIterator[GallerySync]:
    database = Database(url)
    await database.migrate()
    sync = GallerySync(database, space, D, sync_interval_s=interval_s, max_lag_s=max_lag_s, fault=fault)
    try:
        await sync.load()
        yield sync
    finally:
        await sync.close()
        await database.close()


async def assert_equal(sync: GallerySync, *, foreign: bool = False) -> dict[str, dict[str, str]]:
    """Index ≡ database, to the last bit of every vector and in every count; the faces and owners of each
    gallery."""
    found: dict[str, dict[str, str]] = {}
    async with sync._database.reading() as session:
        for gallery in await session.scalars(select(GalleryRow)):
            rows = (await session.scalars(select(FaceRow).where(FaceRow.gallery_id == gallery.id))).all()
            persons = (
                await session.scalars(select(PersonRow).where(PersonRow.gallery_id == gallery.id))
            ).all()
            stored = {row.id: (row.person_id, row.embedding) for row in rows if row.embedding_space == SPACE}
            snapshot = sync._projection.live(gallery.id).index.snapshot
            assert in_memory(snapshot) == stored
            assert (snapshot.revision, snapshot.size) == (gallery.revision, gallery.size)
            assert (gallery.size, gallery.templates) == (len(persons), len(rows))
            each = Counter(row.person_id for row in rows)
            assert {person.id: person.templates for person in persons if person.templates} == dict(each)
            if not foreign:
                assert dict(snapshot.histogram) == dict(Counter(each.values()))
                assert snapshot.templates == len(rows)
            found[gallery.id] = {row.id: row.person_id for row in rows}
        assert await session.scalar(select(func.count()).select_from(FaceRow)) == sum(
            map(len, found.values())
        )
    assert set(found) == set(sync._projection._live)
    return found


def in_memory(snapshot: object) -> dict[str, tuple[str, bytes]]:
    found = {}
    for segment in snapshot.segments:  # type: ignore[attr-defined]
        for row in range(segment.rows):
            if segment.dead is None or not segment.dead[row]:
                person, name = segment.persons[row].decode(), segment.faces[row].decode()
                found[name] = (person, segment.vectors[row].tobytes())
    return found
