"""The verbs on real parts: drawn people, a real detector and embedder, a real gallery and database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.errors import (
    DeadlineExceeded,
    FpirUnsupported,
    GalleryNotFound,
    InvalidImage,
    InvalidParameter,
    MissingImage,
    NoFace,
    Overloaded,
    PersonNotFound,
)
from service.recognition.results import EnrollResult
from tests.service.recognition.parts import Core, core, png, soon
from tests.synthetic_bundle import blank, draw_person, draw_scene, place_people


@pytest.fixture
async def parts(synthetic_bundle: Path, tmp_path: Path) -> AsyncIterator[Core]:
    async with core(synthetic_bundle, tmp_path) as opened:
        yield opened


async def enrolled(
    parts: Core, identity: int, variations: tuple[int, ...] = (0,), **who: str
) -> EnrollResult:
    pictures = [png(draw_person(identity, variation)) for variation in variations]
    done = await parts.enroller.enroll(pictures, name=f"person {identity}", deadline=soon(), **who)  # type: ignore[arg-type]
    assert isinstance(done, EnrollResult)
    return done


async def test_detect_says_where_the_faces_are_largest_first(parts: Core) -> None:
    small, boxes = place_people([1, 2], size=96, columns=2)
    large = draw_person(3, 0, 180)
    picture = np.full((small.shape[0] + large.shape[0], small.shape[1], 3), small[0, 0], np.uint8)
    picture[: small.shape[0]], picture[small.shape[0] :, : large.shape[1]] = small, large
    found = await parts.recognizer.detect(png(picture), deadline=soon())
    assert (found.image.width, found.image.height) == (picture.shape[1], picture.shape[0])
    assert found.faces[0].box.width == pytest.approx(180, abs=6)
    assert found.faces[0].box.y > small.shape[0]
    corners = sorted((face.box.x, face.box.y, face.box.width) for face in found.faces[1:])
    assert corners == [pytest.approx((x, y, width), abs=4) for x, y, width, _ in boxes]
    face = found.faces[0]
    assert len(face.landmarks) == 5
    assert set(face.quality) == {
        "overall",
        "sharpness",
        "brightness",
        "contrast",
        "size",
        "frontal",
        "detection",
    }
    assert found.model_id == parts.bundle.manifest.model_id
    assert {"queue", "decode", "detect", "align", "total"} <= set(found.timings_ms)


async def test_a_picture_without_faces_is_an_empty_list_or_no_face(parts: Core) -> None:
    for picture in (blank(), np.zeros((8, 8, 3), np.uint8), np.zeros((3000, 60, 3), np.uint8)):
        assert (await parts.recognizer.detect(png(picture), deadline=soon())).faces == ()
        assert (await parts.recognizer.embed(png(picture), deadline=soon())).faces == ()
        found = await parts.recognizer.identify(png(picture), deadline=soon())
        assert (found.decision, found.person, found.similarity, found.faces) == ("no_face", None, None, ())
        assert set(found.timings_ms) == {"queue", "decode", "detect", "align", "embed", "search", "total"}


async def test_embed_gives_unit_vectors_that_tell_people_apart_whichever_way_up(parts: Core) -> None:
    async def vector(picture: object) -> np.ndarray:  # type: ignore[type-arg]
        (face,) = (await parts.recognizer.embed(png(picture), faces="largest", deadline=soon())).faces
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-3)
        return face.embedding

    one, again, other = (
        await vector(draw_person(1)),
        await vector(draw_person(1, 2)),
        await vector(draw_person(2)),
    )
    assert one @ again > 0.7 > one @ other


async def test_faces_largest_lists_one_face_and_all_lists_them_all(parts: Core) -> None:
    picture = png(draw_scene([1, 2, 3]))
    assert len((await parts.recognizer.detect(picture, faces="largest", deadline=soon())).faces) == 1
    assert len((await parts.recognizer.detect(picture, faces="all", deadline=soon())).faces) == 3


async def test_min_score_is_the_detectors_and_must_be_a_score(parts: Core) -> None:
    assert (await parts.recognizer.detect(png(draw_person(1)), min_score=0.999, deadline=soon())).faces == ()
    with pytest.raises(InvalidParameter):
        await parts.recognizer.detect(png(draw_person(1)), min_score=1.5, deadline=soon())


async def test_an_enrolled_person_is_found_and_a_stranger_is_nobody(parts: Core) -> None:
    for identity in (1, 2):
        await enrolled(parts, identity, (0, 1))
    found = await parts.recognizer.identify(png(draw_person(2, 5)), deadline=soon())
    assert found.decision == "match"
    assert found.person is not None
    assert found.person.name == "person 2"
    assert found.faces[0].matches[0].similarity == found.similarity
    assert found.threshold is not None
    assert found.similarity is not None
    assert found.similarity >= found.threshold
    assert (found.fpir, found.gallery.size, found.gallery.templates) == (0.01, 2, 4)
    assert found.fmr is not None
    assert found.fmr <= found.fpir
    assert set(found.timings_ms) == {"queue", "decode", "detect", "align", "embed", "search", "total"}
    stranger = await parts.recognizer.identify(png(draw_person(9)), deadline=soon())
    assert (stranger.decision, stranger.person, stranger.faces[0].matches) == ("no_match", None, ())


async def test_an_empty_gallery_answers_no_match_without_a_threshold(parts: Core) -> None:
    found = await parts.recognizer.identify(png(draw_person(1)), deadline=soon())
    assert (found.decision, found.threshold, found.similarity, found.gallery.size) == (
        "no_match",
        None,
        None,
        0,
    )


async def test_candidates_are_the_best_others_and_only_when_asked_for(parts: Core) -> None:
    for identity in (1, 2, 3):
        await enrolled(parts, identity)
    picture = png(draw_scene([1, 2, 9]))
    found = await parts.recognizer.identify(picture, faces="all", limit=2, candidates=True, deadline=soon())
    names = sorted(
        (face.decision, tuple(of.person.name for of in face.matches), len(face.candidates or ()))
        for face in found.faces
    )
    assert names == [("match", ("person 1",), 2), ("match", ("person 2",), 2), ("no_match", (), 2)]
    assert found.threshold is not None
    assert all(of.similarity < found.threshold for face in found.faces for of in face.candidates or ())
    plain = await parts.recognizer.identify(picture, faces="all", deadline=soon())
    assert all(face.candidates is None for face in plain.faces)


async def test_a_face_of_low_quality_matches_nobody_but_keeps_candidates(parts: Core) -> None:
    await enrolled(parts, 1)
    dark = png((draw_person(1) * 0.05).astype(np.uint8) + np.array([30, 0, 30], np.uint8))
    blurred = png(draw_person(1, 0, 24))
    found = [
        await parts.recognizer.identify(picture, threshold=-1.0, candidates=True, deadline=soon())
        for picture in (dark, blurred)
    ]
    judged = [of for of in found if of.faces]
    assert judged
    for of in judged:
        assert of.decision == "low_quality"
        assert (of.person, of.faces[0].matches) == (None, ())
        assert len(of.faces[0].candidates or ()) == 1
    with_same = await parts.recognizer.verify(image_a=blurred, image_b=blurred, deadline=soon())
    assert with_same.decision == "low_quality"


async def test_a_renamed_person_is_told_by_the_new_name_and_a_deleted_one_is_not_found(parts: Core) -> None:
    person = (await enrolled(parts, 1)).person
    picture = png(draw_person(1, 3))
    assert (await parts.recognizer.identify(picture, deadline=soon())).decision == "match"
    await parts.sync.update_person("default", person.id, {"name": "renamed"})
    found = await parts.recognizer.identify(picture, deadline=soon())
    assert found.person is not None
    assert found.person.name == "renamed"
    await parts.sync.delete_person("default", person.id)
    assert (await parts.recognizer.identify(picture, deadline=soon())).decision == "no_match"


async def test_verify_compares_two_pictures_or_a_picture_and_a_person(parts: Core) -> None:
    one, again, other = (png(draw_person(*of)) for of in ((1, 0), (1, 2), (2, 0)))
    same = await parts.recognizer.verify(image_a=one, image_b=again, deadline=soon())
    assert (same.decision, same.fmr) == ("match", 1e-4)
    assert same.similarity >= same.threshold
    assert (await parts.recognizer.verify(image_a=one, image_b=other, deadline=soon())).decision == "no_match"
    person = (await enrolled(parts, 1, (0, 1, 3))).person
    for picture, decision in ((again, "match"), (other, "no_match")):
        verified = await parts.recognizer.verify(
            image=picture, person_id=person.id, fmr=1e-3, deadline=soon()
        )
        assert (verified.decision, verified.fmr) == (decision, 1e-3)


async def test_what_cannot_be_asked_is_refused_by_kind(parts: Core) -> None:
    face, ask = png(draw_person(1)), parts.recognizer
    person = (await enrolled(parts, 1)).person
    with pytest.raises(NoFace) as shows_none:
        await ask.verify(image_a=face, image_b=png(blank()), deadline=soon())
    assert shows_none.value.details == {"image": "image_b"}
    for wrong in ({"image_a": face}, {}, {"image_a": face, "image_b": b""}, {"person_id": person.id}):
        with pytest.raises(MissingImage):
            await ask.verify(**wrong, deadline=soon())  # type: ignore[arg-type]
    for twice in (
        {"image_a": face, "image_b": face, "image": face},
        {"image": face},
        {"image_a": face, "person_id": "x"},
    ):
        with pytest.raises(InvalidParameter):
            await ask.verify(**twice, deadline=soon())  # type: ignore[arg-type]
    with pytest.raises(PersonNotFound):
        await ask.verify(image=face, person_id="nobody", deadline=soon())
    with pytest.raises(GalleryNotFound):
        await ask.identify(face, gallery="nowhere", deadline=soon())
    for parameters in (
        {"limit": 0},
        {"limit": 101},
        {"fpir": 0.01, "threshold": 0.4},
        {"fpir": 0.0},
        {"threshold": 2.0},
    ):
        with pytest.raises(InvalidParameter):
            await ask.identify(face, **parameters, deadline=soon())  # type: ignore[arg-type]
    with pytest.raises(FpirUnsupported):
        await ask.identify(face, fpir=1e-12, deadline=soon())
    with pytest.raises(InvalidImage):
        await ask.identify(face[:500], deadline=soon())
    with pytest.raises(DeadlineExceeded):
        await ask.identify(face, deadline=soon(-1))
    assert parts.pipeline.admission.in_flight == 0


async def test_a_face_in_a_picture_wider_than_the_warp_can_take_is_cut_out(parts: Core) -> None:
    person = draw_person(1, 0, 200)
    wide = np.full((person.shape[0], 33_000, 3), 200, np.uint8)
    wide[:, 32_000 : 32_000 + person.shape[1]] = person
    found = await parts.recognizer.embed(png(wide), min_score=0.0, faces="all", deadline=soon())
    assert found.image.width == 33_000  # no crash; the face itself is below a pixel on the canvas
    from service.recognition.images import Picture
    from service.recognition.pipeline import _cut

    (face,) = (await parts.recognizer.detect(png(person), deadline=soon())).faces
    points = np.array(face.landmarks, np.float32)
    far, near = _cut(Picture(wide), points + np.float32([32_000, 0])), _cut(Picture(person), points)
    np.testing.assert_allclose(far.astype(int), near.astype(int), atol=1)  # float32 is coarser so far out


async def test_in_a_crowd_nobody_gets_the_answer_of_another(parts: Core) -> None:
    """Invariant 2 through all stages: different people in shared batches, with some who leave and some late."""
    people = list(range(1, 7))
    for identity in people:
        await enrolled(parts, identity)

    async def ask(turn: int) -> None:
        identity = people[turn % len(people)]
        leaves, late = turn % 5 == 3, turn % 7 == 5
        asking = asyncio.create_task(
            parts.recognizer.identify(
                png(draw_person(identity, 1 + turn)), deadline=soon(0.05 if late else 60)
            )
        )
        if leaves:
            await asyncio.sleep(0.02 * (turn % 4))
            asking.cancel()
        try:
            found = await asking
        except asyncio.CancelledError:
            assert leaves
        except DeadlineExceeded:
            assert late
        else:
            assert found.decision == "match"
            assert found.person is not None
            assert found.person.name == f"person {identity}"

    await asyncio.gather(*(ask(turn) for turn in range(30)))
    for _ in range(200):  # threads that could not be stopped let go of their pixels
        if parts.metrics.registry.get_sample_value("facet_pixels_held") == 0:
            break
        await asyncio.sleep(0.05)
    assert parts.metrics.registry.get_sample_value("facet_pixels_held") == 0
    assert parts.pipeline.admission.in_flight == 0
    assert parts.metrics.registry.get_sample_value("facet_batch_size_sum", {"engine": "detector"}) > (
        parts.metrics.registry.get_sample_value("facet_batch_size_count", {"engine": "detector"}) or 0
    )  # some callers did share a batch


async def test_a_full_service_refuses_at_the_door_and_serves_again_afterwards(
    synthetic_bundle: Path, tmp_path: Path
) -> None:
    async with core(synthetic_bundle, tmp_path, queue_limit=3) as parts:
        picture = png(cv2.resize(draw_person(1), (300, 300)))
        calls = [parts.recognizer.detect(picture, deadline=soon()) for _ in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [of for of in answers if isinstance(of, Overloaded)]
        assert len(refused) == 7
        assert all(of.retry_after_s > 0 for of in refused)
        assert len((await parts.recognizer.detect(picture, deadline=soon())).faces) == 1
