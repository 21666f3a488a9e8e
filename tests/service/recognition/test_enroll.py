"""Enrolment: every picture is judged alone, for its own reason, and what is accepted is written at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import (
    GalleryNotFound,
    InvalidParameter,
    MissingImage,
    NameConflict,
    NothingAccepted,
    PersonNotFound,
    TooLarge,
)
from service.recognition.enroll import unfit
from service.recognition.faces import Analysis, Box, Face, ImageSize
from service.recognition.gallery_sync import Idempotency, Replay
from service.recognition.quality import Quality
from service.recognition.results import EnrollResult
from tests.service.recognition.parts import Core, core, png, soon
from tests.synthetic_bundle import blank, draw_person, draw_scene


@pytest.fixture
async def parts(synthetic_bundle: Path, tmp_path: Path) -> AsyncIterator[Core]:
    async with core(synthetic_bundle, tmp_path) as opened:
        yield opened


async def enroll(parts: Core, *images: bytes, **how: Any) -> EnrollResult:
    done = await parts.enroller.enroll(images, deadline=soon(), **how)
    assert isinstance(done, EnrollResult)
    return done


def person(identity: int, variation: int = 0, size: int = 160) -> bytes:
    return png(draw_person(identity, variation, size))


def reasons(done: EnrollResult | NothingAccepted) -> dict[int, str]:
    if isinstance(done, NothingAccepted):
        listed = done.details["rejected"]
        assert isinstance(listed, list)
        return {of["index"]: of["reason"] for of in listed}
    return {of.index: of.reason for of in done.rejected}


async def test_each_picture_is_answered_by_its_place(parts: Core) -> None:
    pictures = [
        b"text", person(1), png(blank()), png(draw_scene([1, 2])), person(1, 1), person(1)[:900],
        person(1, 0, 34), person(1), png(np.zeros((1, 1, 3), np.uint8)),
    ]  # fmt: skip
    done = await enroll(parts, *pictures, name="Ada", metadata={"floor": 3})
    assert [face.index for face in done.faces] == [1, 4]
    assert len({face.id for face in done.faces}) == 2
    assert reasons(done) == {
        0: "invalid_image", 2: "no_face", 3: "multiple_faces", 5: "invalid_image", 6: "face_too_small",
        7: "duplicate", 8: "invalid_image",
    }  # fmt: skip
    assert (done.person.name, done.person.metadata, done.person.templates) == ("Ada", {"floor": 3}, 2)
    assert (done.gallery.size, done.gallery.templates) == (1, 2)


async def test_if_nothing_is_accepted_nothing_is_written_and_every_reason_is_told(parts: Core) -> None:
    with pytest.raises(NothingAccepted) as refused:
        await enroll(parts, b"text", png(blank()), name="Ada")
    assert reasons(refused.value) == {0: "invalid_image", 1: "no_face"}
    assert parts.sync.snapshot("default").size == 0


async def test_the_same_pixels_are_enrolled_once_a_person_whatever_the_file(parts: Core) -> None:
    first = await enroll(parts, person(1), name="Ada")
    with pytest.raises(NothingAccepted) as refused:
        await enroll(parts, person(1), person_id=first.person.id)
    assert reasons(refused.value) == {0: "duplicate"}
    more = await enroll(parts, person(1), person(1, 4), person_id=first.person.id)
    assert (reasons(more), [face.index for face in more.faces]) == ({0: "duplicate"}, [1])
    forced = await enroll(parts, person(1), name="Bob", force=True)
    assert forced.person.id != first.person.id


async def test_a_face_that_is_somebody_else_is_a_conflict_unless_forced(parts: Core) -> None:
    await enroll(parts, person(1), name="Ada")
    done = await enroll(parts, person(1, 3), person(2), name="Bob")
    assert (reasons(done), [face.index for face in done.faces]) == ({0: "identity_conflict"}, [1])
    assert reasons(await enroll(parts, person(1, 3), person_id=done.person.id, force=True)) == {}


async def test_a_persons_own_faces_are_no_conflict(parts: Core) -> None:
    first = await enroll(parts, person(1), name="Ada", external_id="a-1")
    more = await enroll(parts, person(1, 2), external_id="a-1")
    assert (more.person.id, more.person.templates, reasons(more)) == (first.person.id, 2, {})


async def test_the_call_is_refused_before_any_work_where_it_cannot_be_done(parts: Core) -> None:
    face = person(1)
    with pytest.raises(MissingImage):
        await enroll(parts)
    with pytest.raises(MissingImage):
        await enroll(parts, face, b"")
    with pytest.raises(InvalidParameter):
        await enroll(parts, *[face] * 101)
    with pytest.raises(TooLarge):
        await enroll(parts, face, bytes(20_000_001))
    with pytest.raises(GalleryNotFound):
        await enroll(parts, face, gallery="nowhere")
    with pytest.raises(PersonNotFound):
        await enroll(parts, face, person_id="nobody")
    await enroll(parts, face, name="Ada", external_id="a-1")
    with pytest.raises(NameConflict):
        await enroll(parts, person(1, 2), name="Bob", external_id="a-1")
    assert parts.sync.snapshot("default").templates == 1


async def test_an_idempotency_key_enrols_once_and_answers_the_same_again(parts: Core) -> None:
    def answer(done: Any) -> Mapping[str, Any]:
        assert isinstance(done, EnrollResult)
        return {"person": done.person.id, "rejected": [of.reason for of in done.rejected]}

    once = Idempotency("key_1", "token", "digest", answer)
    first = await parts.enroller.enroll([person(1), b"text"], name="Ada", idempotency=once, deadline=soon())
    assert isinstance(first, EnrollResult)
    again = await parts.enroller.enroll([person(1), b"text"], name="Ada", idempotency=once, deadline=soon())
    assert again == Replay({"person": first.person.id, "rejected": ["invalid_image"]})
    assert parts.sync.snapshot("default").size == 1


def analysis(*faces: tuple[float, Quality]) -> Analysis:
    points = ((0.0, 0.0),) * 5
    listed = tuple(Face(Box(0, 0, side, side), points, 0.9, quality) for side, quality in faces)
    return Analysis(ImageSize(640, 480), listed, {})


GOOD = Quality(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.9)
DARK = Quality(0.2, 1.0, 0.2, 1.0, 1.0, 1.0, 0.9)
TURNED = Quality(1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.9)
SMALL = Quality(0.6, 1.0, 1.0, 1.0, 0.6, 1.0, 0.9)


@pytest.mark.parametrize(
    ("faces", "reason"),
    [
        ((), "no_face"), (((100, GOOD),), None), (((100, GOOD), (70, GOOD)), None),  # 49 % of the area
        (((100, GOOD), (71, GOOD)), "multiple_faces"), (((100, DARK),), "low_quality"),
        (((100, TURNED),), "extreme_pose"), (((100, SMALL),), "face_too_small"),
    ],
)  # fmt: skip
def test_a_picture_is_unfit_for_one_reason(
    faces: tuple[tuple[float, Quality], ...], reason: str | None
) -> None:
    assert unfit(analysis(*faces)) == reason
