"""The same pictures and parameters come out of a form, a raw body and JSON; what is wrong is refused by kind."""

from __future__ import annotations

import base64
import time
from typing import Any

import httpx
import orjson
import pytest
from starlette.requests import Request
from starlette.types import Message

from service.errors import FacetError, InvalidParameter, MalformedBody, MissingImage
from service.rest.bodies import Asked, read_asked
from service.rest.exchange import SCOPE_KEY, Exchange
from service.rest.parameters import EnrollParameters, IdentifyParameters, VerbParameters, VerifyParameters

PICTURE = b"\x89PNG not decoded here \x00\xff"
ENCODED = base64.b64encode(PICTURE).decode()
AS_TEXT = {"gallery": "staff", "fpir": "0.001", "limit": "5", "candidates": "true"}


async def asked(kind: type[VerbParameters], **sent: Any) -> Asked[Any]:
    """What `read_asked` makes of a request that httpx builds."""
    built = httpx.Request("POST", "http://facet/v1/verb", **sent)
    body = built.read()
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop(0)

    now = time.monotonic()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/verb",
        "server": ("facet", 80),
        "query_string": built.url.query,
        "headers": [(name.lower(), value) for name, value in built.headers.raw],
        SCOPE_KEY: Exchange("id", now, now + 5),
    }
    return await read_asked(Request(scope, receive), kind)


@pytest.mark.parametrize(
    "sent",
    [
        {"files": {"image": PICTURE}, "data": AS_TEXT},
        {"content": PICTURE, "params": {"gallery": "staff", "fpir": "1e-3", "limit": "5", "candidates": "1"}},
        {"json": {"image": ENCODED, "gallery": "staff", "fpir": 0.001, "limit": 5, "candidates": True}},
        {"files": {"image": ("x.gif", PICTURE, "text/plain")}, "params": AS_TEXT},
    ],
    ids=["form", "raw", "json", "form-and-query"],
)
async def test_three_bodies_say_the_same(sent: dict[str, Any]) -> None:
    found = await asked(IdentifyParameters, **sent)

    assert found.image == PICTURE
    assert found.parameters == IdentifyParameters(gallery="staff", fpir=0.001, limit=5, candidates=True)


@pytest.mark.parametrize("declared", ["image/jpeg", "image/gif", "application/octet-stream", "text/plain",
                                      "application/x-www-form-urlencoded", None])  # fmt: skip
async def test_a_raw_picture_is_taken_whatever_it_is_called(declared: str | None) -> None:
    headers = {"content-type": declared} if declared else {}

    assert (await asked(IdentifyParameters, content=PICTURE, headers=headers)).image == PICTURE


async def test_enrolment_takes_several_pictures_in_order_and_metadata_as_json() -> None:
    files = [("images", b"one"), ("images", b"two")]
    formed = await asked(EnrollParameters, files=files, data={"name": "Ä", "metadata": '{"team": [1]}'})
    listed = [base64.b64encode(picture).decode() for picture in (b"one", b"two")]
    json = await asked(EnrollParameters, json={"images": listed, "name": "Ä", "metadata": {"team": [1]}})

    assert formed.many == json.many == [b"one", b"two"]
    assert formed.parameters == json.parameters


@pytest.mark.parametrize(
    ("kind", "sent", "parameter"),
    [
        (IdentifyParameters, {"content": PICTURE, "params": {"colour": "blue"}}, "colour"),
        (IdentifyParameters, {"files": {"image": PICTURE, "picture": PICTURE}}, "picture"),
        (IdentifyParameters, {"json": {"image": ENCODED, "colour": "blue"}}, "colour"),
        (IdentifyParameters, {"json": {"image": ENCODED, "limit": "5"}}, "limit"),
        (IdentifyParameters, {"json": {"image": ENCODED, "limit": 5.5}}, "limit"),
        (IdentifyParameters, {"json": {"image": ENCODED, "limit": True}}, "limit"),
        (IdentifyParameters, {"json": {"image": ENCODED, "candidates": 1}}, "candidates"),
        (IdentifyParameters, {"json": {"image": ENCODED, "gallery": 7}}, "gallery"),
        (IdentifyParameters, {"json": {"image": [ENCODED]}}, "image"),
        (IdentifyParameters, {"json": {"image": 7}}, "image"),
        (IdentifyParameters, {"json": {"image": "not base64!"}}, "image"),
        (IdentifyParameters, {"json": {"image": "data:image/png;base64," + ENCODED}}, "image"),
        (IdentifyParameters, {"content": PICTURE, "params": {"limit": "many"}}, "limit"),
        (IdentifyParameters, {"content": PICTURE, "params": {"limit": "0"}}, "limit"),
        (IdentifyParameters, {"content": PICTURE, "params": {"limit": "101"}}, "limit"),
        (IdentifyParameters, {"content": PICTURE, "params": {"fpir": "nan"}}, "fpir"),
        (IdentifyParameters, {"content": PICTURE, "params": {"fpir": "0"}}, "fpir"),
        (IdentifyParameters, {"content": PICTURE, "params": {"threshold": "1.5"}}, "threshold"),
        (IdentifyParameters, {"content": PICTURE, "params": {"faces": "two"}}, "faces"),
        (IdentifyParameters, {"content": PICTURE, "params": {"candidates": "perhaps"}}, "candidates"),
        (IdentifyParameters, {"content": PICTURE, "params": [("limit", "1"), ("limit", "2")]}, "limit"),
        (IdentifyParameters, {"content": PICTURE, "params": {"image": "x"}}, "image"),
        (IdentifyParameters, {"files": [("image", PICTURE), ("image", PICTURE)]}, "image"),
        (IdentifyParameters, {"files": {"image": PICTURE}, "data": {"limit": "1"}, "params": {"limit": "1"}}, "limit"),
        (IdentifyParameters, {"files": {"image": PICTURE, "gallery": b"\xff\xfe"}}, "gallery"),
        (EnrollParameters, {"files": {"images": PICTURE}, "data": {"metadata": "{"}}, "metadata"),
        (EnrollParameters, {"files": {"images": PICTURE}, "data": {"metadata": "[1]"}}, "metadata"),
        (EnrollParameters, {"json": {"images": ENCODED}}, "images"),
        (EnrollParameters, {"json": {"images": [ENCODED, None]}}, "images"),
        (EnrollParameters, {"json": {"images": [ENCODED], "metadata": "{}"}}, "metadata"),
        (EnrollParameters, {"files": {"image": PICTURE}}, "image"),
    ],
)  # fmt: skip
async def test_a_wrong_parameter_is_named(
    kind: type[VerbParameters], sent: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        await asked(kind, **sent)

    assert refused.value.details["parameter"] == parameter


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff\xfe", b"{'image': 1}"])
async def test_json_that_is_no_object_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        await asked(
            IdentifyParameters, content=body, headers={"content-type": "application/json; charset=utf-8"}
        )


@pytest.mark.parametrize("declared", ["image/png", "application/json", "application/octet-stream"])
async def test_an_empty_body_has_no_picture(declared: str) -> None:
    with pytest.raises(MissingImage):
        await asked(IdentifyParameters, content=b"", headers={"content-type": declared})


@pytest.mark.parametrize(
    "sent",
    [{"files": {"image": b""}}, {"json": {"image": ""}}, {"json": {"image": None}}, {"json": {}},
     {"files": {"gallery": b"staff"}}],
)  # fmt: skip
async def test_a_picture_of_no_bytes_is_missing(sent: dict[str, Any]) -> None:
    found = await asked(IdentifyParameters, **sent)

    with pytest.raises(MissingImage):
        _ = found.image


async def test_an_error_never_repeats_what_was_sent() -> None:
    secret = "c2VjcmV0" * 40
    sendings: list[dict[str, Any]] = [
        {"json": {"image": ENCODED, "limit": secret}},
        {"json": {"image": secret + "!"}},
        {"content": PICTURE, "params": {"faces": secret}},
        {"json": {"image": ENCODED, "metadata": {"a": secret}}},
        {"files": {"image": PICTURE}, "data": {secret: "x"}},
    ]
    for sent in sendings:
        with pytest.raises(FacetError) as refused:
            await asked(VerifyParameters, **sent)
        assert secret not in refused.value.message + orjson.dumps(refused.value.details).decode()
