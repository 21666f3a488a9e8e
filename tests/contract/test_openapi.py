"""The OpenAPI document is true: it covers what is served, every example of it runs, and the answers have its shapes."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
import pytest_asyncio

from service.bootstrap import build
from service.config import load_settings
from service.rest import schemas
from service.rest.app import create_app
from service.rest.routing import PUBLIC, GuardedRoute
from tests.synthetic_bundle import draw_person, draw_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN_KEY = "an admin key of the tests, long enough to be one"
ALICE, BOB, CAROL = 301, 302, 303
PICTURES = {
    "alice.jpg": draw_person(ALICE, 3),
    "alice-2.jpg": draw_person(ALICE, 4),
    "carol.jpg": draw_person(CAROL, 1),
    "carol-2.jpg": draw_person(CAROL, 2),
    "group.jpg": draw_scene([(ALICE, 5), (BOB, 5)], columns=2),
}
READING = ("/v1/detect", "/v1/embed", "/v1/verify", "/v1/identify")
IN_FORM, IN_JSON = re.compile(r"@(\S+\.jpg)"), re.compile(r"<base64 of (\S+\.jpg)>")


def picture(name: str) -> bytes:
    return bytes(cv2.imencode(".jpg", PICTURES[name][..., ::-1])[1])


class Served:
    """The service with what the examples talk about: the gallery `staff` with Alice and Bob in it."""

    def __init__(self, app: Any, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.names: dict[str, str] = {"gallery": "staff"}

    async def prepare(self) -> None:
        """Fresh ids for the placeholders of paths and examples."""
        await self.client.delete("/v1/galleries/staff")
        await self.client.delete("/v1/galleries/visitors")
        assert (await self.client.post("/v1/galleries", json={"id": "staff"})).status_code == 201
        for name, identity in (("Bob", BOB), ("Alice", ALICE)):
            files = {"images": bytes(cv2.imencode(".jpg", draw_person(identity, 1)[..., ::-1])[1])}
            enrolled = await self.client.post(
                "/v1/enroll", files=files, data={"gallery": "staff", "name": name}
            )
            assert enrolled.status_code == 201, enrolled.text
        told = enrolled.json()
        key = await self.client.post("/v1/api-keys", json={"name": "example", "scopes": ["detect"]})
        self.names |= {
            "person": told["person"]["id"],
            "face": told["faces"][0]["id"],
            "key": key.json()["id"],
        }

    def filled(self, value: Any) -> Any:
        """A value of an example with the placeholders of ids filled in."""
        if isinstance(value, dict):
            return {name: self.filled(each) for name, each in value.items()}
        return value.format(**self.names) if isinstance(value, str) and value.startswith("{") else value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, synthetic_bundle: Path) -> AsyncIterator[Served]:
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"),
        bundle=synthetic_bundle,
        admin_key=ADMIN_KEY,
        inference_lanes=1,
        decode_threads=1,
    )
    facet = await build(settings)
    app = create_app(facet)
    transport = httpx.ASGITransport(app=app)
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://facet", headers={"x-api-key": ADMIN_KEY}
        ) as client:
            yield Served(app, client)
    finally:
        await facet.close()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def examples(operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Content type and value of each example of the body; one empty body where there is none."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        yield "", None
    for media, body in content.items():
        assert body.get("examples"), f"{operation['operationId']}: {media} has no example"
        for example in body["examples"].values():
            yield media, example["value"]


def query_example(operation: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["example"] for one in operation["parameters"] if "example" in one}


def sent(media: str, value: Any) -> dict[str, Any]:
    """An example as httpx sends it, with pictures in the places of their names."""
    if media == "":
        return {}
    if media == "image/*":
        return {"content": picture(IN_FORM.fullmatch(value)[1]), "headers": {"content-type": "image/jpeg"}}  # type: ignore[index]
    if media == "application/json":
        return {"json": {name: encoded(each) for name, each in value.items()}}
    files, fields = [], {}
    for name, each in value.items():
        for one in each if isinstance(each, list) else [each]:
            found = IN_FORM.fullmatch(one) if isinstance(one, str) else None
            if found:
                files.append((name, (found[1], picture(found[1]))))
            else:
                fields[name] = str(one)
    return {"files": files, "data": fields}


def encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [encoded(each) for each in value]
    found = IN_JSON.fullmatch(value) if isinstance(value, str) else None
    return base64.b64encode(picture(found[1])).decode() if found else value


async def test_every_example_runs_and_its_answer_has_the_documented_shape(served: Served) -> None:
    document = (await served.client.get("/openapi.json")).json()
    changed = True
    ran = []
    for method, path, operation in operations(document):
        (expected,) = [status for status in operation["responses"] if status.startswith("2")]
        for media, value in examples(operation):
            if changed:
                await served.prepare()
            changed = method != "GET" and path not in READING
            body = sent(media, served.filled(value))
            if media == "image/*":
                body["params"] = served.filled(query_example(operation))
            answer = await served.client.request(method, path.format(**served.names), **body)

            assert answer.status_code == int(expected), f"{method} {path} {media}: {answer.text}"
            described = operation["responses"][expected].get("content", {}).get("application/json")
            if described:
                name = described["schema"]["$ref"].rsplit("/", 1)[-1]
                getattr(schemas, name).model_validate_json(answer.content, strict=True)
            else:
                assert answer.headers.get("content-type", "") != "application/json"
            ran.append((path, media))
    assert len(ran) >= 40
    assert {media for _, media in ran} == {"", "application/json", "multipart/form-data", "image/*"}


async def test_examples_find_whom_they_show(served: Served) -> None:
    await served.prepare()
    document = (await served.client.get("/openapi.json")).json()
    identify = document["paths"]["/v1/identify"]["post"]

    told = [
        (await served.client.post("/v1/identify", **sent(media, served.filled(value)))).json()
        for media, value in examples(identify)
        if media != "image/*"
    ]
    raw = sent("image/*", "@alice.jpg")
    told.append((await served.client.post("/v1/identify", **raw, params=query_example(identify))).json())

    assert [answer["decision"] for answer in told] == ["match"] * 5
    assert all(answer["gallery"]["id"] == "staff" for answer in told)
    assert sorted(len(answer["faces"]) for answer in told) == [1, 1, 1, 2, 2]


async def test_every_route_is_described_and_every_described_route_is_served(served: Served) -> None:
    document = (await served.client.get("/openapi.json")).json()
    described = {(method, path) for method, path, _ in operations(document)}
    routes = [route for route in served.app.routes if isinstance(route, GuardedRoute)]
    at_the_root = {("POST", f"/{verb}") for verb in ("detect", "embed", "verify", "enroll", "identify")}
    unlisted = {("GET", "/docs"), ("GET", "/openapi.json")} | at_the_root

    found = {(method, route.path) for route in routes for method in route.methods or ()}

    assert found - described == unlisted
    assert described <= found
    assert {(method, "/v1" + path) for method, path in at_the_root} <= described


async def test_every_operation_says_its_scope_its_key_and_the_envelope(served: Served) -> None:
    document = (await served.client.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"api_key", "bearer"}
    for method, path, operation in operations(document):
        scope = operation["x-facet-scope"]
        assert operation["description"], f"{method} {path} says nothing"
        assert ("security" in operation) == (scope != PUBLIC)
        refusals = {
            status: one for status, one in operation["responses"].items() if not status.startswith("2")
        }
        if scope != PUBLIC:
            assert "401" in refusals
        for status, one in refusals.items():
            assert one["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer"), (
                f"{path} {status}"
            )
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_documented_parameters_are_those_that_are_accepted(served: Served) -> None:
    await served.prepare()
    document = (await served.client.get("/openapi.json")).json()
    for method, path, operation in operations(document):
        if "multipart/form-data" not in operation.get("requestBody", {}).get("content", {}):
            continue
        content = operation["requestBody"]["content"]
        form = set(content["multipart/form-data"]["schema"]["properties"])
        query = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        pictures = {"image", "image_a", "image_b", "images"}
        assert form == set(content["application/json"]["schema"]["properties"])
        assert form - pictures == query, path
        for name in sorted(form - pictures):
            field = {
                "metadata": "{}",
                "force": "false",
                "candidates": "false",
                "limit": "1",
                "faces": "all",
            }.get(name, "0.5")
            answer = await served.client.request(
                method, path.format(**served.names), data={name: field}, files={"x": b""}
            )
            assert answer.json()["error"]["details"].get("parameter") == "x", (
                f"{path} refuses {name}: {answer.text}"
            )


async def test_the_document_is_valid_openapi_where_it_is_written_by_hand(served: Served) -> None:
    document = (await served.client.get("/openapi.json")).json()
    known = document["components"]["schemas"]

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                assert reference.rsplit("/", 1)[-1] in known
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(document)
    assert document["openapi"].startswith("3.1")
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for _, path, operation in operations(document):
        named = set(re.findall(r"{(\w+)}", path))
        assert {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"} == named, path
        for one in operation.get("parameters", ()):
            assert one["schema"]
            assert one["in"] in {"query", "path", "header"}
