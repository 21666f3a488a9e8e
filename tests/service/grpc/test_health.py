"""The standard health service and reflection: open to all, and SERVING only while the service is ready."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.bootstrap import Phase
from service.grpc.health import NAMES
from tests.service.grpc.conftest import World, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def check(world: World, service: str) -> Any:
    stub = health_pb2_grpc.HealthStub(world.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


@pytest.mark.parametrize("service", NAMES, ids=["the server", "FaceService"])
async def test_it_serves_when_ready_and_not_while_warming_or_draining(
    world: World, service: str, monkeypatch: Any
) -> None:
    assert await check(world, service) == SERVING
    for phase in (Phase.WARMING, Phase.DRAINING):
        monkeypatch.setattr(world.facet, "phase", phase)
        assert await check(world, service) == NOT_SERVING
    monkeypatch.undo()
    assert await check(world, service) == SERVING


async def test_an_unknown_service_is_not_found(world: World) -> None:
    refused = await refusal_of(check(world, "facet.v9.FaceService"))

    assert refused.status is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_hears_of_draining(world: World, monkeypatch: Any) -> None:
    stub = health_pb2_grpc.HealthStub(world.channel)
    call = stub.Watch(health_pb2.HealthCheckRequest(service=NAMES[1]))
    assert (await call.read()).status == SERVING

    monkeypatch.setattr(world.facet, "phase", Phase.DRAINING)
    assert (await asyncio.wait_for(call.read(), 5)).status == NOT_SERVING

    monkeypatch.undo()
    assert (await asyncio.wait_for(call.read(), 5)).status == SERVING
    call.cancel()


async def test_reflection_lists_the_services(world: World) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = [one async for one in stub.ServerReflectionInfo(asked)]

    names = {service.name for service in answer.list_services_response.service}
    assert {"facet.v1.FaceService", "grpc.health.v1.Health"} <= names
