"""The gRPC server: the transport's limits, the gate, the five verbs, health and reflection.

Rule: only the transport is configured here; what a call may do is decided in the gate and below.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.bootstrap import Facet
from service.errors import StartFailed
from service.grpc.generated.facet.v1 import face_service_pb2_grpc
from service.grpc.health import Health
from service.grpc.interceptors import SERVICE, Gate
from service.grpc.servicer import FaceService

HEALTH: Final = "grpc.health.v1.Health"
# Beside the pictures a message has parameters and metadata; the gate says `too_large` up to here, the transport beyond.
HEADROOM_BYTES: Final = 1 << 20


class GrpcServer:
    """A server that listens from `start` to `stop`; `port` is the one that it really has."""

    def __init__(self, facet: Facet) -> None:
        settings = facet.settings
        self.gate = Gate(
            authenticator=facet.authenticator,
            admission=facet.recognizer.admission,
            settings=settings,
            metrics=facet.metrics,
        )
        self._server = grpc.aio.server(interceptors=(self.gate,), options=_options(settings.max_body_bytes))
        self._health = Health(lambda: facet.ready)
        self._following: asyncio.Task[None] | None = None
        face_service_pb2_grpc.add_FaceServiceServicer_to_server(FaceService(facet), self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), self._server)
        self.port = _listen(self._server, settings.grpc_host, settings.grpc_port)

    async def start(self) -> None:
        """Answer from now on; FaceService is NOT_SERVING until the service is ready."""
        await self._health.tell()
        await self._server.start()
        self._following = asyncio.create_task(self._health.follow(), name="grpc-health")

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those that run finish for `grace_s` seconds, then cancel them."""
        await self._health.tell()
        if self._following is not None:
            self._following.cancel()
        await self._server.stop(grace_s)


def create_server(facet: Facet) -> GrpcServer:
    """The gRPC door of `facet`, bound to its port. Raises `StartFailed` when the port is taken."""
    return GrpcServer(facet)


def _options(max_body_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_body_bytes + HEADROOM_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # or two servers share a port in silence, each with half of the calls
        # A gateway's idle connection is kept open by its pings, which the default takes for an attack.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


def _listen(server: grpc.aio.Server, host: str, port: int) -> int:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(place)
    except RuntimeError:
        bound = 0
    if not bound:
        raise StartFailed(f"FACET_GRPC_PORT: cannot listen on {place}: is it in use?")
    return bound
