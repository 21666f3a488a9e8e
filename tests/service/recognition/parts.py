"""The core on the synthetic bundle with a database of its own, constructed as bootstrap does it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from bundle.folder import Bundle, open_bundle
from service.inference.engines import Engines, open_engines
from service.recognition.enroll import Enroller
from service.recognition.gallery_sync import GallerySync
from service.recognition.images import Limits
from service.recognition.pipeline import Pipeline
from service.recognition.recognize import Recognizer
from service.storage.database import Database
from service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Core:
    bundle: Bundle
    engines: Engines
    pipeline: Pipeline
    sync: GallerySync
    recognizer: Recognizer
    enroller: Enroller
    metrics: Metrics


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def png(picture: object) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()  # type: ignore[index]


@asynccontextmanager
async def core(
    bundle: Path, folder: Path, *, queue_limit: int = 64, max_batch: int = 2
) -> AsyncIterator[Core]:
    opened, metrics = open_bundle(bundle), Metrics()
    engines = open_engines(
        opened, "onnxruntime", lanes=2, queue_limit=queue_limit, max_batch=max_batch, metrics=metrics
    )
    pipeline = Pipeline(
        opened, engines.detector, engines.embedder, threads=2, limits=Limits(), pixel_budget=60_000_000,
        queue_limit=queue_limit, metrics=metrics,
    )  # fmt: skip
    database = Database(f"sqlite+aiosqlite:///{folder / 'facet.sqlite3'}")
    await database.migrate()
    sync = GallerySync(database, opened.manifest.embedding_space, opened.manifest.embedder.dimension)
    await sync.load()
    try:
        yield Core(
            opened, engines, pipeline, sync, Recognizer(pipeline, sync), Enroller(pipeline, sync), metrics
        )
    finally:
        engines.close()
        pipeline.close()
        await sync.close()
        await database.close()
