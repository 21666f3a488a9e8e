"""Whether the process lives, whether it would answer, and its metrics; nobody is asked for a key here.

Rule: liveness never depends on anything but the event loop, or a slow database restarts healthy replicas.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.bootstrap import Facet
from service.errors import NotReady
from service.rest.convert import told
from service.rest.exchange import exchange_of
from service.rest.openapi import refusals
from service.rest.responses import Answer
from service.rest.routing import PUBLIC, add
from service.rest.schemas import HealthAnswer
from service.telemetry.metrics import CONTENT_TYPE

TEXT: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}


class HealthRoutes:
    """`/healthz`, `/readyz`, `/metrics`."""

    def __init__(self, facet: Facet) -> None:
        self._facet = facet

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        add(
            router,
            "GET",
            "/healthz",
            self.alive,
            scope=PUBLIC,
            name="healthz",
            response_model=HealthAnswer,
            tags=["health"],
        )
        add(
            router, "GET", "/readyz", self.ready, scope=PUBLIC, name="readyz",
            response_model=HealthAnswer, responses=refusals(503), tags=["health"],
        )  # fmt: skip
        add(
            router, "GET", "/metrics", self.metrics, scope=PUBLIC, name="metrics",
            response_class=Response, tags=["health"], responses={200: {"content": TEXT}},
        )  # fmt: skip

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return Answer(told(exchange_of(request).request_id, {"status": "alive"}))

    async def ready(self, request: Request) -> Response:
        """The models are loaded and the index equals the database; 503 until then."""
        if not self._facet.ready:
            raise NotReady(reason=self._facet.not_ready_reason)
        return Answer(told(exchange_of(request).request_id, {"status": "ready"}))

    async def metrics(self) -> Response:
        """Prometheus text format."""
        return Response(self._facet.metrics.exposition(), media_type=CONTENT_TYPE)
