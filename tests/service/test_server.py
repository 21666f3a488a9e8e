"""The process: what it says when it starts, how it refuses to start, and how it ends."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service import errors, server
from service.bootstrap import Census
from service.config import Settings, load_settings
from service.errors import StartFailed
from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.grpc.generated.facet.v1 import face_service_pb2_grpc as stubs
from service.recognition.recognize import Recognizer

KEY = "an admin key of the tests, long enough to be one"


# ---- what it says


def lines(
    tmp_path: Path,
    *,
    people: int = 0,
    licence: str = "research-only",
    show_key: bool = False,
    **settings: Any,
) -> str:
    facet: Any = SimpleNamespace(
        settings=load_settings(data_dir=tmp_path, **settings),
        bundle=SimpleNamespace(
            manifest=SimpleNamespace(model_id="faces@3", licence=SimpleNamespace(id=licence))
        ),
        backend="openvino",
        first_key=SimpleNamespace(path=tmp_path / "admin.key", token="fk_token"),
    )
    return "\n".join(server.start_lines(facet, Census(people, 2), 8080, 8081, show_key=show_key))


def test_the_start_says_where_what_and_who(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("fk_token")
    told = lines(tmp_path, people=12)

    assert "REST http://127.0.0.1:8080" in told
    assert "gRPC 127.0.0.1:8081" in told
    assert "faces@3 (research-only: NOT for commercial use)" in told
    assert "openvino" in told
    assert "12 in 2 galleries" in told
    assert f"admin key is in {tmp_path / 'admin.key'}" in told


def test_a_commercial_licence_needs_no_warning(tmp_path: Path) -> None:
    told = lines(tmp_path, licence="commercial")
    assert "faces@3 (commercial)" in told
    assert "NOT" not in told


def test_the_key_itself_is_for_a_terminal_only(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("fk_token")
    assert "fk_token" in lines(tmp_path, show_key=True)
    assert "fk_token" not in lines(tmp_path, show_key=False)


def test_a_given_key_and_no_key_are_told_apart(tmp_path: Path) -> None:
    assert KEY not in lines(tmp_path, admin_key=KEY, show_key=True)
    assert "FACET_ADMIN_KEY" in lines(tmp_path, admin_key=KEY)
    assert "authentication is OFF" in lines(tmp_path, auth="off")


def test_the_next_step_fits_the_moment(tmp_path: Path) -> None:
    assert "facet enroll DIR" in lines(tmp_path, people=0)
    assert "facet identify IMAGE" in lines(tmp_path, people=1)


# ---- how it refuses to start


@pytest.fixture
def settings(tmp_path: Path, synthetic_bundle: Path) -> Settings:
    return load_settings(
        data_dir=tmp_path / "data",
        bundle=synthetic_bundle,
        admin_key=KEY,
        http_port=0,
        grpc_port=0,
        inference_lanes=1,
    )


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("port", ["http_port", "grpc_port"])
async def test_a_port_in_use_fails_the_start_by_its_name(settings: Settings, taken: int, port: str) -> None:
    with pytest.raises(StartFailed, match=f"FACET_{port.upper()}: cannot listen on 127.0.0.1:{taken}"):
        await server.until_signalled(settings.model_copy(update={port: taken}), io.StringIO())


async def test_a_host_that_is_not_ours_fails_the_start(settings: Settings) -> None:
    with pytest.raises(StartFailed, match="FACET_HTTP"):
        await server.until_signalled(settings.model_copy(update={"http_host": "203.0.113.7"}), io.StringIO())


async def test_a_missing_bundle_frees_the_port_again(settings: Settings, taken: int, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broken = settings.model_copy(update={"http_port": port, "bundle": tmp_path / "none"})
    with pytest.raises(StartFailed, match="FACET_BUNDLE"):
        await server.until_signalled(broken, io.StringIO())
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


# ---- how it runs and ends


class Running:
    """A service in this loop, and where it says that it listens."""

    def __init__(self, told: str, task: asyncio.Task[None]) -> None:
        self.told = told
        self.task = task
        found = re.search(r"REST (\S+)  gRPC (\S+)", told)
        assert found is not None
        self.url, self.target = found[1], found[2]
        self.headers = {"x-api-key": KEY}

    async def ended(self) -> None:
        """SIGTERM was sent: wait until the process would end."""
        await asyncio.wait_for(self.task, 30)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    out = io.StringIO()
    task = asyncio.create_task(server.until_signalled(settings, out))
    try:
        while "next" not in out.getvalue():
            if task.done():
                task.result()
            await asyncio.sleep(0.02)
        yield Running(out.getvalue(), task)
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 30)


async def test_both_doors_answer_and_a_signal_ends_them(settings: Settings) -> None:
    async with running(settings) as service, httpx.AsyncClient(headers=service.headers) as client:
        assert (await client.get(f"{service.url}/readyz")).status_code == 200
        async with grpc.aio.insecure_channel(service.target) as channel:
            status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert status.status == health_pb2.HealthCheckResponse.SERVING

        os.kill(os.getpid(), signal.SIGINT)
        await service.ended()
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{service.url}/readyz")


async def test_what_runs_is_answered_before_the_process_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = asyncio.Semaphore(0), asyncio.Event()

    async def detect(self: object, *_: object, **__: object) -> None:
        entered.release()
        await release.wait()
        raise errors.NoFace("answered after the signal")

    monkeypatch.setattr(Recognizer, "detect", detect)
    async with running(settings) as service, httpx.AsyncClient(headers=service.headers, timeout=30) as client:
        channel = grpc.aio.insecure_channel(service.target)
        request = pb.DetectRequest(image=b"x")
        call = stubs.FaceServiceStub(channel).Detect(request, metadata=tuple(service.headers.items()))
        rest = asyncio.create_task(
            client.post(f"{service.url}/v1/detect", content=b"x", headers={"content-type": "image/jpeg"})
        )
        rpc = asyncio.ensure_future(call)
        for _ in range(2):
            await asyncio.wait_for(entered.acquire(), 10)

        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert not service.task.done()
        release.set()

        assert (await rest).json()["error"]["code"] == "no_face"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc
        assert ("facet-error-code", "no_face") in list(refused.value.trailing_metadata() or ())
        await service.ended()
        await channel.close()


async def test_the_drain_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = asyncio.Event()

    async def detect(self: object, *_: object, **__: object) -> None:
        entered.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(Recognizer, "detect", detect)
    patient = settings.model_copy(update={"drain_s": 0.3})
    async with running(patient) as service:
        channel = grpc.aio.insecure_channel(service.target)
        call = stubs.FaceServiceStub(channel).Detect(
            pb.DetectRequest(image=b"x"), metadata=tuple(service.headers.items()), timeout=50
        )
        rpc = asyncio.ensure_future(call)
        await asyncio.wait_for(entered.wait(), 10)

        started = asyncio.get_running_loop().time()
        os.kill(os.getpid(), signal.SIGTERM)
        await service.ended()

        assert asyncio.get_running_loop().time() - started < 10
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await rpc
        await channel.close()


async def test_a_signal_while_it_warms_ends_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def warm_up(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("service.bootstrap.warm_up", warm_up)
    task = asyncio.create_task(server.until_signalled(settings, io.StringIO()))
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 30)
