"""A real gRPC server on a loopback port, on the synthetic bundle and an SQLite file; one for each test module."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from service.bootstrap import Facet, build
from service.config import load_settings
from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.grpc.generated.facet.v1 import face_service_pb2_grpc as stubs
from service.grpc.interceptors import Gate
from service.grpc.server import create_server
from tests.synthetic_bundle import draw_person

ADMIN_KEY = "an admin key of the tests, long enough to be one"
LARGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True)
class Refusal:
    """What a failed call told: status, code, details, message, and all of its trailing metadata."""

    status: grpc.StatusCode
    code: str | None
    details: dict[str, Any]
    message: str
    trailers: dict[str, str]


@dataclass(frozen=True)
class World:
    """The service under test, a channel to it and a stub; `key` is the metadata that holds the admin key."""

    facet: Facet
    channel: grpc.aio.Channel
    stub: Any
    key: tuple[tuple[str, str], ...]
    gate: Gate

    async def gallery(self, name: str) -> str:
        """A gallery of its own for a test."""
        await self.facet.sync.create_gallery(name)
        return name

    async def enrol(self, gallery: str, identity: int, **fields: Any) -> Any:
        """A drawn person, enrolled from two pictures; the answer."""
        pictures = [encode(draw_person(identity, variation)) for variation in (1, 2)]
        return await self.stub.Enroll(
            pb.EnrollRequest(images=pictures, gallery=gallery, **fields), metadata=self.key
        )


def encode(picture: npt.NDArray[np.uint8], suffix: str = ".jpg") -> bytes:
    """RGB pixels as the bytes of a file."""
    ok, data = cv2.imencode(suffix, picture[..., ::-1])
    assert ok
    return data.tobytes()


async def refusal_of(call: Awaitable[Any]) -> Refusal:
    """The refusal of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    error = failed.value
    trailers = {name: str(value) for name, value in error.trailing_metadata() or ()}
    return Refusal(
        error.code(),
        trailers.get("facet-error-code"),
        json.loads(trailers.get("facet-error-details", "{}")),
        error.details() or "",
        trailers,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, synthetic_bundle: Path) -> AsyncIterator[World]:
    """The service with one lane; each test takes a gallery of its own."""
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"),
        bundle=synthetic_bundle,
        admin_key=ADMIN_KEY,
        grpc_port=0,
        inference_lanes=1,
        decode_threads=1,
    )
    facet = await build(settings)
    server = create_server(facet)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=LARGE) as channel:
            yield World(
                facet, channel, stubs.FaceServiceStub(channel), (("x-api-key", ADMIN_KEY),), server.gate
            )
    finally:
        await server.stop(0)
        await facet.close()


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A JPEG of one drawn face that nobody is enrolled with."""
    return encode(draw_person(999))
