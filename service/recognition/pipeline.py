"""The way of one picture: bytes → pixels → canvas → views → detector → faces → crops → embedder → vectors.

Three hops off the event loop a picture (prepare, locate, and each engine's own), none a face. What leaves here was
computed from the caller's own bytes alone: nothing is kept between pictures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from bundle.align import align
from bundle.decode import Detections
from bundle.folder import Bundle
from bundle.manifest import DetectorSpec
from bundle.preprocess import Letterbox, canvas_for, letterbox
from bundle.views import View, faces_in, views
from service.errors import Internal, InvalidParameter
from service.gallery.snapshot import UNIT_TOLERANCE
from service.inference.engine import Engine, Output
from service.inference.engines import FACES_IN_FLIGHT
from service.recognition.admission import Admission, PixelBudget
from service.recognition.faces import Analysis, Box, Face, ImageSize, Which, clipped
from service.recognition.headers import Header
from service.recognition.images import Limits, Picture, decode, inspect
from service.recognition.pool import Pool
from service.recognition.quality import assess
from service.telemetry.metrics import Metrics

Floats = npt.NDArray[np.float32]
Crop = npt.NDArray[np.uint8]
Result = TypeVar("Result")

# OpenCV's warp refuses sides above 32,767: near that, only the part around a face is handed to it.
_WARP_SIDE = 32_000


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    picture: Picture
    views: tuple[View, ...]  # of the canvas
    placed: Letterbox  # the picture on the canvas
    digest: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Located:
    faces: list[Face]
    crops: list[Crop]  # one a face


@dataclass(slots=True)
class _Clock:
    """Milliseconds by stage; stages of a picture add up, waiting is told apart from working."""

    started: float
    spent: dict[str, float]

    def add(self, stage: str, waited_s: float, ran_s: float) -> None:
        self.spent["queue"] = self.spent.get("queue", 0.0) + waited_s * 1000
        self.spent[stage] = self.spent.get(stage, 0.0) + ran_s * 1000

    def read(self) -> dict[str, float]:
        total = (time.monotonic() - self.started) * 1000
        return {stage: round(spent, 3) for stage, spent in {**self.spent, "total": total}.items()}


class Pipeline:
    """A bundle's models as one function of a picture.

    threads         for the work on pixels
    limits          of one picture
    pixel_budget    decoded pixels that all pictures may hold together, at least `limits.max_pixels`
    queue_limit     requests in flight
    """

    def __init__(
        self,
        bundle: Bundle,
        detector: Engine,
        embedder: Engine,
        *,
        threads: int,
        limits: Limits,
        pixel_budget: int,
        queue_limit: int,
        metrics: Metrics,
    ) -> None:
        self.manifest = bundle.manifest
        self.metrics = metrics
        self.admission = Admission(queue_limit, metrics, lambda: detector.retry_after_s)
        self._spec: DetectorSpec = bundle.manifest.detector
        self._dimension = bundle.manifest.embedder.dimension
        self._limits = limits
        self._detector = detector
        self._embedder = embedder
        self.pool = Pool(threads)
        self._budget = PixelBudget(pixel_budget, metrics)

    def close(self) -> None:
        """Let running work on pixels end, drop what waits. Blocks."""
        self.pool.close()

    async def faces(
        self,
        data: bytes,
        *,
        embed: bool,
        which: Which = "all",
        min_score: float | None = None,
        digest: bool = False,
        deadline: float,
    ) -> Analysis:
        """The faces of one encoded picture, largest first; with their vectors if `embed`.

        `which`: every face, or the largest alone. `min_score`: the detector's (the bundle's where None). `deadline` on
        `time.monotonic()`'s clock; the caller cancels at it, the engines drop at it.

        Raises `MissingImage`, `UnsupportedMedia`, `InvalidImage`, `TooLarge`, `InvalidParameter`, `Overloaded`,
        `DeadlineExceeded`, `Internal`.
        """
        score = self.check_score(min_score)
        clock = _Clock(time.monotonic(), {})
        header = self.inspect(data)
        located, image, digested = await self._locate(data, header, score, which, digest, deadline, clock)
        found = located.faces
        if embed:
            vectors = await self._vectors(located.crops, deadline, clock)
            found = [replace(face, embedding=vector) for face, vector in zip(found, vectors, strict=True)]
        timings = clock.read()
        self.metrics.stages(timings)
        self.metrics.faces.observe(len(found))
        return Analysis(image, tuple(found), timings, digested)

    def check_score(self, min_score: float | None) -> float:
        """The detector's threshold to use. Raises `InvalidParameter` outside 0–1."""
        if min_score is None:
            return self._spec.min_score
        if not 0 <= min_score <= 1:
            raise InvalidParameter("min_score must be from 0 to 1", parameter="min_score")
        return min_score

    def inspect(self, data: bytes) -> Header:
        """Check a picture against the limits without decoding it. Raises as `faces` does."""
        return inspect(data, self._limits)

    async def _locate(
        self,
        data: bytes,
        header: Header,
        min_score: float,
        which: Which,
        digest: bool,
        deadline: float,
        clock: _Clock,
    ) -> tuple[_Located, ImageSize, str | None]:
        """Everything that needs the pixels; they are dropped when this returns."""
        asked, pixels = time.monotonic(), header.width * header.height
        await self._budget.take(pixels)
        waited = time.monotonic() - asked
        holding = _Holding(self._budget, pixels)
        try:
            prepared = await self.pool.run(
                lambda: _prepare(data, header, self._spec, digest), done=holding.enter()
            )
            clock.add("decode", waited + prepared.waited_s, prepared.ran_s)
            outputs = await self._detect(prepared.value.views, deadline, clock)
            located = await self.pool.run(
                lambda: _faces(prepared.value, outputs, self._spec, min_score, which), done=holding.enter()
            )
            clock.add("align", located.waited_s, located.ran_s)
        finally:
            holding.leave()
        picture = prepared.value.picture
        return located.value, ImageSize(picture.width, picture.height), prepared.value.digest

    async def _detect(self, seen: Sequence[View], deadline: float, clock: _Clock) -> list[Output]:
        """The detector's rows for each view, which may run side by side, each with others' of its shape."""
        asked = time.monotonic()
        outputs = await together([self._detector.submit(view.pixels, deadline) for view in seen])
        took = time.monotonic() - asked
        ran = min(took, sum(of.ran_s for of in outputs))  # one view waits while the other runs: not twice
        clock.add("detect", took - ran, ran)
        return outputs

    async def _vectors(self, crops: Sequence[Crop], deadline: float, clock: _Clock) -> list[Floats]:
        """One unit vector a crop, in order; a few at a time, so that a crowd leaves room for others."""
        vectors: list[Floats] = []
        clock.add("embed", 0.0, 0.0)  # the stage is told even of a picture without faces
        for start in range(0, len(crops), FACES_IN_FLIGHT):
            group = crops[start : start + FACES_IN_FLIGHT]
            outputs = await together([self._embedder.submit(crop, deadline) for crop in group])
            clock.add("embed", max(of.waited_s for of in outputs), max(of.ran_s for of in outputs))
            vectors += [self._vector(of) for of in outputs]
        return vectors

    def _vector(self, output: Output) -> Floats:
        (vector,) = output.rows
        # `not (… <= …)`: a vector of NaN must fail too.
        if vector.shape != (self._dimension,) or not abs(float(vector @ vector) - 1) <= UNIT_TOLERANCE:
            raise Internal("the embedder did not answer a unit vector")
        return np.asarray(vector, np.float32)


class _Holding:
    """A picture's share of the budget, given back when the picture's owner and every thread have let go of it."""

    def __init__(self, budget: PixelBudget, pixels: int) -> None:
        self._budget, self._pixels, self._holders = budget, pixels, 1

    def enter(self) -> Any:
        """One more holder; answers how it leaves."""
        self._holders += 1
        return self.leave

    def leave(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._budget.give_back(self._pixels)


async def together(calls: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all, in order. The first failure cancels the others and is raised as it is, not in a group."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _prepare(data: bytes, header: Header, spec: DetectorSpec, digest: bool) -> _Prepared:
    picture = decode(data, header)
    size = canvas_for(picture.width, picture.height, spec.canvases)
    canvas, placed = letterbox(picture.rgb, size)
    return _Prepared(picture, views(canvas, spec), placed, picture.digest() if digest else None)


def _faces(
    prepared: _Prepared, outputs: Sequence[Output], spec: DetectorSpec, min_score: float, which: Which
) -> _Located:
    """The faces of one picture from the detector's rows, largest first."""
    found = faces_in(prepared.views, [of.rows for of in outputs], spec, min_score)
    picture, located = prepared.picture, _Located([], [])
    for box, landmarks, score in _largest_first(found, prepared.placed, picture):
        try:
            crop = _cut(picture, landmarks)
            quality = assess(crop, landmarks, score)
        except ValueError:  # five points that coincide are not a face
            continue
        points = tuple((float(x), float(y)) for x, y in landmarks)
        located.faces.append(Face(box, points, score, quality))
        located.crops.append(crop)
        if which == "largest":
            break
    return located


def _largest_first(found: Detections, placed: Letterbox, picture: Picture) -> list[tuple[Box, Floats, float]]:
    boxes = placed.to_picture(found.boxes) if len(found) else found.boxes
    landmarks = placed.to_picture(found.landmarks) if len(found) else found.landmarks
    faces = [
        (box, points, float(score))
        for corners, points, score in zip(boxes, landmarks, found.scores, strict=True)
        if (box := clipped(corners, picture.width, picture.height)) is not None
    ]
    return sorted(faces, key=lambda face: -face[0].area)


def _cut(picture: Picture, landmarks: Floats) -> Crop:
    """The aligned crop. Raises ValueError for degenerate landmarks."""
    try:
        if max(picture.width, picture.height) <= _WARP_SIDE:
            return align(picture.rgb, landmarks)
        if not np.isfinite(landmarks).all():
            raise ValueError("landmarks must be finite numbers")
        low, high = landmarks.min(0), landmarks.max(0)
        reach = (
            4 * float((high - low).max()) + 16
        )  # the crop reaches at most 3 face heights beyond its points
        left, top = (max(0, int(side)) for side in low - reach)
        right, bottom = (int(side) for side in high + reach)
        return align(picture.rgb[top:bottom, left:right], landmarks - np.array([left, top], np.float32))
    except cv2.error as error:
        raise ValueError("the face cannot be cut out") from error
