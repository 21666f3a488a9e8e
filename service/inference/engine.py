"""One item in, its own rows out: an engine is one model behind its queue, run on the shared lanes.

Kept: row i of a batch's outputs goes to item i of that batch or to nobody; a batch whose outputs do not have one row
an item is a failed batch; a failed batch is run again item by item, so that one bad item fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service.errors import DeadlineExceeded, FacetError, Internal, NotReady, Overloaded
from service.inference.backend import Array, Backend
from service.inference.batcher import Batcher, Formed
from service.inference.worker import Lanes
from service.telemetry import logging
from service.telemetry.metrics import Metrics

log = logging.get(__name__)


@dataclass(frozen=True, slots=True)
class Output:
    """What the model made of one item: a row of each output, and the seconds it waited and ran."""

    rows: tuple[Array, ...]
    waited_s: float
    ran_s: float


@dataclass(slots=True, eq=False)
class _Item:
    value: Array
    deadline: float  # time.monotonic()
    answer: asyncio.Future[Output]
    loop: asyncio.AbstractEventLoop
    arrived: float = field(default_factory=time.monotonic)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def abandoned(self) -> bool:
        return self.answer.done()


_Outcome = tuple[_Item, Output | FacetError]


class Engine:
    """`backend` behind a queue of at most `limit` items, in batches of at most `max_batch`, on `lanes`.

    name    of the model, for metrics: "detector", "embedder"
    stage   higher goes first on the lanes
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        lanes: Lanes,
        metrics: Metrics,
        *,
        limit: int,
        max_batch: int,
        stage: int,
    ) -> None:
        self.name = name
        self.backend = backend
        self._lanes = lanes
        self._metrics = metrics
        self._batcher: Batcher[_Item] = Batcher(limit, max_batch)
        self._closed = False
        self._item_s = 0.01  # smoothed seconds that one item keeps a lane busy
        self._batch_size = metrics.batch_size.labels(name)
        self._run_seconds = metrics.run_seconds.labels(name)
        metrics.queue_depth.labels(name).set_function(lambda: len(self._batcher))
        lanes.add(self, stage=stage)

    @property
    def max_batch(self) -> int:
        """Items that run together at most."""
        return self._batcher.max_batch

    @property
    def retry_after_s(self) -> float:
        """When the queue, as it is, will have been worked off: 0.1 to 30 seconds."""
        return min(30.0, max(0.1, len(self._batcher) * self._item_s / self._lanes.count))

    async def submit(self, value: Array, deadline: float) -> Output:
        """Run the model on one item; `deadline` on `time.monotonic()`'s clock. A cancelled call drops its item.

        Raises `Overloaded` when the queue is full, `DeadlineExceeded` at the deadline, `NotReady` after `close`,
        `Internal` when the model fails on this item.
        """
        loop = asyncio.get_running_loop()
        item = _Item(value, deadline, loop.create_future(), loop)
        self._offer(item)
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), _settle, item, DeadlineExceeded())
        try:
            return await item.answer
        finally:
            timer.cancel()

    def take(self) -> Callable[[], None] | None:
        """For the lanes: the next batch as a call, or None."""
        formed = self._batcher.form(time.monotonic())
        if not (formed.batch or formed.expired or formed.abandoned):
            return None
        return partial(self._run, formed)

    def close(self) -> None:
        """Refuse new items, fail those that wait, release the model. Close the lanes first. Safe to call twice."""
        with self._lanes.changed:
            waiting, self._closed, was = self._batcher.clear(), True, self._closed
        _deliver([(item, NotReady("shutting down", reason="draining")) for item in waiting])
        if not was:
            self.backend.close()

    def _offer(self, item: _Item) -> None:
        with self._lanes.changed:
            if self._closed:
                raise NotReady("shutting down", reason="draining")
            forgotten = self._batcher.forgotten
            accepted = self._batcher.offer(item)
            forgotten = self._batcher.forgotten - forgotten
            if accepted:
                self._lanes.changed.notify()
        self._count_dropped("abandoned", forgotten)
        if not accepted:
            self._metrics.refused.labels(self.name).inc()
            limit = self._batcher.limit
            raise Overloaded(
                f"the {self.name} is busy", retry_after_s=self.retry_after_s, waiting=limit, limit=limit
            )

    def _run(self, formed: Formed[_Item]) -> None:
        self._count_dropped("expired", len(formed.expired))
        self._count_dropped("abandoned", len(formed.abandoned))
        outcomes: list[_Outcome] = [(item, DeadlineExceeded()) for item in formed.expired]
        if formed.batch:
            outcomes += self._outcomes(formed.batch)
        _deliver(outcomes)

    def _outcomes(self, batch: list[_Item]) -> list[_Outcome]:
        try:
            return self._answers(batch)
        except Exception:  # whatever a runtime raises: its kinds are not known here
            self._metrics.failed_batches.labels(self.name).inc()
            log.exception("a batch failed", engine=self.name, items=len(batch))
        if len(batch) == 1:
            return [(batch[0], Internal())]
        now = time.monotonic()
        return [
            outcome
            for item in batch
            if not item.abandoned
            for outcome in ([(item, DeadlineExceeded())] if item.deadline <= now else self._outcomes([item]))
        ]

    def _answers(self, batch: list[_Item]) -> list[_Outcome]:
        started = time.monotonic()
        values = batch[0].value[np.newaxis] if len(batch) == 1 else np.stack([item.value for item in batch])
        outputs = self.backend.run(values)
        ran = time.monotonic() - started
        if any(len(output) != len(batch) for output in outputs):
            raise ValueError("the model's outputs do not have one row an item")
        self._item_s += 0.1 * (ran / len(batch) - self._item_s)
        self._batch_size.observe(len(batch))
        self._run_seconds.observe(ran)
        return [
            (item, Output(tuple(output[row] for output in outputs), started - item.arrived, ran))
            for row, item in enumerate(batch)
        ]

    def _count_dropped(self, reason: str, count: int) -> None:
        if count:
            self._metrics.dropped.labels(self.name, reason).inc(count)


def _deliver(outcomes: list[_Outcome]) -> None:
    """Hand each outcome to the loop that awaits it: one wake-up a loop, not one an item."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].loop, []).append(outcome)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle_all, its)


def _settle_all(outcomes: list[_Outcome]) -> None:
    for item, result in outcomes:
        _settle(item, result)


def _settle(item: _Item, result: Output | FacetError) -> None:
    if item.answer.done():
        return
    if isinstance(result, Output):
        item.answer.set_result(result)
    else:
        item.answer.set_exception(result)
