"""What is in flight is bounded: requests are refused, pixels wait, deadlines end both (invariant 6)."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.errors import DeadlineExceeded, Overloaded
from service.recognition.admission import Admission, PixelBudget, within
from service.recognition.pool import Pool
from service.telemetry.metrics import Metrics


def test_one_request_too_many_is_refused_before_any_work() -> None:
    metrics = Metrics()
    admission = Admission(2, metrics, lambda: 3.5)
    with admission.request(), admission.request():
        with pytest.raises(Overloaded) as refused:
            admission.check()
        with pytest.raises(Overloaded), admission.request():
            raise AssertionError("never inside")
        assert metrics.registry.get_sample_value("facet_in_flight") == 2
    assert refused.value.retry_after_s == 3.5
    assert admission.in_flight == 0
    admission.check()


def test_a_request_that_fails_makes_room() -> None:
    admission = Admission(1, Metrics())
    with pytest.raises(ZeroDivisionError), admission.request():
        raise ZeroDivisionError
    admission.check()


async def test_pixels_wait_for_room_in_order_of_arrival() -> None:
    budget = PixelBudget(10, Metrics())
    await budget.take(6)
    order: list[str] = []

    async def take(name: str, pixels: int) -> None:
        await budget.take(pixels)
        order.append(name)

    large, small = asyncio.create_task(take("large", 8)), asyncio.create_task(take("small", 2))
    await asyncio.sleep(0.01)
    assert order == []  # the small one would fit, but was later
    budget.give_back(6)
    await asyncio.gather(large, small)
    assert (order, budget.held) == (["large", "small"], 10)


async def test_a_caller_who_leaves_the_line_takes_nothing_and_lets_the_next_in() -> None:
    budget = PixelBudget(10, Metrics())
    await budget.take(6)
    leaves, stays = asyncio.create_task(budget.take(8)), asyncio.create_task(budget.take(4))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait([leaves])
    await asyncio.wait_for(stays, 1)
    assert budget.held == 10


async def test_a_caller_who_leaves_in_the_moment_of_being_let_in_gives_the_room_back() -> None:
    budget = PixelBudget(10, Metrics())
    await budget.take(10)
    leaves = asyncio.create_task(budget.take(4))
    await asyncio.sleep(0)
    budget.give_back(10)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert budget.held == 0


async def test_what_runs_inside_ends_at_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        async with within(started + 0.05):
            await asyncio.sleep(30)
    assert time.monotonic() - started < 5
    with pytest.raises(DeadlineExceeded):
        async with within(started - 1):
            raise AssertionError("never inside")


async def test_a_timeout_of_something_else_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError, match="of the database"):
        async with within(time.monotonic() + 30):
            raise TimeoutError("of the database")


async def test_a_call_that_its_caller_left_is_not_begun() -> None:
    pool, gate, begun = Pool(1), threading.Event(), list[int]()
    blocking = asyncio.create_task(pool.run(gate.wait))
    await asyncio.sleep(0.01)
    over: list[str] = []
    left = asyncio.create_task(pool.run(lambda: begun.append(1), done=lambda: over.append("left")))
    await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.wait([left])
    assert over == ["left"]
    gate.set()
    await blocking
    assert (await pool.run(lambda: 7)).value == 7
    assert begun == []
    pool.close()


async def test_a_call_that_cannot_be_stopped_counts_until_it_is_over() -> None:
    pool, gate, over = Pool(1), threading.Event(), asyncio.Event()
    running = asyncio.create_task(pool.run(gate.wait, done=over.set))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    await asyncio.sleep(0.01)
    assert not over.is_set()
    gate.set()
    await asyncio.wait_for(over.wait(), 5)
    pool.close()


async def test_what_a_call_raises_reaches_its_caller() -> None:
    pool = Pool(1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    pool.close()
