"""Runs the service: both doors in one event loop, from the first line printed to the last request drained.

Rule: ports are taken before they answer, nothing is ready before it is warm, and a start that fails says why in one
line. Standard output is for people; what machines read goes through `telemetry.logging`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, TextIO

import uvicorn

from service import bootstrap
from service.auth import ADMIN_FILE
from service.bootstrap import Census, Facet
from service.config import Settings
from service.errors import StartFailed
from service.grpc.server import GrpcServer, create_server
from service.rest.app import create_app
from service.telemetry import logging

CLOSE_S: Final = 10.0  # for what is closed after the drain; then the process ends all the same
BACKLOG: Final = 2048

log = logging.get(__name__)


def serve(settings: Settings, out: TextIO = sys.stdout) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. Raises `StartFailed`."""
    logging.configure(settings.log_level)
    _run(until_signalled(settings, out))


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is installed: it comes with `uvicorn[standard]`, but not on every platform."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def until_signalled(settings: Settings, out: TextIO) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    with _signals(stop.set):
        await run(settings, out, stop)


async def run(settings: Settings, out: TextIO, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain and return. Raises `StartFailed`."""
    with contextlib.closing(_listen(settings.http_host, settings.http_port)) as http:
        assembling = asyncio.create_task(bootstrap.assemble(settings), name="assembling")
        if not await _until(stop, assembling):
            return
        facet = assembling.result()
        try:
            await _open_doors(facet, http, stop, out)
        finally:
            await _bounded(facet.close(), "closing", CLOSE_S)


async def _open_doors(facet: Facet, http: socket.socket, stop: asyncio.Event, out: TextIO) -> None:
    grpc = create_server(facet)
    rest = _Uvicorn(_uvicorn_config(facet))
    await grpc.start()
    serving = asyncio.create_task(rest.serve(sockets=[http]), name="rest")
    try:
        warming = asyncio.create_task(facet.start(), name="warming")
        if await _until(stop, warming):
            warming.result()
            await _announce(facet, http.getsockname()[1], grpc.port, out)
            await asyncio.wait(
                (serving, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED
            )
    finally:
        facet.drain()
        rest.should_exit = True
        drain_s = facet.settings.drain_s
        log.info("draining", seconds=drain_s)
        await _bounded(_drained(grpc, serving, drain_s), "draining", drain_s + CLOSE_S)


async def _drained(grpc: GrpcServer, serving: asyncio.Task[None], drain_s: float) -> None:
    await asyncio.gather(grpc.stop(drain_s), serving)


def _uvicorn_config(facet: Facet) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(facet),
        log_config=None,
        log_level="warning",  # of uvicorn's own lines; ours say when it starts and drains
        access_log=False,  # the door logs requests itself, without what could name a person
        server_header=False,
        lifespan="off",
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(facet.settings.drain_s)),
    )


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to `_signals`: both doors stop on the same one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    """The REST door's socket, bound and not yet answering. Raises `StartFailed`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartFailed(f"FACET_HTTP_HOST: cannot listen on {host}: {error.strerror}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise StartFailed(f"FACET_HTTP_PORT: cannot listen on {host}:{port}: {error.strerror}") from None
    return listening


async def _announce(facet: Facet, http_port: int, grpc_port: int, out: TextIO) -> None:
    """What a person needs to know now, once: where, what, who, and what to do next."""
    census = await facet.census()
    for line in start_lines(facet, census, http_port, grpc_port, show_key=out.isatty()):
        print(line, file=out)
    out.flush()


def start_lines(facet: Facet, census: Census, http_port: int, grpc_port: int, *, show_key: bool) -> list[str]:
    """The lines of a start. The generated key itself is shown to a terminal only: elsewhere it would stay in a log."""
    settings, manifest = facet.settings, facet.bundle.manifest
    places = "gallery" if census.galleries == 1 else "galleries"
    warning = "" if manifest.licence.id == "commercial" else ": NOT for commercial use"
    return [
        f"Facet is ready: REST http://{_place(settings.http_host, http_port)}  "
        f"gRPC {_place(settings.grpc_host, grpc_port)}",
        f"  bundle   {manifest.model_id} ({manifest.licence.id}{warning})",
        f"  backend  {facet.backend}",
        f"  people   {census.people} in {census.galleries} {places}",
        f"  key      {_key_line(facet, show_key)}",
        f"  next     {_next(census.people)}",
    ]


def _key_line(facet: Facet, show_key: bool) -> str:
    settings, first = facet.settings, facet.first_key
    if settings.auth == "off":
        return "none: authentication is OFF, every caller may do everything"
    if settings.admin_key is not None:
        return "the admin key is the one in FACET_ADMIN_KEY"
    path = settings.data_dir / ADMIN_FILE
    if first is not None and show_key:
        return f"{first.token} (shown this once; kept in {path})"
    return f"the admin key is in {path}" if path.is_file() else "keys made earlier (facet keys list)"


def _next(people: int) -> str:
    if people == 0:
        return "facet enroll DIR   (DIR has a folder of pictures for each person)"
    return "facet identify IMAGE"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT ask to stop; a second one ends the process at once (the data is safe by design)."""
    loop, asked = asyncio.get_running_loop(), False

    def on_signal(number: int) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        stop()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _until(stop: asyncio.Event, task: asyncio.Task[Any]) -> bool:
    """Whether the task ended before the process was asked to stop; else the task is cancelled."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        return True
    task.cancel()
    await asyncio.wait((task,), timeout=CLOSE_S)
    return False


async def _bounded(work: Awaitable[object], step: str, seconds: float) -> None:
    """Await `work`, but no longer than `seconds`: a process that was asked to end must end."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        log.warning("gave up waiting", step=step, seconds=seconds)
