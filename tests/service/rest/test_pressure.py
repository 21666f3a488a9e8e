"""Too much, too late, gone: refused at the door, dropped, and never answered twice or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from service.bootstrap import build
from service.config import load_settings
from service.rest.app import create_app
from tests.service.rest.conftest import ADMIN_KEY, client_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

Refused = Callable[[httpx.Response, int, str], dict[str, Any]]


async def test_a_deadline_that_cannot_be_kept_is_504(
    client: httpx.AsyncClient, refused: Refused, picture: bytes
) -> None:
    for verb in ("detect", "identify"):
        answer = await client.post(f"/v1/{verb}", content=picture, headers={"x-timeout-ms": "1"})
        refused(answer, 504, "deadline_exceeded")
    assert (await client.post("/v1/detect", content=picture)).status_code == 200


async def test_a_body_that_never_comes_is_504(client: httpx.AsyncClient, refused: Refused) -> None:
    async def body() -> Any:
        yield b"\xff\xd8"
        await asyncio.sleep(30)

    answer = await client.post("/v1/detect", content=body(), headers={"x-timeout-ms": "50"})

    refused(answer, 504, "deadline_exceeded")


async def test_a_full_service_refuses_before_the_body_is_read(
    tmp_path: Path, synthetic_bundle: Path, refused: Refused, picture: bytes
) -> None:
    settings = load_settings(
        data_dir=tmp_path,
        bundle=synthetic_bundle,
        admin_key=ADMIN_KEY,
        inference_lanes=1,
        decode_threads=1,
        queue_limit=2,
    )
    facet = await build(settings)
    try:
        async with client_of(create_app(facet)) as client:
            answers = await asyncio.gather(*(client.post("/v1/identify", content=picture) for _ in range(40)))
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) == {200, 429}
            assert statuses.count(200) >= 2
            for answer in answers:
                if answer.status_code == 429:
                    refused(answer, 429, "overloaded")
                    assert int(answer.headers["retry-after"]) >= 1
            assert (await client.post("/v1/identify", content=picture)).status_code == 200
    finally:
        await facet.close()


async def test_the_bodies_in_flight_are_bounded_together(
    world: Any, refused: Refused, client: httpx.AsyncClient
) -> None:
    door = world.app.middleware_stack
    while not hasattr(door, "_budget"):
        door = door.app
    budget = door._budget
    taken = budget.limit - 10
    budget.take(taken)
    try:
        refused(await client.post("/v1/detect", content=b"x" * 11), 429, "overloaded")
    finally:
        budget.give_back(taken)
    assert budget.held == 0


async def test_work_of_a_caller_who_left_is_dropped_and_not_answered(
    world: Any, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = world.facet.recognizer
    began, dropped = asyncio.Event(), asyncio.Event()

    async def slow(*_: Any, **__: Any) -> None:
        began.set()
        try:
            await asyncio.sleep(30)
        finally:
            dropped.set()

    monkeypatch.setattr(type(recognizer), "identify", lambda self, *a, **k: slow())
    messages: list[Message] = [{"type": "http.request", "body": picture, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await began.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/identify", "raw_path": b"/v1/identify", "query_string": b"", "root_path": "",
        "headers": [(b"x-api-key", ADMIN_KEY.encode())], "client": ("127.0.0.1", 1), "server": ("facet", 80),
    }  # fmt: skip
    async with asyncio.timeout(5):
        await world.app(scope, receive, send)
        await dropped.wait()

    assert sent == []


async def test_a_caller_who_leaves_while_sending_is_not_answered(world: Any) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"\xff\xd8", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    for path in (b"/v1/identify", b"/v1/galleries"):
        messages[:] = [
            {"type": "http.request", "body": b"\xff\xd8", "more_body": True},
            {"type": "http.disconnect"},
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path.decode(), "raw_path": path, "query_string": b"", "root_path": "",
            "headers": [(b"x-api-key", ADMIN_KEY.encode())], "client": ("127.0.0.1", 1), "server": ("facet", 80),
        }  # fmt: skip
        await world.app(scope, receive, send)

    assert sent == []
