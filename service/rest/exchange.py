"""One request and its answer: the id it goes by, when it must be answered, and who asked.

Rule: made by the door before anything else runs; `principal` is set once, by the route that authenticated the caller.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from service.auth import Principal
from service.errors import InvalidParameter

SCOPE_KEY: Final = "facet.exchange"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_HEADERS: Final = frozenset(
    {
        b"x-request-id",
        b"x-timeout-ms",
        b"traceparent",
        b"content-length",
        b"transfer-encoding",
        b"x-api-key",
        b"authorization",
    }
)


@dataclass(slots=True)
class Exchange:
    """`started` and `deadline` are seconds of `time.monotonic`; `trace_id` is the caller's W3C trace, 32 hex digits."""

    request_id: str
    started: float
    deadline: float
    trace_id: str | None = None
    declared_bytes: int | None = None  # Content-Length
    chunked: bool = False  # a body without a declared end
    api_key: str | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)
    principal: Principal | None = None
    route: str = "unmatched"  # the route's template, for metrics and logs: a path may hold a person's id

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - time.monotonic()


def open_exchange(
    scope: Scope, timeout_ms: int, max_timeout_ms: int
) -> tuple[Exchange, InvalidParameter | None]:
    """The exchange of an HTTP scope, and what is wrong with its headers, if anything.

    A request id that is not 1–128 characters of `[A-Za-z0-9._:-]` is replaced, not refused: it is only a label.
    """
    headers = {name: value for name, value in scope["headers"] if name in _HEADERS}
    started = time.monotonic()
    timeout, wrong = _timeout_ms(headers.get(b"x-timeout-ms"), timeout_ms, max_timeout_ms)
    exchange = Exchange(
        request_id=_request_id(headers.get(b"x-request-id")),
        started=started,
        deadline=started + timeout / 1000,
        trace_id=_trace_id(headers.get(b"traceparent")),
        declared_bytes=_declared(headers.get(b"content-length")),
        chunked=b"transfer-encoding" in headers,
        api_key=_text(headers.get(b"x-api-key")),
        authorization=_text(headers.get(b"authorization")),
    )
    scope[SCOPE_KEY] = exchange
    return exchange, wrong


def exchange_of(request: Request) -> Exchange:
    """The exchange that the door opened for this request."""
    found = request.scope[SCOPE_KEY]
    assert isinstance(found, Exchange)
    return found


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _request_id(value: bytes | None) -> str:
    given = _text(value)
    return given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _trace_id(value: bytes | None) -> str | None:
    given = _TRACEPARENT.fullmatch(value.decode("latin-1")) if value is not None else None
    return given[1] if given else None


def _declared(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


def _timeout_ms(value: bytes | None, default: int, ceiling: int) -> tuple[int, InvalidParameter | None]:
    if value is None:
        return default, None
    if not (value.isdigit() and len(value) < 10 and int(value) > 0):
        message = "X-Timeout-Ms must be a whole number of milliseconds above 0"
        return default, InvalidParameter(message, parameter="X-Timeout-Ms")
    return min(int(value), ceiling), None
