"""Alive, ready, measured, described: without a key, and ready only when it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.bootstrap import Phase

pytestmark = pytest.mark.asyncio(loop_scope="module")

Refused = Callable[[httpx.Response, int, str], dict[str, Any]]


async def test_it_is_alive_and_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json()["status"] == "alive"
    assert (await client.get("/readyz")).json()["status"] == "ready"


@pytest.mark.parametrize("phase", [Phase.WARMING, Phase.DRAINING])
async def test_warming_and_draining_are_alive_and_not_ready(
    client: httpx.AsyncClient, world: Any, refused: Refused, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    monkeypatch.setattr(world.facet, "phase", phase)

    assert (await client.get("/healthz")).status_code == 200
    assert refused(await client.get("/readyz"), 503, "not_ready") == {"reason": phase.value}


async def test_a_broken_index_is_not_ready_and_its_write_is_known_to_be_committed(
    client: httpx.AsyncClient, world: Any, refused: Refused, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = await world.gallery("broken")
    sync = world.facet.sync

    def fail(name: str) -> None:
        if name == "mid_apply":
            raise RuntimeError("the index cannot follow")

    monkeypatch.setattr(sync._projection, "_fault", fail)
    answer = await client.post("/v1/enroll", files={"images": picture}, data={"gallery": gallery})

    assert refused(answer, 503, "index_unavailable") == {"write_committed": True}
    monkeypatch.undo()
    await sync.rebuild(gallery)
    assert (await client.get("/readyz")).status_code == 200
    found = (await client.post("/v1/identify", content=picture, params={"gallery": gallery})).json()
    assert found["decision"] == "match"


async def test_metrics_count_by_route_and_never_by_path(client: httpx.AsyncClient, picture: bytes) -> None:
    await client.post("/v1/detect", content=picture)
    await client.get("/v1/galleries/default/persons/somebody-in-particular")
    await client.get("/some/path/of/a/stranger")

    told = await client.get("/metrics")

    assert told.headers["content-type"].startswith("text/plain")
    assert re.search(
        r'^facet_requests_total\{code="200",door="rest",method="detect"\} [1-9]', told.text, re.M
    )
    assert 'method="get_person"' in told.text
    assert 'method="unmatched"' in told.text
    assert "somebody" not in told.text
    assert "stranger" not in told.text


async def test_the_model_says_its_licence_and_how_far_it_was_measured(
    client: httpx.AsyncClient, world: Any
) -> None:
    (model,) = (await client.get("/v1/models")).json()["models"]
    manifest = world.facet.bundle.manifest

    assert model["model_id"] == manifest.model_id
    assert model["licence"] == {"id": manifest.licence.id, "text": manifest.licence.text}
    assert (model["backend"], model["embedding_space"]) == (world.facet.backend, manifest.embedding_space)
    assert model["calibration"]["floor"] > 0


async def test_the_page_shows_every_operation_and_loads_nothing_from_elsewhere(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/docs")
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert not re.search(r'(src|href)="(https?:)?//', page.text)
    for path in paths:
        assert f"<code>{path}</code>" in page.text


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("abc-123", True),
        ("a:b.c_d", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("é", False),
        ("", False),
    ],
)
async def test_a_request_id_is_echoed_when_it_is_one(
    client: httpx.AsyncClient, sent: str, echoed: bool
) -> None:
    answer = await client.get(
        "/healthz",
        headers={"x-request-id": sent.encode(), "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    )

    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert (answer.json()["request_id"] == sent) is echoed
    assert len(answer.json()["request_id"]) >= 1


async def test_two_requests_have_two_ids(client: httpx.AsyncClient) -> None:
    first, second = [(await client.get("/healthz")).headers["x-request-id"] for _ in range(2)]

    assert first != second


async def test_metrics_tell_of_every_gallery_as_it_is_now(
    client: httpx.AsyncClient, world: Any, picture: bytes
) -> None:
    gallery = await world.gallery("measured")
    await client.post("/v1/enroll", files={"images": picture}, data={"gallery": gallery})

    told = (await client.get("/metrics")).text
    assert f'facet_gallery_persons{{gallery="{gallery}"}} 1.0' in told
    assert f'facet_gallery_templates{{gallery="{gallery}"}} 1.0' in told
    assert "facet_index_ready 1.0" in told

    await client.delete(f"/v1/galleries/{gallery}")
    assert f'gallery="{gallery}"' not in (await client.get("/metrics")).text
