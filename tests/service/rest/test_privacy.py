"""Whatever is asked and however it fails, no picture, vector, key or traceback stands in a log line or an answer."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.telemetry.logging import configure
from tests.service.rest.conftest import ADMIN_KEY, encode
from tests.synthetic_bundle import draw_person

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a sentence that only the defect knows: 4711"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Every line that the process logs, at the most talkative level."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("debug", stream)
    yield stream
    configure("warning")
    root.handlers[:] = before
    root.setLevel(level)


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError(SECRET)


async def test_a_defect_is_internal_and_only_its_place_is_logged(
    client: httpx.AsyncClient, world: Any, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch, picture: bytes
) -> None:
    monkeypatch.setattr(type(world.facet.recognizer), "identify", fail)
    monkeypatch.setattr(type(world.facet.sync), "list_galleries", fail)

    for answer in (
        await client.post("/v1/identify", content=picture),
        await client.get("/v1/galleries"),
    ):
        told = answer.json()
        assert answer.status_code == 500
        assert told["error"] == {
            "code": "internal",
            "message": "internal error",
            "details": {},
            "retryable": True,
        }
        assert told["request_id"] == answer.headers["x-request-id"]
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    failures = [line for line in logged if line["event"] == "request failed"]
    assert [line["error"] for line in failures] == ["RuntimeError", "RuntimeError"]
    assert SECRET not in lines.getvalue()
    assert "Traceback" not in lines.getvalue()


async def test_nothing_that_was_sent_or_answered_is_logged(
    client: httpx.AsyncClient, world: Any, lines: io.StringIO
) -> None:
    gallery = await world.gallery("private")
    photo = encode(draw_person(80))
    encoded = base64.b64encode(photo).decode()
    key = await world.key("identify", "embed")
    await world.enrol(gallery, 80, name="Name Of A Person", external_id="their-own-id")
    vector = (await client.post("/v1/embed", json={"image": encoded})).json()["faces"][0]["embedding"]
    for sent in (
        {"json": {"image": encoded, "gallery": gallery}},
        {"json": {"image": encoded, "wrong": encoded}},
        {"json": {"image": encoded[:-1]}},
        {"content": photo[: len(photo) // 2]},
        {"files": {"image": photo, encoded[:60]: photo}},
        {"content": b"no picture: " + ADMIN_KEY.encode()},
        {"content": photo, "headers": {"x-api-key": key + "x"}},
        {"content": photo, "params": {"gallery": key}},
    ):
        answer = await client.post("/v1/identify", **sent)  # type: ignore[arg-type]
        for secret in (encoded[:40], ADMIN_KEY, key.rsplit("_", 1)[-1]):
            assert secret not in answer.text

    text = lines.getvalue()
    assert text.count("\n") > 5
    for secret in (
        encoded[:24],
        encoded[200:224],
        ADMIN_KEY,
        key,
        key.rsplit("_", 1)[-1],
        "Name Of A Person",
        "their-own-id",
    ):
        assert secret not in text
    for number in vector[:8]:
        assert str(number)[:8] not in text or np.isclose(number, 0)
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict)
