"""How a request of the command line reaches the REST API: over HTTP, or into the same application in this process.

Rule: both carry the same JSON and answer the same; nothing here knows what is asked. Several threads may send at once.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import orjson

from service.config import Settings

Json = dict[str, Any]


class Unreachable(Exception):
    """No service answers; the message is one line that says where, and what to do."""


class Transport(Protocol):
    """One way to the REST API. Use it as a context: leaving it closes it."""

    def send(
        self, method: str, path: str, body: Json | None, timeout_s: float
    ) -> tuple[int, dict[str, str], Json]:
        """Status, headers in lower case, JSON (empty for 204). Raises `Unreachable`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Http:
    """To a service at `url`, with one kept connection a thread."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url} is not an http:// or https:// address")
        self._parts = parts
        self._key = key
        self._kept = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def send(
        self, method: str, path: str, body: Json | None, timeout_s: float
    ) -> tuple[int, dict[str, str], Json]:
        """See `Transport`. A connection that the service closed meanwhile is opened again, once."""
        content = None if body is None else orjson.dumps(body)
        headers = _headers(self._key, body, timeout_s)
        for attempt in (1, 2):
            connection = self._connection(timeout_s)
            fresh = connection.sock is None
            try:
                connection.request(method, self._parts.path.rstrip("/") + path, content, headers)
                response = connection.getresponse()
                answer = response.read()
                return (
                    response.status,
                    {k.lower(): v for k, v in response.getheaders()},
                    _json(answer, self._place),
                )
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if fresh or attempt == 2 or isinstance(error, TimeoutError):
                    raise Unreachable(
                        f"no service answers at {self._place} ({_reason(error)}): is `facet serve` up?"
                    ) from None
        raise AssertionError("unreachable")

    @property
    def _place(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}"

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if kept is None:
            kind = (
                http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            )
            kept = kind(self._parts.hostname or "", self._parts.port, timeout=timeout_s + 5)
            self._kept.connection = kept
            self._all.append(kept)
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._all:
            connection.close()


class InProcess:
    """Into the REST application of this process, on the data dir of `settings`; no port is opened, no key is asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="facet-offline", daemon=True)

    def send(
        self, method: str, path: str, body: Json | None, timeout_s: float
    ) -> tuple[int, dict[str, str], Json]:
        """See `Transport`."""
        content = b"" if body is None else orjson.dumps(body)
        exchange = _Exchange(method, path, _headers(None, body, timeout_s), content)
        self._await(exchange.run(self._app))
        return exchange.status, exchange.headers, _json(b"".join(exchange.answer), "this process")

    def __enter__(self) -> Self:
        from service.bootstrap import build
        from service.rest.app import create_app
        from service.telemetry import logging

        logging.configure(self._settings.log_level)
        self._thread.start()
        try:
            self._facet = self._await(build(self._settings))
        except BaseException:
            self._stop()
            raise
        self._app: Any = create_app(self._facet)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._await(self._facet.close())
        self._stop()

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Exchange:
    """One ASGI request whose whole body is at hand, and its answer."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        path, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
        }
        self._body: bytes | None = body
        self._over = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answer: list[bytes] = []

    async def run(self, app: Any) -> None:
        await app(self._scope, self._receive, self._send)

    async def _receive(self) -> Json:
        if self._body is None:
            await self._over.wait()  # the caller stays until the answer is there
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                name.decode().lower(): value.decode() for name, value in message.get("headers", ())
            }
        else:
            self.answer.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._over.set()


def _headers(key: str | None, body: Json | None, timeout_s: float) -> dict[str, str]:
    headers = {"X-Timeout-Ms": str(round(timeout_s * 1000)), "Accept": "application/json"}
    if key is not None:
        headers["X-API-Key"] = key
    if body is not None:
        headers["Content-Type"] = "application/json"
    return headers


def _json(content: bytes, place: str) -> Json:
    try:
        answer = orjson.loads(content or b"{}")
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unreachable(f"what answers at {place} is not Facet")
    return answer


def _reason(error: Exception) -> str:
    told = getattr(error, "strerror", None)
    return (told or str(error) or type(error).__name__).lower()
