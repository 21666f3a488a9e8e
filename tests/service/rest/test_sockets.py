"""What only a real connection shows: a refusal reaches a caller who still sends, and the next request is served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from tests.service.rest.conftest import ADMIN_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Server(uvicorn.Server):
    """Leaves the signals of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(world: Any) -> AsyncIterator[int]:
    """The application behind uvicorn on a free port of this machine."""
    server = Server(uvicorn.Config(world.app, port=0, log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def answered(port: int, head: str, body: bytes = b"", then: Any = None) -> bytes:
    """The answer to a request, while `then(writer)` goes on sending; with it the connection must be closed, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = None
    try:
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        sending = asyncio.create_task(then(writer)) if then else None
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b'"}')
            if then:
                with contextlib.suppress(ConnectionError):
                    while await reader.read(65536):
                        pass
            return answer
    finally:
        if sending:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def forever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("verb", ["identify", "enroll"])
async def test_a_wrong_key_with_an_endless_body_is_told_at_once(port: int, verb: str) -> None:
    head = f"POST /v1/{verb} HTTP/1.1\r\nHost: f\r\nX-API-Key: wrong\r\nTransfer-Encoding: chunked\r\n"

    answer = await answered(port, head, then=forever)

    assert answer.startswith(b"HTTP/1.1 401")


async def test_an_endless_body_is_told_that_it_is_too_large(port: int) -> None:
    head = (
        f"POST /v1/identify HTTP/1.1\r\nHost: f\r\nX-API-Key: {ADMIN_KEY}\r\nTransfer-Encoding: chunked\r\n"
    )

    answer = await answered(port, head, then=forever)

    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_caller_who_asks_first_is_not_invited_to_send_what_is_too_large(port: int) -> None:
    head = (
        f"POST /v1/identify HTTP/1.1\r\nHost: f\r\nX-API-Key: {ADMIN_KEY}\r\n"
        "Content-Length: 100000000\r\nExpect: 100-continue\r\n"
    )

    answer = await answered(port, head)

    assert answer.startswith(b"HTTP/1.1 413")


async def test_100_mb_are_refused_and_the_next_requests_are_served(port: int, picture: bytes) -> None:
    base, headers = f"http://127.0.0.1:{port}", {"x-api-key": ADMIN_KEY}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as caller:
        refused = await caller.post("/v1/identify", content=b"x" * 100_000_000)
        served = await caller.post("/v1/identify", content=picture)

    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert served.status_code == 200


async def test_a_caller_who_hangs_up_is_dropped(port: int, world: Any, picture: bytes) -> None:
    gone = world.facet.metrics.requests.labels("rest", "identify", "499")
    before = gone._value.get()
    head = f"POST /v1/identify HTTP/1.1\r\nHost: f\r\nX-API-Key: {ADMIN_KEY}\r\nContent-Length: 1000\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + picture[:500])
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()

    async with asyncio.timeout(5):
        while gone._value.get() == before:
            await asyncio.sleep(0.02)
