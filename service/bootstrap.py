"""Wires the service: the one place where parts are constructed and handed to each other.

Rule: plain constructor calls only. Deep code receives the values it needs, never the settings; parts are closed in
the reverse order of their construction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np

from bundle.folder import Bundle, BundleError, BundleMissing, open_bundle
from bundle.manifest import Manifest
from bundle.views import shapes as shapes_of
from service.auth import ApiKeys, Authenticator, FirstKey, first_start
from service.config import Settings
from service.errors import FacetError, StartFailed
from service.inference.engines import Engines, open_engines
from service.recognition.enroll import Enroller
from service.recognition.gallery_sync import GallerySync
from service.recognition.images import Limits
from service.recognition.pipeline import Pipeline
from service.recognition.recognize import Recognizer
from service.storage.database import Database
from service.telemetry.metrics import Metrics

WARM_UP_S: Final = 120.0  # a first run may build or tune kernels


class Phase(Enum):
    """Where a process stands in its life; only `SERVING` may be ready."""

    WARMING = "warming"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Census:
    """How many persons there are, in how many galleries."""

    people: int
    galleries: int


@dataclass(slots=True)
class Facet:
    """The whole service below the doors. Doors read it; only `start`, `drain` and `close` change it."""

    settings: Settings
    bundle: Bundle
    backend: str  # the backend that was really opened, e.g. "onnxruntime"
    metrics: Metrics
    database: Database
    api_keys: ApiKeys
    authenticator: Authenticator
    first_key: FirstKey | None  # where this start generated one
    sync: GallerySync
    engines: Engines
    recognizer: Recognizer
    enroller: Enroller
    _parts: AsyncExitStack = field(repr=False)
    phase: Phase = Phase.WARMING

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now: warmed up, not draining, index equal to the database."""
        return self.phase is Phase.SERVING and self.sync.ready

    @property
    def not_ready_reason(self) -> str | None:
        """None while ready, else `warming`, `draining` or `index`."""
        if self.phase is not Phase.SERVING:
            return str(self.phase.value)
        ready: bool = self.sync.ready
        return None if ready else "index"

    async def start(self) -> None:
        """Load the galleries and warm the models up; ready afterwards. Raises `StartFailed`."""
        await self.sync.load()
        await warm_up(self.engines, self.bundle.manifest)
        if self.phase is Phase.WARMING:  # or it was asked to drain meanwhile
            self.phase = Phase.SERVING

    def drain(self) -> None:
        """Not ready from now on; what is asked all the same is still answered, until the doors close."""
        self.phase = Phase.DRAINING

    async def census(self) -> Census:
        """Counts everyone."""
        people = galleries = 0
        cursor: str | None = None
        while True:
            page = await self.sync.list_galleries(cursor=cursor)
            people += sum(gallery.size for gallery in page.items)
            galleries += len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return Census(people, galleries)

    async def close(self) -> None:
        """Release everything, last constructed first. Safe to call twice."""
        self.drain()
        await self._parts.aclose()


async def build(settings: Settings) -> Facet:
    """`assemble` and `start` in one: a Facet that is ready. Raises `StartFailed`."""
    facet = await assemble(settings)
    try:
        await facet.start()
    except BaseException:
        await facet.close()
        raise
    return facet


async def assemble(settings: Settings) -> Facet:
    """Construct every part, apply the migrations, and return a Facet that is not ready yet (call `start`).

    Raises `StartFailed` for anything that the operator has to put right; nothing stays open then.
    """
    async with AsyncExitStack() as parts:
        return await _assemble(settings, parts)
    raise AssertionError("an exit stack swallows nothing")


async def _assemble(settings: Settings, parts: AsyncExitStack) -> Facet:
    admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
    auth_on = settings.auth == "on"
    bundle = await asyncio.to_thread(open_licensed, settings.bundle, settings.require_licence)
    manifest = bundle.manifest
    metrics = Metrics()
    engines = await asyncio.to_thread(
        open_engines,
        bundle,
        settings.backend,
        lanes=settings.lanes,
        queue_limit=settings.queue_limit,
        max_batch=settings.max_batch,
        metrics=metrics,
    )
    parts.push_async_callback(asyncio.to_thread, engines.close)
    metrics.model.labels(manifest.model_id, manifest.embedding_space, engines.backend).set(1)
    database = await open_database(settings)
    parts.push_async_callback(database.close)
    api_keys = ApiKeys(database)
    parts.push_async_callback(api_keys.close)
    first_key = await first_start(api_keys, settings.data_dir, enabled=auth_on, admin_key=admin_key)
    sync = _sync(settings, database, manifest)
    parts.push_async_callback(sync.close)
    metrics.watch(sync.snapshots, lambda: sync.ready)
    pipeline = Pipeline(
        bundle,
        engines.detector,
        engines.embedder,
        threads=settings.decoders,
        limits=Limits(settings.max_body_bytes, settings.max_pixels),
        pixel_budget=settings.pixel_budget,
        queue_limit=settings.queue_limit,
        metrics=metrics,
    )
    parts.push_async_callback(asyncio.to_thread, pipeline.close)
    return Facet(
        settings=settings,
        bundle=bundle,
        backend=engines.backend,
        metrics=metrics,
        database=database,
        api_keys=api_keys,
        authenticator=Authenticator(api_keys, enabled=auth_on, admin_key=admin_key),
        first_key=first_key,
        sync=sync,
        engines=engines,
        recognizer=Recognizer(pipeline, sync),
        enroller=Enroller(pipeline, sync),
        _parts=parts.pop_all(),  # from here on `close` releases them
    )


def open_licensed(path: Path, required: str | None) -> Bundle:
    """The bundle at `path`, every file verified; `required`: its licence, None for any. Raises `StartFailed`."""
    try:
        bundle = open_bundle(path)
    except BundleMissing as error:
        raise StartFailed(f"FACET_BUNDLE: {error}: name the folder of a bundle") from None
    except BundleError as error:
        raise StartFailed(f"FACET_BUNDLE: {error}") from None
    licence = bundle.manifest.licence.id
    if required is not None and licence != required:
        raise StartFailed(
            f"FACET_REQUIRE_LICENCE={required}: the bundle {bundle.manifest.model_id} is under the licence {licence}"
        )
    return bundle


async def open_database(settings: Settings) -> Database:
    """The database with its schema up to date. Raises `StartFailed`."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds biometric data
    except OSError as error:
        raise StartFailed(f"FACET_DATA_DIR: cannot make {settings.data_dir}: {error.strerror}") from None
    database = Database(settings.url)
    try:
        await database.migrate()
    except BaseException:
        await database.close()
        raise
    return database


@asynccontextmanager
async def open_sync(settings: Settings) -> AsyncIterator[GallerySync]:
    """The galleries alone, loaded, without models and doors: for maintenance. Raises `StartFailed`."""
    bundle = await asyncio.to_thread(open_licensed, settings.bundle, None)
    database = await open_database(settings)
    try:
        sync = _sync(settings, database, bundle.manifest)
        try:
            await sync.load()
            yield sync
        finally:
            await sync.close()
    finally:
        await database.close()


def _sync(settings: Settings, database: Database, manifest: Manifest) -> GallerySync:
    return GallerySync(
        database,
        manifest.embedding_space,
        manifest.embedder.dimension,
        sync_interval_s=settings.sync_interval_s,
        max_lag_s=settings.max_lag_s,
    )


async def warm_up(engines: Engines, manifest: Manifest) -> None:
    """Run each model on every shape that it will be given, once a lane, and look at what it answers.

    Raises `StartFailed`: a bundle that does not run here must not wait for the first caller to say so.
    """
    crop = manifest.embedder.crop
    shapes = [(engines.detector, (height, width)) for width, height in shapes_of(manifest.detector)]
    shapes.append((engines.embedder, (crop, crop)))
    deadline = time.monotonic() + WARM_UP_S
    try:
        for engine, shape in shapes:
            blank = np.zeros((*shape, 3), np.uint8)
            outputs = await asyncio.gather(
                *(engine.submit(blank, deadline) for _ in range(engines.lanes.count))
            )
    except FacetError as error:  # its cause stands in the log
        message = f"FACET_BUNDLE: {manifest.model_id} does not run on {engines.backend}: {error.message}"
        raise StartFailed(message) from None
    (vector,) = outputs[0].rows
    if vector.shape != (manifest.embedder.dimension,):
        raise StartFailed(
            f"FACET_BUNDLE: {manifest.model_id}: its embedder answers vectors of shape {vector.shape}"
        )
