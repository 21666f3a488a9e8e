"""A face that fills the frame, as at a door, is found and recognised on the way that pictures are served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bundle.views import VIEWS
from service.inference.backend import Array, Backend
from service.recognition.faces import Box
from tests.astronaut import Portrait, filling
from tests.drawn_faces import BACKGROUND, draw_face
from tests.service.recognition.parts import Core, core, png, soon

PEOPLE = 12


@pytest.fixture
async def real(repository: Path, tmp_path: Path) -> AsyncIterator[Core]:
    """On what a clone serves."""
    async with core(repository / "models" / "default", tmp_path) as opened:
        yield opened


def overlap(box: Box, portrait: Portrait) -> float:
    """IoU with the face as far as the frame shows it."""
    height, width = portrait.picture.shape[:2]
    x0, y0, x1, y1 = portrait.box.clip(0, [width, height, width, height])
    left, top, right, bottom = box.xyxy
    common = max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
    return float(common / (box.area + (x1 - x0) * (y1 - y0) - common))


@pytest.mark.parametrize("size", [(640, 480), (720, 1280)])
async def test_a_face_is_found_and_recognised_however_much_of_the_frame_it_fills(
    real: Core, size: tuple[int, int]
) -> None:
    enrolled = await real.enroller.enroll([png(filling(0.25).picture)], name="Ada", deadline=soon())
    assert len(enrolled.faces) == 1
    for fraction in (0.4, 0.6, 0.8, 1.0, 1.2):
        portrait = filling(fraction, size)
        told = await real.recognizer.identify(png(portrait.picture), faces="all", deadline=soon())
        (face,) = told.faces
        assert overlap(face.box, portrait) > 0.6, fraction
        apart = np.linalg.norm(np.array(face.landmarks) - portrait.points, axis=1).mean()
        assert apart < 0.12 * portrait.eyes_apart, fraction  # measured: 0.03 to 0.08
        assert told.decision == "match", fraction
        assert told.similarity is not None
        assert told.similarity > 0.75, fraction  # measured: 0.92 to 0.98


async def test_a_face_that_fills_the_frame_can_be_enrolled(real: Core) -> None:
    done = await real.enroller.enroll([png(filling(1.0).picture)], name="Ada", deadline=soon())
    assert (len(done.faces), list(done.rejected)) == (1, [])


class Gate:
    """A backend that lets nothing through until it is opened, and keeps the shapes of what it ran."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.shapes: list[tuple[int, ...]] = []
        self.open = threading.Event()
        self._backend = backend

    def run(self, batch: Array) -> tuple[Array, ...]:
        assert self.open.wait(30)
        self.shapes.append(batch.shape)
        return self._backend.run(batch)

    def close(self) -> None:
        self._backend.close()


async def test_views_of_many_pictures_share_batches_and_are_never_mixed_up(
    synthetic_bundle: Path, tmp_path: Path
) -> None:
    """Only the small copies show these faces; each picture gets its own back. The queue has room for every view of the
    requests that the service admits."""

    def at_the_door(identity: int) -> bytes:
        picture = np.full((480, 640, 3), BACKGROUND, np.uint8)
        left, side = 20 * identity, 380
        picture[50 : 50 + side, left : left + side] = draw_face(identity, 0, side)
        return png(picture)

    pictures = [at_the_door(identity) for identity in range(PEOPLE)]
    async with core(synthetic_bundle, tmp_path, queue_limit=PEOPLE, max_batch=4) as drawn:
        alone = [await drawn.recognizer.embed(picture, deadline=soon()) for picture in pictures]
        gate = Gate(drawn.engines.detector.backend)
        drawn.engines.detector.backend = gate
        asked = asyncio.gather(*(drawn.recognizer.embed(picture, deadline=soon()) for picture in pictures))
        while waiting(drawn) < VIEWS * PEOPLE - 4 * drawn.engines.lanes.count:  # those are on the lanes
            await asyncio.sleep(0.001)
        gate.open.set()
        together = await asyncio.wait_for(asked, 30)
    for identity, (one, among) in enumerate(zip(alone, together, strict=True)):
        (expected,), (face,) = one.faces, among.faces
        assert face.box.x == pytest.approx(20 * identity, abs=6)
        assert face.box.width == pytest.approx(380, abs=12)
        assert float(np.dot(face.embedding, expected.embedding)) > 0.999
    assert {shape[1:] for shape in gate.shapes} == {(480, 640, 3), (128, 160, 3)}
    assert sum(shape[0] for shape in gate.shapes) == VIEWS * PEOPLE
    assert {(4, 480, 640, 3), (4, 128, 160, 3)} <= set(gate.shapes)


def waiting(of: Core) -> float:
    """Views in the detector's queue."""
    samples = [sample for metric in of.metrics.queue_depth.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.labels["engine"] == "detector")


async def test_the_time_to_detect_is_told_once_though_there_are_two_views(real: Core) -> None:
    told = await real.recognizer.detect(png(filling(0.5).picture), deadline=soon())
    stages = {name: spent for name, spent in told.timings_ms.items() if name != "total"}
    assert sum(stages.values()) <= told.timings_ms["total"] + 0.01
