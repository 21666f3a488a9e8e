"""Threads for the work on pixels that is not a model: decoding, scaling, cutting faces, searching large galleries.

A call that its caller left is not begun, and what it would have worked on is let go at once, even while it stands in
the queue behind others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Timed(Generic[Result]):
    """A result, and the seconds that the call waited and ran."""

    value: Result
    waited_s: float
    ran_s: float


class Pool:
    """`threads` threads. `run` awaits a blocking call on one of them."""

    def __init__(self, threads: int) -> None:
        # OpenCV's own threads would fight these and the lanes for the same cores.
        cv2.setNumThreads(1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="facet-pixels")

    async def run(
        self, call: Callable[[], Result], *, done: Callable[[], None] | None = None
    ) -> Timed[Result]:
        """What `call` returns or raises. `done` runs on the loop once no thread will touch the call any more: also
        when the caller leaves while a thread is still in it, which nothing can stop."""
        loop = asyncio.get_running_loop()
        job = _Job(call)
        running: Future[Timed[Result]] = self._threads.submit(job)
        try:
            return await asyncio.wrap_future(running)
        finally:
            if running.cancel():  # false once it is running or over
                job.forget()
            if done is not None:
                _when_over(running, loop, done)

    def close(self) -> None:
        """Let running calls end, drop the others."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _when_over(
    running: Future[Timed[Result]], loop: asyncio.AbstractEventLoop, done: Callable[[], None]
) -> None:
    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(done)

    if running.done():
        done()
    else:
        running.add_done_callback(tell)


class _Job(Generic[Result]):
    """A call in the executor's queue, which keeps cancelled entries until a thread comes by."""

    __slots__ = ("_asked", "_call")

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call: Callable[[], Result] | None = call
        self._asked = time.monotonic()

    def __call__(self) -> Timed[Result]:
        call, self._call = self._call, None
        if call is None:
            raise asyncio.CancelledError
        started = time.monotonic()
        value = call()
        return Timed(value, started - self._asked, time.monotonic() - started)

    def forget(self) -> None:
        self._call = None
