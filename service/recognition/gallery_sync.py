"""The only place that keeps the database and the galleries in memory equal.

Every write commits first, is applied to the index before it returns, and carries a revision (the gallery's,
plus one). If applying fails after the commit the caller gets `IndexUnavailable(write_committed=True)`, the
gallery answers no search and the replica is not ready, until a rebuild from the database in the background is
done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy.exc import IntegrityError

from service.errors import (
    EmbeddingSpaceMismatch,
    GalleryNotFound,
    IndexUnavailable,
    InvalidParameter,
)
from service.gallery.index import GalleryIndex
from service.gallery.snapshot import Snapshot, unit_vectors
from service.recognition.enrolment import (
    Added,
    Effect,
    Idempotency,
    PersonRef,
    Replay,
    answered,
    enrol,
    remember,
    who,
)
from service.recognition.projection import LiveGallery, Projection
from service.storage import changes as log
from service.storage import faces, galleries, idempotency, people
from service.storage.changes import Kind
from service.storage.database import Database, WriteSession
from service.storage.faces import NewFace
from service.storage.models import GalleryRow
from service.storage.records import Face, Gallery, Page, Person

__all__ = ["Added", "GallerySync", "Idempotency", "NewFace", "PersonRef", "Replay"]

Result = TypeVar("Result")
DEFAULT = "default"  # the gallery that is always there at the start
ATTEMPTS = 3  # at a write that another replica got in the way of
# What a write does inside its transaction: its result, and its effect on the index (None: nothing was
# written).
Work = Callable[[WriteSession, GalleryRow], Awaitable[tuple[Result, Effect | None]]]


class GallerySync:
    """The galleries of one embedding space: reads and writes of the database, searches of the index.

    `fault` is called with the name of each step of a write (`before_commit`, `after_commit`, `mid_apply`,
    `after_apply`): tests kill the process or raise there.
    """

    def __init__(
        self,
        database: Database,
        embedding_space: str,
        dimension: int,
        *,
        sync_interval_s: float = 1.0,
        max_lag_s: float = 5.0,
        fault: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._database = database
        self._space = embedding_space
        self._dimension = dimension
        self._fault = fault
        self._projection = Projection(database, embedding_space, dimension, sync_interval_s, max_lag_s, fault)
        self._writes: set[asyncio.Task[Any]] = set()

    async def load(self) -> None:
        """Builds every gallery's index from the database, makes `default` if it is not there, starts to
        follow other replicas' writes. Call once, before anything else. Raises `StartFailed` for a gallery
        that is damaged."""
        async with self._database.reading() as session:
            known = await session.get(GalleryRow, DEFAULT) is not None
        if not known:
            try:
                async with self._database.writing() as writing:
                    if await writing.get(GalleryRow, DEFAULT) is None:
                        await galleries.create(writing, DEFAULT, None, None)
            except IntegrityError:  # another replica started at the same moment
                pass
        await self._projection.load()

    async def close(self) -> None:
        """Ends the background work and waits for writes that are under way. The database stays open."""
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._projection.close()

    @property
    def ready(self) -> bool:
        """All galleries are built and no other replica's write older than `max_lag_s` is missing."""
        return self._projection.ready

    @property
    def problems(self) -> Mapping[str, str]:
        """Why a gallery is not searched, by id: being rebuilt, or its vectors are of another embedding
        space."""
        return self._projection.problems

    def snapshot(self, gallery_id: str) -> Snapshot:
        """The gallery as of now. Costs nothing; take one for each request and search only it.

        Raises `GalleryNotFound`, `NotReady` (not loaded, or lags behind other replicas), `IndexUnavailable`
        (being rebuilt; nothing was written), `EmbeddingSpaceMismatch` (enrolled with another model: enrol
        again)."""
        return self._projection.snapshot(gallery_id)

    def snapshots(self) -> list[Snapshot]:
        """Every gallery as of now, whether or not it may be searched: for metrics."""
        return self._projection.snapshots()

    # Reads: straight from the database.

    async def replay(self, principal: str, key: str, digest: str) -> Replay | None:
        """The stored answer of this idempotency key; `IdempotencyConflict` when its request was another."""
        idempotency.check_key(key)
        async with self._database.reading() as session:
            answer = await idempotency.find(session, principal, key, digest)
        return None if answer is None else Replay(answer)

    async def get_gallery(self, gallery_id: str) -> Gallery:
        """`GalleryNotFound` if there is none."""
        async with self._database.reading() as session:
            return galleries.record(await galleries.get(session, gallery_id))

    async def list_galleries(self, *, cursor: str | None = None, limit: int = 100) -> Page[Gallery]:
        """Galleries by id."""
        async with self._database.reading() as session:
            return await galleries.find(session, cursor, limit)

    async def get_person(self, gallery_id: str, person_id: str) -> Person:
        """`GalleryNotFound`, `PersonNotFound`."""
        async with self._database.reading() as session:
            await galleries.get(session, gallery_id)
            return people.record(await people.get(session, gallery_id, person_id))

    async def get_persons(self, gallery_id: str, person_ids: Sequence[str]) -> dict[str, Person]:
        """Those of `person_ids` who exist now, by id. A hit whose person is gone must not be reported."""
        async with self._database.reading() as session:
            return await people.get_many(session, gallery_id, person_ids)

    async def find_person(self, gallery_id: str, ref: PersonRef) -> Person | None:
        """Whom `add_faces` would add to: None for a new person. Raises what it would raise about the
        person."""
        async with self._database.reading() as session:
            await galleries.get(session, gallery_id)
            row = await who(session, gallery_id, ref)
            return None if row is None else people.record(row)

    async def list_persons(
        self, gallery_id: str, *, cursor: str | None = None, limit: int = 100, external_id: str | None = None
    ) -> Page[Person]:
        """Persons in the order of their creation, all or the one with `external_id`."""
        async with self._database.reading() as session:
            await galleries.get(session, gallery_id)
            return await people.find(session, gallery_id, cursor, limit, external_id)

    async def list_faces(
        self, gallery_id: str, person_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[Face]:
        """A person's faces in the order of their enrolment."""
        async with self._database.reading() as session:
            await galleries.get(session, gallery_id)
            await people.get(session, gallery_id, person_id)
            return await faces.find(session, person_id, cursor, limit)

    async def person_embeddings(self, gallery_id: str, person_id: str) -> npt.NDArray[np.float32]:
        """The person's templates, float32 [n, d], for one-to-one verification; `EmbeddingSpaceMismatch` if
        they have templates and one of them is of another model."""
        async with self._database.reading() as session:
            await galleries.get(session, gallery_id)
            person = await people.get(session, gallery_id, person_id)
            block = await faces.of_person(session, person_id, self._space, self._dimension)
        if len(block.faces) != person.templates:
            raise EmbeddingSpaceMismatch("this person was enrolled with another model", gallery=gallery_id)
        return block.vectors

    async def face_digests(self, gallery_id: str, person_id: str) -> frozenset[str]:
        """The pixel digests of the person's faces, to say `duplicate` before embedding; `add_faces` checks
        again."""
        async with self._database.reading() as session:
            await people.get(session, gallery_id, person_id)
            return await faces.digests(session, person_id)

    # Writes: commit, apply to the index, return.

    async def create_gallery(
        self,
        gallery_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
    ) -> Gallery | Replay:
        """`GalleryExists`; `InvalidParameter` unless the id is a slug: [a-z0-9][a-z0-9_-]{0,62}."""
        return await self._finish(self._create_gallery(gallery_id, name, metadata, idempotency))

    async def update_gallery(self, gallery_id: str, changes: Mapping[str, Any]) -> Gallery:
        """Sets those of `name` and `metadata` that `changes` holds (None clears)."""

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[Gallery, Effect]:
            galleries.update(gallery, changes)
            await log.record(session, gallery, Kind.GALLERY)
            return galleries.record(gallery), _nothing

        return await self._write(gallery_id, work)

    async def delete_gallery(self, gallery_id: str) -> None:
        """Deletes it with everyone in it. The next start makes `default` anew, empty."""
        await self._finish(self._delete_gallery(gallery_id))

    async def create_person(
        self,
        gallery_id: str,
        *,
        external_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
    ) -> Person | Replay:
        """A person without faces; `ExternalIdExists`."""

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[Person | Replay, Effect | None]:
            if (replay := await answered(session, idempotency)) is not None:
                return replay, None
            row = await people.create(session, gallery.id, external_id, name, metadata)
            await log.record(session, gallery, Kind.PERSON, person_id=row.id, size=1)
            person = people.record(row)
            await remember(session, idempotency, person)
            return person, _nothing

        return await self._write(gallery_id, work)

    async def update_person(self, gallery_id: str, person_id: str, changes: Mapping[str, Any]) -> Person:
        """Sets those of `name`, `external_id` and `metadata` that `changes` holds (None clears)."""

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[Person, Effect]:
            row = await people.get(session, gallery.id, person_id)
            await people.update(session, row, changes)
            await log.record(session, gallery, Kind.PERSON, person_id=person_id)
            return people.record(row), _nothing

        return await self._write(gallery_id, work)

    async def delete_person(self, gallery_id: str, person_id: str) -> None:
        """The person and their faces. No search on this replica that begins after this has returned finds
        them."""

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[None, Effect]:
            row = await people.get(session, gallery.id, person_id)
            templates = row.templates
            await people.remove(session, person_id)
            await log.record(
                session, gallery, Kind.PERSON_DELETED, person_id=person_id, size=-1, templates=-templates
            )
            return None, lambda index: index.remove_person(person_id)

        await self._write(gallery_id, work)

    async def add_faces(
        self,
        gallery_id: str,
        person: PersonRef,
        new_faces: Sequence[NewFace],
        *,
        idempotency: Idempotency | None = None,
    ) -> Added | Replay:
        """Adds faces to an existing or a new person, in one transaction.

        Raises `GalleryNotFound`, `PersonNotFound`, `NameConflict`, `ExternalIdExists`, `IdempotencyConflict`,
        `EmbeddingSpaceMismatch`, `InvalidParameter` (a vector that is not a finite unit vector [d])."""
        if not new_faces:
            raise InvalidParameter("at least one face is needed", parameter="faces")
        unit_vectors(np.stack([np.asarray(face.embedding) for face in new_faces]), self._dimension)

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[Added | Replay, Effect | None]:
            if (replay := await answered(session, idempotency)) is not None:
                return replay, None
            if await faces.has_foreign(session, gallery.id, self._space):
                raise EmbeddingSpaceMismatch(
                    "the gallery holds templates of another model", gallery=gallery.id
                )
            added, effect = await enrol(session, gallery, self._space, person, new_faces)
            if effect is not None:
                await remember(session, idempotency, added)
            return added, effect

        return await self._write(gallery_id, work)

    async def delete_face(self, gallery_id: str, person_id: str, face_id: str) -> None:
        """`FaceNotFound`, `PersonNotFound`, `GalleryNotFound`."""

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[None, Effect]:
            person = await people.get(session, gallery.id, person_id)
            await faces.get(session, gallery.id, person_id, face_id)
            await faces.remove(session, face_id)
            person.templates -= 1
            await log.record(
                session, gallery, Kind.FACE_DELETED, person_id=person_id, face_id=face_id, templates=-1
            )
            return None, lambda index: index.remove_face(person_id, face_id)

        await self._write(gallery_id, work)

    async def rebuild(self, gallery_id: str | None = None) -> None:
        """Throws the index away (of one gallery or of all) and builds it from the database again."""
        chosen = (
            [gallery_id] if gallery_id is not None else [of.id for of in (await self.list_galleries()).items]
        )
        for chosen_id in chosen:
            await self._projection.rebuild(chosen_id)

    async def drop_foreign_faces(self, gallery_id: str) -> int:
        """Deletes the faces of other embedding spaces (persons stay) so that the gallery can be enrolled
        again; how many there were."""

        async def work(session: WriteSession, gallery: GalleryRow) -> tuple[int, Effect | None]:
            dropped = await faces.remove_foreign(session, gallery.id, self._space)
            if not dropped:
                return 0, None
            await log.record(session, gallery, Kind.RELOAD, templates=-dropped)
            return dropped, _nothing

        dropped = await self._write(gallery_id, work)
        if dropped:
            await self._projection.rebuild(gallery_id)
        return dropped

    # How a write is done.

    async def _write(self, gallery_id: str, work: Work[Result]) -> Result:
        return await self._finish(self._commit_and_apply(gallery_id, work))

    async def _finish(self, write: Coroutine[Any, Any, Result]) -> Result:
        """A caller may leave; a write that has begun is ended all the same, or index and database would
        differ."""
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may have left: nobody else asks

    async def _commit_and_apply(self, gallery_id: str, work: Work[Result]) -> Result:
        for attempt in range(ATTEMPTS):
            live = await self._live(gallery_id)
            try:
                return await self._once(gallery_id, live, work)
            except Outdated:
                await self._projection.sync()
            except IntegrityError:
                # Another replica stored the same key first: look again, and say what there is to say about
                # it.
                if attempt == ATTEMPTS - 1:
                    raise
        raise GalleryNotFound("no gallery has this id")

    async def _once(self, gallery_id: str, live: LiveGallery, work: Work[Result]) -> Result:
        async with live.lock:
            if live.broken:
                raise IndexUnavailable("the index is being rebuilt", write_committed=False)
            async with self._database.writing() as session:
                row = await galleries.lock(session, gallery_id)
                if row.incarnation != live.incarnation:
                    raise Outdated
                result, effect = await work(session, row)
                gallery = galleries.record(row)
                self._fault("before_commit")
            if effect is not None:
                await self._projection.apply(live, gallery, effect)
        return result

    async def _live(self, gallery_id: str) -> LiveGallery:
        try:
            return self._projection.live(gallery_id)
        except GalleryNotFound:
            await self._projection.sync()  # another replica may just have made it
            return self._projection.live(gallery_id)

    async def _create_gallery(
        self, gallery_id: str, name: str | None, metadata: Mapping[str, Any] | None, once: Idempotency | None
    ) -> Gallery | Replay:
        for attempt in range(ATTEMPTS):
            try:
                async with self._database.writing() as session:
                    if (replay := await answered(session, once)) is not None:
                        return replay
                    gallery = galleries.record(await galleries.create(session, gallery_id, name, metadata))
                    await remember(session, once, gallery)
                    self._fault("before_commit")
                break
            except IntegrityError:
                if attempt == ATTEMPTS - 1:
                    raise
        self._projection.begin(gallery)
        return gallery

    async def _delete_gallery(self, gallery_id: str) -> None:
        live = await self._live(gallery_id)
        async with live.lock:
            async with self._database.writing() as session:
                await galleries.lock(session, gallery_id)
                await galleries.remove(session, gallery_id)
                self._fault("before_commit")
            self._projection.end(gallery_id, live)


class Outdated(Exception):
    """This replica knows another life of the gallery; look again."""


def _nothing(index: GalleryIndex) -> None:
    """The effect of a write that touches no template."""
