"""What a request may cost: bytes, time, and the memory that all bodies together hold; kept while the bytes arrive.

Rule: a limit is checked before the bytes it is about are kept. Nothing here runs before the caller is authenticated:
the first byte is asked for by a handler, and a handler runs after the scope check.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.types import Message, Receive

from service.errors import Cancelled, DeadlineExceeded, Overloaded, TooLarge
from service.rest.exchange import Exchange
from service.telemetry.metrics import Metrics

Result = TypeVar("Result")
DRAINED_BODIES: Final = 8  # a refused body of up to this many full-size bodies is read and thrown away
LINGER_S: Final = 1.0


class BodyBudget:
    """The bytes that all bodies in flight may hold together; the request that would exceed them is refused."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self.held = 0
        self._metrics = metrics

    def take(self, count: int) -> None:
        """Raises `Overloaded` when there is no room for `count` bytes more."""
        if self.held + count > self.limit:
            self._metrics.refused.labels("body_bytes").inc()
            raise Overloaded("too many bytes of requests in flight", retry_after_s=1.0)
        self.held += count

    def give_back(self, count: int) -> None:
        """Returns what a request took."""
        self.held -= count


class BoundedReceive:
    """An ASGI `receive` that refuses a body over the limit and one that does not arrive before the deadline.

    Raises `TooLarge` from the declared length before the first byte is read, or at the chunk that crosses the limit;
    `DeadlineExceeded`; `Overloaded` when all bodies together hold too much.
    """

    __slots__ = ("_arrived", "_budget", "_complete", "_exchange", "_limit", "_receive")

    def __init__(self, receive: Receive, exchange: Exchange, limit: int, budget: BodyBudget) -> None:
        self._receive = receive
        self._exchange = exchange
        self._limit = limit
        self._budget = budget
        self._arrived = 0
        self._complete = False

    async def __call__(self) -> Message:
        """The next message; after the body is complete this waits for the caller to leave."""
        if self._complete:
            return await self._receive()
        if (self._exchange.declared_bytes or 0) > self._limit:
            raise self._too_large()
        try:
            async with asyncio.timeout(max(0.0, self._exchange.remaining_s)):
                message = await self._receive()
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the body had arrived") from None
        self._count(message)
        return message

    @property
    def unwelcome(self) -> bool:
        """Whether so much of the body may still come that the connection is better closed than drained.

        A body of a bounded length is drained by the server: many callers read no answer before they have sent all.
        """
        declared = self._exchange.declared_bytes or 0
        return not self._complete and (self._exchange.chunked or declared > DRAINED_BODIES * self._limit)

    async def linger(self) -> None:
        """Throws away what still arrives, for `LINGER_S` at most: a connection that is closed under a caller who is
        sending is reset, and the answer is lost with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self._receive()).get("more_body", False):
                    await asyncio.sleep(0)  # or a caller who sends without a pause would outrun the clock

    def release(self) -> None:
        """Gives the bytes back to the budget; call it once, when the request is over."""
        self._budget.give_back(self._arrived)
        self._arrived = 0

    def _count(self, message: Message) -> None:
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        arriving = len(message.get("body", b""))
        if self._arrived + arriving > self._limit:
            raise self._too_large()
        self._budget.take(arriving)
        self._arrived += arriving

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._limit} bytes", limit=self._limit)


async def while_wanted(
    request: Request, work: Coroutine[Any, Any, Result], *, deadline: float | None = None
) -> Result:
    """The result of `work`, which is cancelled when the caller leaves, or at `deadline` (seconds of `time.monotonic`).

    The core keeps the deadlines of pictures and of writes itself. The body must be read before.
    Raises `Cancelled` or `DeadlineExceeded` then, else whatever `work` raises.
    """
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_departure(request))
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        await asyncio.wait((task, leaving), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled() if leaving.done() else DeadlineExceeded()
    finally:
        for one in (task, leaving):
            if not one.done():
                one.add_done_callback(_retrieve)  # or asyncio logs what it raised, with a traceback
                one.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
