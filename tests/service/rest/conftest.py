"""The REST application on the synthetic bundle and an SQLite file, called in-process; one for each test module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from starlette.types import Message

from service.bootstrap import Facet, build
from service.config import load_settings
from service.rest.app import create_app
from tests.synthetic_bundle import draw_person

ADMIN_KEY = "an admin key of the tests, long enough to be one"


@dataclass(frozen=True)
class World:
    """The service under test and a client that holds the admin key."""

    facet: Facet
    app: Any
    client: httpx.AsyncClient

    async def gallery(self, name: str) -> str:
        """A gallery of its own for a test."""
        answer = await self.client.post("/v1/galleries", json={"id": name})
        assert answer.status_code == 201, answer.text
        return name

    async def enrol(self, gallery: str, identity: int, **fields: str) -> dict[str, Any]:
        """A drawn person, enrolled from two pictures; the answer."""
        pictures = [("images", encode(draw_person(identity, variation))) for variation in (1, 2)]
        answer = await self.client.post("/v1/enroll", files=pictures, data={"gallery": gallery, **fields})
        assert answer.status_code == 201, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def key(self, *scopes: str) -> str:
        """A new key with these scopes."""
        answer = await self.client.post("/v1/api-keys", json={"name": "test", "scopes": list(scopes)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])


def encode(picture: npt.NDArray[np.uint8], suffix: str = ".jpg", *flags: int) -> bytes:
    """RGB pixels as the bytes of a file."""
    ok, data = cv2.imencode(suffix, picture[..., ::-1], list(flags))
    assert ok
    return data.tobytes()


def client_of(app: Any, key: str | None = ADMIN_KEY) -> httpx.AsyncClient:
    """A client in this process; an exception that leaves the application fails the test."""
    headers = {"x-api-key": key} if key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://facet", headers=headers)


async def call(
    app: Any, method: str, path: str, headers: dict[str, str], start: bytes = b""
) -> tuple[int, bytes, int]:
    """Sends a body that never ends: the status, the answer, and the bytes that were taken before it was answered."""
    taken, answer, status, pieces = 0, b"", 0, [start] if start else []

    async def receive() -> Message:
        nonlocal taken
        piece = pieces.pop() if pieces else b"x" * 100_000
        taken += 0 if status else len(piece)
        await asyncio.sleep(0)  # or an application that reads on for ever would never meet the timeout
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Message) -> None:
        nonlocal answer, status
        status = message.get("status", status)
        answer += message.get("body", b"")

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("facet", 80),
    }  # fmt: skip
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return status, answer, taken


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, synthetic_bundle: Path) -> AsyncIterator[World]:
    """The service with one lane; each test takes a gallery of its own."""
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"),
        bundle=synthetic_bundle,
        admin_key=ADMIN_KEY,
        inference_lanes=1,
        decode_threads=1,
    )
    facet = await build(settings)
    try:
        app = create_app(facet)
        async with client_of(app) as client:
            yield World(facet, app, client)
    finally:
        await facet.close()


@pytest.fixture
def client(world: World) -> httpx.AsyncClient:
    """A client that holds the admin key."""
    return world.client


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A JPEG of one drawn face that nobody is enrolled with."""
    return encode(draw_person(999))


@pytest.fixture
def refused() -> Callable[[httpx.Response, int, str], dict[str, Any]]:
    """Asserts the envelope, the status and the code of a refusal; its details."""
    return assert_refused


def assert_refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The refusal has this status and code and is told in the one envelope; its details."""
    told = answer.json()
    assert (answer.status_code, told["error"]["code"]) == (status, code), told
    assert set(told) == {"error", "request_id"}
    assert set(told["error"]) == {"code", "message", "details", "retryable"}
    assert told["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert "Traceback" not in answer.text
    details: dict[str, Any] = told["error"]["details"]
    return details
