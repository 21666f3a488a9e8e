"""The lanes: as many threads as models may run at once, each running one batch at a time for whichever engine has one.

Engines share the lanes, and the engine nearest the answer goes first: work that is almost done leaves before new work
enters. A lane outlives every failure of a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from service.telemetry import logging

log = logging.get(__name__)


class Source(Protocol):
    """Where a lane gets work."""

    def take(self) -> Callable[[], None] | None:
        """The next batch as a call that runs it, or None. Called with `Lanes.changed` held: it must not block."""
        ...


class Lanes:
    """`count` threads. Hold `changed` while touching what `Source.take` reads, and notify it when work arrives."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("at least one lane")
        self.count = count
        self.changed = threading.Condition()
        self._sources: list[tuple[int, Source]] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"facet-lane-{lane}") for lane in range(count)
        ]
        for thread in self._threads:
            thread.daemon = True  # a wedged device must not keep a stopped process alive
            thread.start()

    def add(self, source: Source, *, stage: int) -> None:
        """Serve `source` too; of two sources with work, the one with the higher `stage` goes first."""
        with self.changed:
            self._sources = sorted([*self._sources, (stage, source)], key=lambda entry: -entry[0])
            self.changed.notify_all()

    def close(self, timeout_s: float = 5.0) -> None:
        """Let running batches end and stop the threads. Safe to call twice."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                batch()
            except Exception:  # the batch has told its callers; whatever is left is a defect here
                log.exception("a lane failed to deliver")
            del batch  # or the last pictures stay in memory until the next arrive

    def _next(self) -> Callable[[], None] | None:
        with self.changed:
            while not self._closed:
                for _, source in self._sources:
                    batch = source.take()
                    if batch is not None:
                        return batch
                self.changed.wait()
        return None
