"""The standard health service (grpc.health.v1), for the whole server ("") and for FaceService by name.

Rule: SERVING is said only while the service below is ready; a check asks at that moment, a watch hears within
`INTERVAL_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from grpc_health.v1 import health, health_pb2

from service.grpc.interceptors import SERVICE

INTERVAL_S: Final = 0.2
NAMES: Final = ("", SERVICE)


class Health(health.aio.HealthServicer):  # type: ignore[name-defined,misc]  # grpc_health has no types
    """Answers from `ready()`. `follow` keeps the watchers told until it is cancelled."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._ready = ready
        self._told: bool | None = None

    async def Check(self, request: Any, context: Any) -> Any:
        """One answer, as of now."""
        await self.tell()
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:
        """The state now and every change of it."""
        await self.tell()
        await super().Watch(request, context)

    async def tell(self) -> None:
        """Pass a change of `ready()` on."""
        ready = self._ready()
        if ready is self._told:
            return
        self._told = ready
        status = health_pb2.HealthCheckResponse
        for name in NAMES:
            await self.set(name, status.SERVING if ready else status.NOT_SERVING)

    async def follow(self) -> None:
        """Runs as long as the server."""
        while True:
            await self.tell()
            await asyncio.sleep(INTERVAL_S)
