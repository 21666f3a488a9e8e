"""Who may do what at the door, and that nothing of a body is read before that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from service.auth import SCOPES
from service.rest.routing import ANY, PUBLIC, GuardedRoute, add
from tests.service.rest.conftest import ADMIN_KEY, call, client_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

Refused = Callable[[httpx.Response, int, str], dict[str, Any]]
OPEN = {"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"}
# What is sent to each route, so that the scope alone decides.
EXPECTED_SCOPES = {
    ("POST", "/detect"): "detect", ("POST", "/embed"): "embed", ("POST", "/verify"): "verify",
    ("POST", "/enroll"): "enroll", ("POST", "/identify"): "identify",
    ("POST", "/v1/detect"): "detect", ("POST", "/v1/embed"): "embed", ("POST", "/v1/verify"): "verify",
    ("POST", "/v1/enroll"): "enroll", ("POST", "/v1/identify"): "identify",
    ("GET", "/v1/galleries"): "admin", ("POST", "/v1/galleries"): "admin",
    ("GET", "/v1/galleries/{gallery}"): "admin", ("PATCH", "/v1/galleries/{gallery}"): "admin",
    ("DELETE", "/v1/galleries/{gallery}"): "admin",
    ("GET", "/v1/galleries/{gallery}/persons"): "enroll", ("POST", "/v1/galleries/{gallery}/persons"): "enroll",
    ("GET", "/v1/galleries/{gallery}/persons/{person}"): "enroll",
    ("PATCH", "/v1/galleries/{gallery}/persons/{person}"): "enroll",
    ("DELETE", "/v1/galleries/{gallery}/persons/{person}"): "enroll",
    ("GET", "/v1/galleries/{gallery}/persons/{person}/faces"): "enroll",
    ("POST", "/v1/galleries/{gallery}/persons/{person}/faces"): "enroll",
    ("DELETE", "/v1/galleries/{gallery}/persons/{person}/faces/{face}"): "enroll",
    ("GET", "/v1/api-keys"): "admin", ("POST", "/v1/api-keys"): "admin", ("DELETE", "/v1/api-keys/{key}"): "admin",
    ("GET", "/v1/models"): ANY,
}  # fmt: skip
GUARDED = [(method, path, scope) for (method, path), scope in EXPECTED_SCOPES.items()]


async def test_every_route_has_a_scope_and_only_the_open_ones_have_none(world: Any) -> None:
    found = {}
    for route in world.app.routes:
        assert isinstance(route, GuardedRoute), f"{route} bypasses the guard"
        for method in route.methods or ():
            found[method, route.path] = route.needed_scope

    assert {path for (_, path), scope in found.items() if scope == PUBLIC} == OPEN
    guarded = {place: scope for place, scope in found.items() if scope != PUBLIC}
    assert guarded == EXPECTED_SCOPES


async def nothing() -> None: ...


@pytest.mark.parametrize("scope", ["", "everything"])
async def test_a_route_without_a_scope_cannot_be_made(scope: str) -> None:
    router = APIRouter(route_class=GuardedRoute)

    with pytest.raises(ValueError, match="declares no scope"):
        add(router, "GET", "/secret", nothing, scope=scope)
    with pytest.raises(ValueError, match="declares no scope"):
        router.add_api_route("/secret", nothing)
    assert not [route for route in router.routes if isinstance(route, APIRoute)]


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "wrong"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic YTpi"},
        {"x-api-key": ""},
    ],
    ids=["none", "wrong", "wrong-bearer", "basic", "empty"],
)
async def test_a_caller_without_a_key_is_refused_before_the_body_is_read(
    world: Any, method: str, path: str, scope: str, headers: dict[str, str]
) -> None:
    filled = path.format(gallery="default", person="p", face="f", key="k")
    for kind in ("image/jpeg", "application/json", "multipart/form-data; boundary=x"):
        status, body, taken = await call(world.app, method, filled, {**headers, "content-type": kind})

        assert (status, taken) == (401, 0)
        assert b'"unauthenticated"' in body


@pytest.mark.parametrize(("method", "path", "scope"), [case for case in GUARDED if case[2] != ANY])
async def test_a_key_of_every_other_scope_is_refused_before_the_body_is_read(
    world: Any, method: str, path: str, scope: str
) -> None:
    key = await world.key(*sorted(SCOPES - {scope}))
    filled = path.format(gallery="default", person="p", face="f", key="k")

    status, body, taken = await call(
        world.app, method, filled, {"x-api-key": key, "content-type": "image/jpeg"}
    )

    assert (status, taken) == (403, 0)
    assert b'"forbidden"' in body
    assert f'"scope":"{scope}"'.encode() in body


async def test_a_key_works_in_either_header_and_for_its_scope_alone(
    world: Any, refused: Refused, picture: bytes
) -> None:
    key = await world.key("detect")
    async with client_of(world.app, None) as stranger:
        for headers in (
            {"x-api-key": key},
            {"authorization": f"Bearer {key}"},
            {"authorization": f"bearer {key}"},
        ):
            assert (await stranger.post("/v1/detect", content=picture, headers=headers)).status_code == 200
            refused(await stranger.post("/v1/embed", content=picture, headers=headers), 403, "forbidden")
        answer = await stranger.post("/v1/detect", content=picture)
        refused(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_key_is_refused_at_once(world: Any, refused: Refused, picture: bytes) -> None:
    made = (await world.client.post("/v1/api-keys", json={"name": "short", "scopes": ["detect"]})).json()
    async with client_of(world.app, made["key"]) as holder:
        assert (await holder.post("/v1/detect", content=picture)).status_code == 200
        assert (await world.client.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
        refused(await holder.post("/v1/detect", content=picture), 401, "unauthenticated")


async def test_candidates_need_admin_besides_identify(world: Any, refused: Refused, picture: bytes) -> None:
    async with client_of(world.app, await world.key("identify")) as door:
        assert (await door.post("/v1/identify", content=picture)).status_code == 200
        answer = await door.post("/v1/identify", content=picture, params={"candidates": "true"})
        assert refused(answer, 403, "forbidden") == {"scope": "admin"}


@pytest.mark.parametrize("path", sorted(OPEN))
async def test_the_open_routes_ask_for_no_key(world: Any, path: str) -> None:
    async with client_of(world.app, None) as stranger:
        assert (await stranger.get(path)).status_code == 200


async def test_the_administrators_key_is_not_logged_by_being_wrong(world: Any, refused: Refused) -> None:
    async with client_of(world.app, ADMIN_KEY + "x") as stranger:
        answer = await stranger.get("/v1/galleries")
        refused(answer, 401, "unauthenticated")
        assert ADMIN_KEY not in answer.text
