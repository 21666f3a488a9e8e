"""How much the service takes on at once: requests, and the decoded pixels that they hold together.

A request beyond the limit is refused at once, before any work. Inside, a picture waits for room for its pixels, in
order of arrival; how many can wait is bounded by the requests, how long by their deadlines. One event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.errors import DeadlineExceeded, Overloaded
from service.telemetry.metrics import Metrics


class Admission:
    """Counts requests from the door to their answer.

    limit           requests in flight
    retry_after_s   asked when one is refused: when it may be worth trying again
    """

    def __init__(
        self, limit: int, metrics: Metrics, retry_after_s: Callable[[], float] = lambda: 1.0
    ) -> None:
        self.limit = limit
        self.in_flight = 0
        self._metrics = metrics
        self._retry_after_s = retry_after_s
        metrics.in_flight.set_function(lambda: self.in_flight)

    def check(self) -> None:
        """Raises `Overloaded` where a request would be refused now: a door asks before it reads a body."""
        if self.in_flight >= self.limit:
            self._metrics.refused.labels("in_flight").inc()
            raise Overloaded(retry_after_s=self._retry_after_s(), waiting=self.in_flight, limit=self.limit)

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request, while it runs. Raises `Overloaded`."""
        self.check()
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class PixelBudget:
    """Room for decoded pixels; a picture takes its share before it is decoded and gives it back when it is dropped."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        metrics.pixels.set_function(lambda: self.held)

    async def take(self, pixels: int) -> None:
        """Wait until there is room for `pixels` (at most `limit`). A cancelled call takes nothing."""
        if not self._waiting and self.held + pixels <= self.limit:
            self.held += pixels
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the room was given in the moment the caller left
                self.give_back(pixels)
            else:
                self._waiting.remove((pixels, turn))
                self._admit()
            raise

    def give_back(self, pixels: int) -> None:
        """Return what `take` took."""
        self.held -= pixels
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.held + self._waiting[0][0] <= self.limit:
            pixels, turn = self._waiting.popleft()
            self.held += pixels
            turn.set_result(None)


@asynccontextmanager
async def within(deadline: float) -> AsyncIterator[None]:
    """Cancel what runs inside at `deadline` (`time.monotonic()`). Raises `DeadlineExceeded` then."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded()
    try:
        async with asyncio.timeout(left) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise DeadlineExceeded() from None
        raise
