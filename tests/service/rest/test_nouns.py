"""Galleries, persons, faces and keys: made, read, changed, listed by pages, deleted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service.rest.conftest import encode
from tests.synthetic_bundle import draw_person

pytestmark = pytest.mark.asyncio(loop_scope="module")

Refused = Callable[[httpx.Response, int, str], dict[str, Any]]


async def pages(client: httpx.AsyncClient, path: str, name: str, limit: int) -> list[list[dict[str, Any]]]:
    """Every page of a list, following its cursor."""
    found, cursor = [], None
    while True:
        query = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        told = (await client.get(path, params=query)).json()
        found.append(told[name])
        cursor = told["next_cursor"]
        if cursor is None:
            return found


async def test_default_is_there_from_the_first_start(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/galleries/default")).json()

    assert (told["id"], told["size"], told["templates"]) == ("default", 0, 0)


async def test_a_gallery_is_made_changed_and_deleted(client: httpx.AsyncClient, refused: Refused) -> None:
    made = await client.post("/v1/galleries", json={"id": "one", "name": "One", "metadata": {"a": [1, None]}})
    assert made.status_code == 201
    assert made.json() | {"request_id": 0, "created": 0, "updated": 0} == {
        "request_id": 0, "id": "one", "name": "One", "metadata": {"a": [1, None]}, "size": 0, "templates": 0,
        "revision": made.json()["revision"], "created": 0, "updated": 0,
    }  # fmt: skip
    refused(await client.post("/v1/galleries", json={"id": "one"}), 409, "gallery_exists")

    changed = await client.patch("/v1/galleries/one", json={"name": None})
    assert (changed.status_code, changed.json()["name"], changed.json()["metadata"]) == (
        200,
        None,
        {"a": [1, None]},
    )
    deleted = await client.delete("/v1/galleries/one")
    assert (deleted.status_code, deleted.content) == (204, b"")
    refused(await client.get("/v1/galleries/one"), 404, "gallery_not_found")
    refused(await client.delete("/v1/galleries/one"), 404, "gallery_not_found")


async def test_lists_come_in_pages_that_cover_everything_once(client: httpx.AsyncClient, world: Any) -> None:
    gallery = await world.gallery("paged")
    made = [
        (await client.post(f"/v1/galleries/{gallery}/persons", json={"name": f"P{n}"})).json()
        for n in range(7)
    ]

    found = await pages(client, f"/v1/galleries/{gallery}/persons", "persons", 3)

    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted(person["id"] for page in found for person in page) == sorted(
        person["id"] for person in made
    )
    galleries = await pages(client, "/v1/galleries", "galleries", 1)
    assert {"default", gallery} <= {told["id"] for page in galleries for told in page}


async def test_a_person_is_made_changed_found_by_external_id_and_deleted(
    client: httpx.AsyncClient, refused: Refused, world: Any
) -> None:
    path = f"/v1/galleries/{await world.gallery('people')}/persons"
    made = await client.post(path, json={"name": "Alice", "external_id": "a-1", "metadata": {"team": "day"}})
    assert made.status_code == 201
    alice = made.json()
    assert (alice["gallery"], alice["name"], alice["external_id"], alice["templates"]) == (
        "people",
        "Alice",
        "a-1",
        0,
    )
    refused(await client.post(path, json={"external_id": "a-1"}), 409, "external_id_exists")

    changed = await client.patch(f"{path}/{alice['id']}", json={"name": "Alice B", "metadata": None})
    assert (changed.json()["name"], changed.json()["metadata"], changed.json()["external_id"]) == (
        "Alice B",
        {},
        "a-1",
    )
    assert [
        person["id"] for person in (await client.get(path, params={"external_id": "a-1"})).json()["persons"]
    ] == [alice["id"]]
    assert (await client.get(path, params={"external_id": "a-2"})).json()["persons"] == []
    assert (await client.delete(f"{path}/{alice['id']}")).status_code == 204
    refused(await client.get(f"{path}/{alice['id']}"), 404, "person_not_found")


async def test_faces_are_added_listed_and_deleted_and_the_search_follows(
    client: httpx.AsyncClient, refused: Refused, world: Any
) -> None:
    gallery = await world.gallery("faces")
    person = (await client.post(f"/v1/galleries/{gallery}/persons", json={"name": "Dana"})).json()["id"]
    path = f"/v1/galleries/{gallery}/persons/{person}/faces"
    probe = encode(draw_person(40, 5))

    added = await client.post(path, files=[("images", encode(draw_person(40, n))) for n in (1, 2)])
    assert (added.status_code, added.json()["person"]["id"]) == (201, person)
    identified = (await client.post("/v1/identify", content=probe, params={"gallery": gallery})).json()
    assert (identified["decision"], identified["person"]["name"]) == ("match", "Dana")

    faces = (await client.get(path)).json()["faces"]
    assert sorted(face["id"] for face in faces) == sorted(face["id"] for face in added.json()["faces"])
    for face in faces:
        assert (await client.delete(f"{path}/{face['id']}")).status_code == 204
    refused(await client.delete(f"{path}/{faces[0]['id']}"), 404, "face_not_found")
    after = (await client.post("/v1/identify", content=probe, params={"gallery": gallery})).json()
    assert (after["decision"], after["person"], after["faces"][0]["matches"]) == ("no_match", None, [])


async def test_a_deleted_person_matches_nobody(client: httpx.AsyncClient, world: Any) -> None:
    gallery = await world.gallery("leaving")
    person = (await world.enrol(gallery, 41))["person"]["id"]

    assert (await client.delete(f"/v1/galleries/{gallery}/persons/{person}")).status_code == 204

    told = (
        await client.post("/v1/identify", content=encode(draw_person(41, 5)), params={"gallery": gallery})
    ).json()
    assert (told["decision"], told["threshold"], told["gallery"]["size"]) == ("no_match", None, 0)


async def test_a_key_is_shown_once_and_listed_without_itself(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/api-keys", json={"name": "door", "scopes": ["identify", "detect"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json().pop("key")

    listed = await client.get("/v1/api-keys")

    (told,) = [one for one in listed.json()["api_keys"] if one["id"] == made.json()["id"]]
    assert (told["name"], told["scopes"], told["revoked"]) == ("door", ["detect", "identify"], None)
    assert key not in listed.text
    assert key.rsplit("_", 1)[-1] not in listed.text
    await client.delete(f"/v1/api-keys/{told['id']}")
    (told,) = [
        one for one in (await client.get("/v1/api-keys")).json()["api_keys"] if one["id"] == told["id"]
    ]
    assert told["revoked"] is not None


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", 10**30),
        ("float", 1e300),
        ("text", "\u2028 é \U0001f600 \x7f"),
        ("depth-31", nested(31)),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "",
)
async def test_metadata_comes_back_as_it_was_given(client: httpx.AsyncClient, name: str, value: Any) -> None:
    gallery = f"meta-{name}"
    made = await client.post("/v1/galleries", json={"id": gallery, "metadata": {"x": value}})

    assert made.status_code == 201, made.text
    assert made.json()["metadata"] == {"x": value}
    assert (await client.get(f"/v1/galleries/{gallery}")).json()["metadata"] == {"x": value}


@pytest.mark.parametrize("depth", [32, 300, 900, 960, 990, 2000, 7000])
async def test_metadata_nested_too_deeply_is_refused_and_nothing_is_made(
    client: httpx.AsyncClient, picture: bytes, depth: int
) -> None:
    metadata = b'"metadata": {"x": ' + b"[" * depth + b"]" * depth + b"}}"
    enrolment = b'{"images": ["' + base64.b64encode(picture) + b'"], '
    for path, start in (("/v1/galleries", b'{"id": "deep", '), ("/v1/enroll", enrolment)):
        for once in ({}, {"idempotency-key": f"deep-{depth}"}):
            headers = {"content-type": "application/json", **once}
            made = await client.post(path, content=start + metadata, headers=headers)
            assert made.status_code in (400, 422), made.text
            assert made.json()["error"]["code"] in ("invalid_parameter", "malformed_body")
    assert (await client.get("/v1/galleries/deep")).status_code == 404
    assert (await client.get("/v1/galleries")).status_code == 200


@pytest.mark.parametrize("text", ["a\0b", "x" * 300, ""])
async def test_a_text_that_cannot_be_stored_is_refused(
    client: httpx.AsyncClient, refused: Refused, world: Any, picture: bytes, text: str
) -> None:
    path = "/v1/galleries/default/persons"
    for field in ("name", "external_id"):
        refused(await client.post(path, json={field: text}), 422, "invalid_parameter")
        refused(
            await client.post("/v1/enroll", files={"images": picture}, data={field: text}),
            422,
            "invalid_parameter",
        )
    refused(await client.post(path, json={"metadata": {"deep": [text + "\0"]}}), 422, "invalid_parameter")
    assert (await client.get("/v1/galleries/default")).json()["size"] == 0


async def test_a_create_with_an_idempotency_key_is_done_once(
    client: httpx.AsyncClient, refused: Refused, world: Any
) -> None:
    headers = {"idempotency-key": "make-1"}
    first = await client.post("/v1/galleries", json={"id": "once"}, headers=headers)
    again = await client.post("/v1/galleries", json={"id": "once"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() | {"request_id": ""} == again.json() | {"request_id": ""}
    assert first.json()["request_id"] != again.json()["request_id"]
    other = await client.post("/v1/galleries", json={"id": "another"}, headers=headers)
    refused(other, 409, "idempotency_conflict")

    path, headers = "/v1/galleries/once/persons", {"idempotency-key": "make-2"}
    people = [
        (await client.post(path, json={"name": "Only"}, headers=headers)).json()["id"] for _ in range(2)
    ]
    assert people[0] == people[1]
    assert (await client.get("/v1/galleries/once")).json()["size"] == 1


async def test_an_enrolment_with_an_idempotency_key_is_done_once_however_it_is_sent(
    client: httpx.AsyncClient, refused: Refused, world: Any
) -> None:
    gallery = await world.gallery("idempotent")
    headers = {"idempotency-key": "enrol-1"}
    picture = encode(draw_person(42, 1))

    answers = [
        await client.post(
            path, files={"images": picture}, data={"gallery": gallery, "name": "E"}, headers=headers
        )
        for path in ("/v1/enroll", "/v1/enroll", "/enroll")
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    told = [answer.json() | {"request_id": ""} for answer in answers]
    assert told[0] == told[1] == told[2]
    assert (await client.get(f"/v1/galleries/{gallery}")).json()["templates"] == 1
    other = {"gallery": gallery, "name": "F"}
    answer = await client.post("/v1/enroll", files={"images": picture}, data=other, headers=headers)
    refused(answer, 409, "idempotency_conflict")
