"""The verbs' answers: their shape, and that they say what the pictures show, with and without `/v1`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import BaseModel

from service.rest import schemas
from tests.service.rest.conftest import encode
from tests.synthetic_bundle import draw_person, draw_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

Refused = Callable[[httpx.Response, int, str], dict[str, Any]]


def checked(answer: httpx.Response, model: type[BaseModel], status: int = 200) -> dict[str, Any]:
    """The answer's JSON, which has exactly the documented shape."""
    assert answer.status_code == status, answer.text
    model.model_validate_json(answer.content, strict=True)
    told: dict[str, Any] = answer.json()
    assert told["request_id"] == answer.headers["x-request-id"]
    return told


async def test_detect_tells_every_face_in_pixels_of_the_picture(client: httpx.AsyncClient) -> None:
    scene = draw_scene(range(50, 54), columns=2)

    told = checked(await client.post("/v1/detect", content=encode(scene)), schemas.DetectAnswer)

    assert told["image"] == {"width": scene.shape[1], "height": scene.shape[0]}
    assert len(told["faces"]) == 4
    for face in told["faces"]:
        box = face["box"]
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= scene.shape[1]
        assert all(box["x"] <= x <= box["x"] + box["width"] for x, _ in face["landmarks"])
        assert all(0 <= value <= 1 for value in face["quality"].values())
        assert "overall" in face["quality"]
    areas = [face["box"]["width"] * face["box"]["height"] for face in told["faces"]]
    assert areas == sorted(areas, reverse=True)


async def test_embed_tells_unit_vectors_of_a_named_space(client: httpx.AsyncClient, world: Any) -> None:
    told = checked(await client.post("/v1/embed", content=encode(draw_person(55))), schemas.EmbedAnswer)

    manifest = world.facet.bundle.manifest
    (face,) = told["faces"]
    assert told["embedding_space"] == manifest.embedding_space
    assert told["model_id"] == manifest.model_id
    assert len(face["embedding"]) == manifest.embedder.dimension
    assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-3)


async def test_verify_tells_two_pictures_of_one_person_from_those_of_two(client: httpx.AsyncClient) -> None:
    one, same, other = (encode(draw_person(*who)) for who in ((56, 1), (56, 2), (57, 1)))

    matched = checked(
        await client.post("/v1/verify", files={"image_a": one, "image_b": same}), schemas.VerifyAnswer
    )
    differing = checked(
        await client.post("/v1/verify", files={"image_a": one, "image_b": other}), schemas.VerifyAnswer
    )

    assert (matched["decision"], differing["decision"]) == ("match", "no_match")
    assert matched["similarity"] >= matched["threshold"] > differing["similarity"]
    assert matched["fmr"] == pytest.approx(1e-4)


async def test_verify_compares_with_an_enrolled_person(
    client: httpx.AsyncClient, world: Any, refused: Refused
) -> None:
    gallery = await world.gallery("verify")
    person = (await world.enrol(gallery, 58))["person"]["id"]
    who = {"gallery": gallery, "person_id": person}

    right = await client.post("/v1/verify", content=encode(draw_person(58, 4)), params=who)
    wrong = await client.post("/v1/verify", files={"image": encode(draw_person(59, 4))}, data=who)

    assert checked(right, schemas.VerifyAnswer)["decision"] == "match"
    assert checked(wrong, schemas.VerifyAnswer)["decision"] == "no_match"
    both = await client.post(
        "/v1/verify", files={"image_a": encode(draw_person(58)), "image": encode(draw_person(58))}, data=who
    )
    refused(both, 422, "invalid_parameter")


async def test_enrolment_tells_what_was_accepted_and_what_not(client: httpx.AsyncClient, world: Any) -> None:
    gallery = await world.gallery("enrol")
    pictures = [draw_person(60, 1), draw_scene([61, 62], columns=2), draw_person(60, 2)]
    files = [("images", encode(picture)) for picture in pictures]
    fields = {"gallery": gallery, "name": "Ärla", "external_id": "b-1", "metadata": '{"team": {"no": 7}}'}

    told = checked(await client.post("/v1/enroll", files=files, data=fields), schemas.EnrollAnswer, 201)

    assert [face["index"] for face in told["faces"]] == [0, 2]
    assert told["rejected"] == [{"index": 1, "reason": "multiple_faces"}]
    assert {**told["person"], "id": 0} == {
        "id": 0,
        "name": "Ärla",
        "external_id": "b-1",
        "metadata": {"team": {"no": 7}},
    }
    assert (told["gallery"]["id"], told["gallery"]["size"]) == (gallery, 1)


async def test_enrolling_an_external_id_again_adds_to_that_person(
    client: httpx.AsyncClient, world: Any, refused: Refused
) -> None:
    gallery = await world.gallery("again")
    first = await world.enrol(gallery, 63, name="One", external_id="c-1")

    added = await client.post(
        "/v1/enroll",
        files={"images": encode(draw_person(63, 7))},
        data={"gallery": gallery, "external_id": "c-1"},
    )
    other = await client.post(
        "/v1/enroll",
        files={"images": encode(draw_person(63, 8))},
        data={"gallery": gallery, "external_id": "c-1", "name": "Two"},
    )

    assert checked(added, schemas.EnrollAnswer, 201)["person"]["id"] == first["person"]["id"]
    refused(other, 409, "name_conflict")


async def test_the_same_pixels_and_another_persons_face_are_not_enrolled(
    client: httpx.AsyncClient, world: Any, refused: Refused
) -> None:
    gallery = await world.gallery("twice")
    person = (await world.enrol(gallery, 64))["person"]["id"]
    again = await client.post(
        "/v1/enroll",
        files={"images": encode(draw_person(64, 1))},
        data={"gallery": gallery, "person_id": person},
    )
    stolen = {
        "files": {"images": encode(draw_person(64, 9))},
        "data": {"gallery": gallery, "name": "Somebody else"},
    }
    conflict = await client.post("/v1/enroll", **stolen)
    stolen["data"]["force"] = "true"  # type: ignore[assignment]
    forced = await client.post("/v1/enroll", **stolen)

    assert refused(again, 422, "nothing_accepted")["rejected"] == [{"index": 0, "reason": "duplicate"}]
    assert refused(conflict, 422, "nothing_accepted")["rejected"] == [
        {"index": 0, "reason": "identity_conflict"}
    ]
    assert forced.status_code == 201


async def test_identify_finds_the_enrolled_and_says_why(client: httpx.AsyncClient, world: Any) -> None:
    gallery = await world.gallery("identify")
    people = [
        (await world.enrol(gallery, identity, name=f"P{identity}"))["person"] for identity in (65, 66, 67)
    ]

    told = checked(
        await client.post("/v1/identify", content=encode(draw_person(66, 5)), params={"gallery": gallery}),
        schemas.IdentifyAnswer,
    )

    assert (told["decision"], told["person"]["id"]) == ("match", people[1]["id"])
    assert told["fpir"] == pytest.approx(0.01)
    assert told["similarity"] >= told["threshold"]
    assert told["gallery"]["size"] == 3
    (face,) = told["faces"]
    assert face["matches"][0]["similarity"] == told["similarity"]
    assert face["matches"][0]["person"] == told["person"]
    assert "candidates" not in face
    assert told["timings_ms"]["total"] > 0


async def test_identify_of_nobody_is_an_answer_and_candidates_are_shown_on_request(
    client: httpx.AsyncClient, world: Any
) -> None:
    gallery = await world.gallery("nobody")
    for identity in (68, 69):
        await world.enrol(gallery, identity)
    stranger = encode(draw_person(70))

    told = checked(
        await client.post("/v1/identify", content=stranger, params={"gallery": gallery}),
        schemas.IdentifyAnswer,
    )
    asked = {"gallery": gallery, "candidates": "true", "limit": "2"}
    shown = checked(await client.post("/v1/identify", content=stranger, params=asked), schemas.IdentifyAnswer)

    assert (told["decision"], told["person"], told["faces"][0]["matches"]) == ("no_match", None, [])
    assert told["similarity"] < told["threshold"]
    assert shown["decision"] == "no_match"
    assert len(shown["faces"][0]["candidates"]) == 2
    assert all(other["similarity"] < shown["threshold"] for other in shown["faces"][0]["candidates"])


async def test_an_empty_gallery_has_no_threshold(client: httpx.AsyncClient, world: Any) -> None:
    gallery = await world.gallery("empty")

    told = checked(
        await client.post("/v1/identify", content=encode(draw_person(71)), params={"gallery": gallery}),
        schemas.IdentifyAnswer,
    )

    assert (told["decision"], told["threshold"], told["gallery"]["size"]) == ("no_match", None, 0)


@pytest.mark.parametrize("verb", ["detect", "embed", "identify"])
async def test_every_way_of_sending_gives_the_same_answer(client: httpx.AsyncClient, verb: str) -> None:
    content = encode(draw_person(72))
    sendings: list[dict[str, Any]] = [
        {"files": {"image": ("a.gif", content, "image/gif")}},
        {"content": content, "headers": {"content-type": "image/jpeg"}},
        {"content": content, "headers": {"content-type": "application/octet-stream"}},
        {"json": {"image": base64.b64encode(content).decode()}},
    ]

    answers = [
        (await client.post(path, **sent)).json() for path in (f"/v1/{verb}", f"/{verb}") for sent in sendings
    ]

    for answer in answers:
        answer.pop("request_id")
        answer.pop("timings_ms")
    assert answers[0]["faces"]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("verb", ["detect", "embed", "verify", "enroll", "identify"])
async def test_every_verb_is_served_at_the_root_too(
    client: httpx.AsyncClient, refused: Refused, verb: str
) -> None:
    for path in (f"/v1/{verb}", f"/{verb}"):
        refused(await client.post(path), 400, "missing_image")


async def test_nouns_answer_in_their_documented_shapes(client: httpx.AsyncClient, world: Any) -> None:
    gallery = await world.gallery("shapes")
    person = (await world.enrol(gallery, 73, name="Shape"))["person"]["id"]
    base = f"/v1/galleries/{gallery}"

    checked(await client.get("/v1/galleries"), schemas.GalleriesAnswer)
    checked(await client.get(base), schemas.GalleryAnswer)
    checked(await client.patch(base, json={"name": "S"}), schemas.GalleryAnswer)
    checked(await client.get(f"{base}/persons"), schemas.PersonsAnswer)
    checked(await client.post(f"{base}/persons", json={}), schemas.PersonAnswer, 201)
    checked(await client.get(f"{base}/persons/{person}"), schemas.PersonAnswer)
    checked(await client.get(f"{base}/persons/{person}/faces"), schemas.FacesAnswer)
    checked(await client.get("/v1/models"), schemas.ModelsAnswer)
    checked(await client.get("/v1/api-keys"), schemas.ApiKeysAnswer)
    checked(
        await client.post("/v1/api-keys", json={"name": "s", "scopes": ["audit"]}),
        schemas.NewApiKeyAnswer,
        201,
    )
    checked(await client.get("/healthz"), schemas.HealthAnswer)
    checked(await client.get("/nothing"), schemas.ErrorAnswer, 404)
