"""The galleries in memory as a projection of the database: built from it, following it, thrown away when in
doubt.

Only `gallery_sync` uses this. A gallery's index changes under its lock, on the event loop, in the order of
revisions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import structlog

from service.errors import (
    EmbeddingSpaceMismatch,
    FacetError,
    GalleryNotFound,
    IndexUnavailable,
    NotReady,
    StartFailed,
)
from service.gallery import compaction
from service.gallery.index import GalleryIndex
from service.gallery.snapshot import Snapshot
from service.recognition.enrolment import Effect
from service.storage import changes, faces, galleries, idempotency
from service.storage.changes import Kind
from service.storage.database import Database, ReadSession
from service.storage.models import GalleryRow
from service.storage.records import Gallery

log = structlog.get_logger(__name__)

PRUNE_EVERY_S = 600.0
RETRY_S = 1.0  # between two attempts to rebuild


@dataclass(slots=True, eq=False)
class LiveGallery:
    """One life of one gallery. `broken`: the index may differ from the database and answers nothing.
    `foreign`: how many vectors are of other embedding spaces; while there are any, nothing is searched."""

    incarnation: str
    index: GalleryIndex
    foreign: int = 0
    broken: bool = False
    compacting: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Projection:
    """Every gallery of the database that this replica serves."""

    def __init__(
        self,
        database: Database,
        embedding_space: str,
        dimension: int,
        sync_interval_s: float,
        max_lag_s: float,
        fault: Callable[[str], None],
    ) -> None:
        self._database = database
        self._space = embedding_space
        self._dimension = dimension
        self._interval_s = sync_interval_s
        self._max_lag_s = max_lag_s
        self._fault = fault
        self._live: dict[str, LiveGallery] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._syncing = asyncio.Lock()
        self._synced_s: float | None = None  # when the newest complete look at the revisions began

    async def load(self) -> None:
        """Builds every gallery, then follows the database."""
        async with self._database.reading() as session:
            names = await galleries.names(session)
        for gallery_id in names:
            try:
                await self._admit(gallery_id)
            except (ValueError, FacetError) as damaged:
                raise StartFailed(f"gallery {gallery_id} cannot be loaded: {damaged}") from damaged
        await self.sync()
        self._spawn(self._follow())

    async def close(self) -> None:
        """Ends the background work."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def ready(self) -> bool:
        return not self._lagging() and not any(live.broken for live in self._live.values())

    @property
    def problems(self) -> dict[str, str]:
        found = {}
        for gallery_id, live in self._live.items():
            if live.broken:
                found[gallery_id] = "the index is being rebuilt"
            elif live.foreign:
                found[gallery_id] = (
                    f"{live.foreign} templates were enrolled with another model: enrol them again"
                )
        return found

    def snapshots(self) -> list[Snapshot]:
        """Every gallery as searches see it, whether or not it may be searched now."""
        return [live.index.snapshot for live in self._live.values()]

    def snapshot(self, gallery_id: str) -> Snapshot:
        if self._lagging():
            raise NotReady("the index may lag behind the database", reason="index")
        live = self.live(gallery_id)
        if live.broken:
            raise IndexUnavailable("the index is being rebuilt", write_committed=False)
        if live.foreign:
            raise EmbeddingSpaceMismatch(
                "the gallery was enrolled with another model: enrol its persons again", gallery=gallery_id
            )
        return live.index.snapshot

    def live(self, gallery_id: str) -> LiveGallery:
        found = self._live.get(gallery_id)
        if found is None:
            raise GalleryNotFound("no gallery has this id")
        return found

    def _lagging(self) -> bool:
        return self._synced_s is None or time.monotonic() - self._synced_s > self._max_lag_s

    # This replica's own writes.

    def begin(self, gallery: Gallery) -> None:
        """A gallery was created here."""
        known = self._live.get(gallery.id)
        if known is None or known.incarnation != gallery.incarnation:
            self._live[gallery.id] = LiveGallery(
                gallery.incarnation, GalleryIndex(gallery.id, self._dimension)
            )

    def end(self, gallery_id: str, live: LiveGallery) -> None:
        """A gallery was deleted."""
        if self._live.get(gallery_id) is live:
            del self._live[gallery_id]

    async def apply(self, live: LiveGallery, gallery: Gallery, effect: Effect) -> None:
        """Makes the index equal to a write that was just committed; the caller holds `live.lock`.

        Raises `IndexUnavailable` (the write is committed) and rebuilds in the background when that fails."""
        try:
            self._fault("after_commit")
            if gallery.revision == live.index.snapshot.revision + 1:
                effect(live.index)
                self._fault("mid_apply")
                live.index.publish(gallery.revision, gallery.size)
                if live.foreign:  # this write may have deleted the last of them
                    async with self._database.reading() as session:
                        live.foreign = await self._foreign(session, gallery.id)
            else:  # another replica wrote in between
                await self._catch_up(gallery.id, live)
            self._fault("after_apply")
        except Exception as failure:
            log.error(
                "index_apply_failed",
                gallery=gallery.id,
                revision=gallery.revision,
                kind=type(failure).__name__,
            )
            self._break(gallery.id, live)
            raise IndexUnavailable(write_committed=True) from failure
        self._compact(live)

    # Following the database.

    async def sync(self) -> None:
        """Looks once at every gallery's revision and applies what other replicas wrote."""
        async with self._syncing:
            began = time.monotonic()
            async with self._database.reading() as session:
                current = await galleries.revisions(session)
            for gallery_id in current.keys() | self._live.keys():
                await self._see(gallery_id, current.get(gallery_id))
            self._synced_s = began

    async def _see(self, gallery_id: str, current: tuple[str, int] | None) -> None:
        live = self._live.get(gallery_id)
        if live is None:
            return await self._admit(gallery_id)
        if live.broken or current == (live.incarnation, live.index.snapshot.revision):
            return None
        async with live.lock:
            try:
                await self._catch_up(gallery_id, live)
            except NotReady:
                raise
            except Exception as failure:
                log.error("index_catch_up_failed", gallery=gallery_id, kind=type(failure).__name__)
                self._break(gallery_id, live)
        return None

    async def _catch_up(self, gallery_id: str, live: LiveGallery) -> None:
        """Applies the log from the index's revision to the database's; under `live.lock`."""
        index = live.index
        async with self._database.reading() as session:
            row = await session.get(GalleryRow, gallery_id)
            if row is None or row.incarnation != live.incarnation:
                self.end(gallery_id, live)
                return None if row is None else await self._admit(gallery_id)
            done = await changes.between(session, gallery_id, index.snapshot.revision, row.revision)
            if done is None or any(change.kind is Kind.RELOAD for change in done):
                built = await self._build(session, row)
                live.index, live.foreign = built.index, built.foreign
                return None
            after = index.snapshot.revision
            block = await faces.added(session, gallery_id, self._space, self._dimension, after, row.revision)
            live.foreign = await self._foreign(session, gallery_id)
        if block.faces:
            index.add(block.persons, block.faces, block.vectors)
        for change in done:
            _remove(index, change)
        index.publish(row.revision, row.size)
        self._compact(live)
        return None

    async def _admit(self, gallery_id: str) -> None:
        """Takes in a gallery that this replica does not know, unless it is gone by now."""
        async with self._database.reading() as session:
            row = await session.get(GalleryRow, gallery_id)
            if row is None:
                return
            built = await self._build(session, row)
        known = self._live.get(gallery_id)
        if known is None or known.incarnation != built.incarnation:
            self._live[gallery_id] = built
            if built.foreign:
                log.warning("gallery_of_another_model", gallery=gallery_id, templates=built.foreign)

    async def _build(self, session: ReadSession, row: GalleryRow) -> LiveGallery:
        index = GalleryIndex(row.id, self._dimension)
        async for block in faces.blocks(session, row.id, self._space, self._dimension):
            await asyncio.to_thread(index.load, block.persons, block.faces, block.vectors)
        await asyncio.to_thread(index.recount)
        index.publish(row.revision, row.size)
        return LiveGallery(row.incarnation, index, await self._foreign(session, row.id))

    async def _foreign(self, session: ReadSession, gallery_id: str) -> int:
        if not await faces.has_foreign(session, gallery_id, self._space):
            return 0
        spaces = await faces.spaces(session, gallery_id)
        return sum(count for space, count in spaces.items() if space != self._space)

    # Rebuilding and compacting.

    async def rebuild(self, gallery_id: str) -> None:
        """Builds the gallery anew beside the old index, then swaps."""
        live = self.live(gallery_id)
        async with self._database.reading() as session:
            row = await session.get(GalleryRow, gallery_id)
            built = None if row is None else await self._build(session, row)
        async with live.lock:
            if built is not None and built.incarnation == live.incarnation:
                live.index, live.foreign = built.index, built.foreign
            await self._catch_up(
                gallery_id, live
            )  # what was written while it was built; ends a gallery that is gone
            live.broken = False

    def _break(self, gallery_id: str, live: LiveGallery) -> None:
        if not live.broken:
            live.broken = True
            self._spawn(self._repair(gallery_id, live))

    async def _repair(self, gallery_id: str, live: LiveGallery) -> None:
        while live.broken and self._live.get(gallery_id) is live:
            try:
                await self.rebuild(gallery_id)
                log.info("index_rebuilt", gallery=gallery_id, templates=live.index.snapshot.templates)
            except Exception as failure:
                log.error("index_rebuild_failed", gallery=gallery_id, kind=type(failure).__name__)
                await asyncio.sleep(RETRY_S)

    def _compact(self, live: LiveGallery) -> None:
        if live.compacting:
            return
        planned = compaction.plan(live.index)
        if planned is not None:
            live.compacting = True
            self._spawn(self._compact_apart(live, live.index, planned))

    async def _compact_apart(
        self, live: LiveGallery, index: GalleryIndex, planned: compaction.Compaction
    ) -> None:
        try:
            await asyncio.to_thread(planned.build)
            async with live.lock:
                if live.index is index and not live.broken:
                    compaction.adopt(index, planned)
        finally:
            live.compacting = False

    async def _follow(self) -> None:
        pruned = time.monotonic()
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.sync()
                if time.monotonic() - pruned > PRUNE_EVERY_S:
                    pruned = time.monotonic()
                    async with self._database.writing() as session:
                        await changes.prune(session)
                        await idempotency.prune(session)
            except (
                Exception
            ) as failure:  # whatever it is, the next round tries again; meanwhile the lag says it
                log.warning("sync_failed", kind=type(failure).__name__)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _remove(index: GalleryIndex, change: changes.Change) -> None:
    if change.kind is Kind.PERSON_DELETED and change.person_id is not None:
        index.remove_person(change.person_id)
    elif change.kind is Kind.FACE_DELETED and change.person_id is not None and change.face_id is not None:
        index.remove_face(change.person_id, change.face_id)
