"""The five verbs over a real channel: who was enrolled is found, and the answers have the contract's fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from tests.service.grpc.conftest import World, encode, refusal_of
from tests.synthetic_bundle import blank, draw_person, draw_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_detect_finds_every_face_and_the_largest_alone_when_asked(world: World) -> None:
    scene = encode(draw_scene([1, 2, 3]))

    every = await world.stub.Detect(pb.DetectRequest(image=scene), metadata=world.key)
    largest = await world.stub.Detect(pb.DetectRequest(image=scene, faces="largest"), metadata=world.key)

    assert (len(every.faces), len(largest.faces)) == (3, 1)
    height, width = draw_scene([1, 2, 3]).shape[:2]
    assert (every.image.width, every.image.height) == (width, height)
    assert every.model_id == world.facet.bundle.manifest.model_id
    assert every.timings_ms["total"] > 0
    for face in every.faces:
        assert len(face.landmarks) == 5
        assert face.box.width > 0
        assert 0 <= face.quality["overall"] <= 1


async def test_detect_of_an_empty_picture_is_no_error(world: World) -> None:
    found = await world.stub.Detect(pb.DetectRequest(image=encode(blank())), metadata=world.key)

    assert list(found.faces) == []


async def test_embed_answers_unit_vectors_of_the_bundles_space(world: World, picture: bytes) -> None:
    found = await world.stub.Embed(pb.EmbedRequest(image=picture), metadata=world.key)

    (face,) = found.faces
    assert found.embedding_space == world.facet.bundle.manifest.embedding_space
    assert len(face.embedding) == world.facet.bundle.manifest.embedder.dimension
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-4)


async def test_verify_tells_one_person_from_another(world: World) -> None:
    def ask(a: int, b: int) -> Any:
        pictures = {"image_a": encode(draw_person(a, 1)), "image_b": encode(draw_person(b, 2))}
        return world.stub.Verify(pb.VerifyRequest(**pictures), metadata=world.key)

    same, other = await ask(1, 1), await ask(1, 2)

    assert (same.decision, other.decision) == ("match", "no_match")
    assert same.similarity >= same.threshold > other.similarity
    assert same.fmr == pytest.approx(1e-4)


async def test_an_enrolled_person_is_identified_and_verified(world: World) -> None:
    gallery = await world.gallery("staff")
    enrolled = await world.enrol(
        gallery, 1, name="Ada", external_id="a-1", metadata={"floor": 3, "tags": ["x"]}
    )
    await world.enrol(gallery, 2, name="Ben")
    probe = encode(draw_person(1, 5))

    found = await world.stub.Identify(pb.IdentifyRequest(image=probe, gallery=gallery), metadata=world.key)
    verified = await world.stub.Verify(
        pb.VerifyRequest(image=probe, person_id=enrolled.person.id, gallery=gallery), metadata=world.key
    )

    assert [(face.index, face.box.width > 0) for face in enrolled.faces] == [(0, True), (1, True)]
    assert found.decision == verified.decision == "match"
    assert found.person == enrolled.person
    assert (found.person.name, found.person.external_id, found.person.metadata["floor"]) == ("Ada", "a-1", 3)
    assert found.gallery.size == 2
    assert found.gallery.templates == 4
    (face,) = found.faces
    assert face.matches[0].face_id in {one.id for one in enrolled.faces}
    assert found.similarity == face.matches[0].similarity >= found.threshold


async def test_a_stranger_is_no_match_and_an_empty_gallery_has_no_threshold(
    world: World, picture: bytes
) -> None:
    gallery = await world.gallery("strangers")
    empty = await world.stub.Identify(pb.IdentifyRequest(image=picture, gallery=gallery), metadata=world.key)
    await world.enrol(gallery, 1)
    found = await world.stub.Identify(pb.IdentifyRequest(image=picture, gallery=gallery), metadata=world.key)

    assert (empty.decision, empty.HasField("threshold"), empty.HasField("person")) == (
        "no_match",
        False,
        False,
    )
    assert (found.decision, found.HasField("threshold"), found.HasField("person")) == (
        "no_match",
        True,
        False,
    )
    assert found.fpir == pytest.approx(0.01)
    assert not found.faces[0].matches


async def test_nobody_in_the_picture_is_a_decision(world: World) -> None:
    found = await world.stub.Identify(pb.IdentifyRequest(image=encode(blank())), metadata=world.key)

    assert (found.decision, list(found.faces)) == ("no_face", [])


async def test_candidates_are_the_best_others(world: World, picture: bytes) -> None:
    gallery = await world.gallery("candidates")
    await world.enrol(gallery, 1)
    await world.enrol(gallery, 2)
    asked = pb.IdentifyRequest(image=picture, gallery=gallery, candidates=True, limit=2)

    found = await world.stub.Identify(asked, metadata=world.key)

    similarities = [one.similarity for one in found.faces[0].candidates]
    assert len(similarities) == 2
    assert similarities == sorted(similarities, reverse=True)
    assert all(similarity < found.threshold for similarity in similarities)


async def test_an_enrolment_tells_what_it_rejected(world: World) -> None:
    gallery = await world.gallery("rejections")
    images = [
        encode(draw_person(1, 1)),
        encode(blank()),
        encode(draw_person(1, 1))[:900],
        encode(draw_person(1, 2)),
    ]

    answer = await world.stub.Enroll(pb.EnrollRequest(images=images, gallery=gallery), metadata=world.key)

    assert [face.index for face in answer.faces] == [0, 3]
    assert [(one.index, one.reason) for one in answer.rejected] == [(1, "no_face"), (2, "invalid_image")]


async def test_the_same_idempotency_key_enrols_once_and_answers_the_same(world: World) -> None:
    gallery = await world.gallery("once")
    request = pb.EnrollRequest(
        images=[encode(draw_person(4, 1))], gallery=gallery, name="Cy", metadata={"n": 1}
    )
    key = (*world.key, ("idempotency-key", "k-1"))

    first = await world.stub.Enroll(request, metadata=key)
    again = await world.stub.Enroll(request, metadata=key)

    assert first.request_id != again.request_id
    first.request_id = again.request_id = ""
    assert first == again
    assert world.facet.sync.snapshot(gallery).templates == 1

    request.name = "Di"
    refused = await refusal_of(world.stub.Enroll(request, metadata=key))
    assert refused.code == "idempotency_conflict"


async def test_a_request_id_is_echoed_in_the_answer_and_its_trailers(world: World, picture: bytes) -> None:
    call = world.stub.Detect(
        pb.DetectRequest(image=picture), metadata=(*world.key, ("x-request-id", "from-camera-7"))
    )

    assert (await call).request_id == "from-camera-7"
    assert ("x-request-id", "from-camera-7") in list(await call.trailing_metadata())
