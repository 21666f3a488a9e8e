"""The door itself, around the whole application: request id, deadline, body limits, metrics, and the last resort.

Rule: pure ASGI, and nothing here reads the body or decides about a request. No exception leaves the door: what is not
one of ours becomes `internal`, with the place in the log and nothing but the id in the answer.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config import Settings
from service.errors import Cancelled, FacetError, InvalidParameter
from service.rest.errors import internal_error, refusal
from service.rest.exchange import Exchange, open_exchange
from service.rest.limits import BodyBudget, BoundedReceive
from service.telemetry import logging
from service.telemetry.metrics import Metrics

# Bodies in flight may hold this many full-size bodies together.
FULL_BODIES: Final = 16
GONE: Final = 499  # the caller left: no status was sent

log = logging.get(__name__)


class Door:
    """ASGI middleware; one for each application."""

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._timeout_ms = settings.timeout_ms
        self._max_timeout_ms = settings.max_timeout_ms
        self._max_body_bytes = settings.max_body_bytes
        self._budget = BodyBudget(settings.max_body_bytes * FULL_BODIES, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one HTTP request; lifespan passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange, wrong = open_exchange(scope, self._timeout_ms, self._max_timeout_ms)
        bounded = BoundedReceive(receive, exchange, self._max_body_bytes, self._budget)
        answer = _Answering(send, exchange.request_id, bounded)
        try:
            await self._serve(scope, bounded, answer, exchange, wrong)
        finally:
            bounded.release()
            self._account(exchange, answer.status or GONE)

    async def _serve(
        self,
        scope: Scope,
        receive: BoundedReceive,
        answer: _Answering,
        exchange: Exchange,
        wrong: InvalidParameter | None,
    ) -> None:
        try:
            if wrong is not None:
                raise wrong
            await self._app(scope, receive, answer)
            return
        except (Cancelled, ClientDisconnect):
            return
        except FacetError as error:
            response = refusal(error, exchange.request_id)
        except (
            Exception
        ) as error:  # a defect: its message may quote the request, so only its kind and place are logged
            log.error("request failed", exc_info=error, request_id=exchange.request_id, route=exchange.route)
            response = internal_error(exchange.request_id)
        if answer.status is None:  # half an answer cannot be taken back
            await response(scope, receive, answer)

    def _account(self, exchange: Exchange, status: int) -> None:
        spent = time.monotonic() - exchange.started
        self._metrics.requests.labels("rest", exchange.route, str(status)).inc()
        self._metrics.request_seconds.labels("rest", exchange.route).observe(spent)
        say = log.debug if status < 400 else log.info
        say(
            "request",
            route=exchange.route,
            status=status,
            ms=round(spent * 1000, 1),
            request_id=exchange.request_id,
            trace_id=exchange.trace_id,
            caller=exchange.principal.key_id if exchange.principal else None,
        )


class _Answering:
    """An ASGI `send` that adds the request id and remembers the status; it hangs up on a body that may never end."""

    __slots__ = ("_body", "_closing", "_request_id", "_send", "status")

    def __init__(self, send: Send, request_id: str, body: BoundedReceive) -> None:
        self._send = send
        self._body = body
        self._request_id = request_id.encode("latin-1")
        self._closing = False
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._closing = self._body.unwelcome
            headers = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
            if self._closing:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        if self._closing and message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})  # the whole answer, by its length
            await self._body.linger()
            message = {"type": "http.response.body"}
        await self._send(message)
