"""Lanes outlive every failure and end when they are told to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest

from service.inference.worker import Lanes


class Jobs:
    """A source that hands out the calls it was given."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def take(self) -> Callable[[], None] | None:
        return self.waiting.popleft() if self.waiting else None


def give(lanes: Lanes, jobs: Jobs, *calls: Callable[[], None]) -> None:
    with lanes.changed:
        jobs.waiting.extend(calls)
        lanes.changed.notify_all()


def test_a_lane_outlives_a_batch_that_raises() -> None:
    lanes, jobs, done = Lanes(1), Jobs(), threading.Event()

    def fails() -> None:
        raise RuntimeError("a defect")

    lanes.add(jobs, stage=0)
    give(lanes, jobs, fails, fails, done.set)
    assert done.wait(5)
    lanes.close()


def test_as_many_batches_run_at_once_as_there_are_lanes() -> None:
    lanes, jobs, meet = Lanes(3), Jobs(), threading.Barrier(4, timeout=5)
    lanes.add(jobs, stage=0)
    give(lanes, jobs, *[lambda: meet.wait() and None] * 3)
    meet.wait()  # breaks unless all three are inside
    lanes.close()


def test_closing_lets_the_running_batch_end_and_stops_every_thread() -> None:
    before = threading.active_count()
    lanes, jobs, began, ended = Lanes(2), Jobs(), threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        threading.Event().wait(0.05)
        ended.set()

    lanes.add(jobs, stage=0)
    give(lanes, jobs, slow)
    assert began.wait(5)
    lanes.close()
    assert ended.is_set()
    assert threading.active_count() == before
    lanes.close()


def test_no_lane_is_no_service() -> None:
    with pytest.raises(ValueError, match="lane"):
        Lanes(0)
