"""Bytes, time and memory of a body, and work that is dropped when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.errors import Cancelled, DeadlineExceeded, Overloaded, TooLarge
from service.rest.exchange import SCOPE_KEY, Exchange
from service.rest.limits import BodyBudget, BoundedReceive, while_wanted
from service.telemetry.metrics import Metrics


class Caller:
    """Sends messages, then waits until it leaves; counts what was taken from it."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.messages = list(messages)
        self.taken = 0
        self.left = asyncio.Event()

    async def __call__(self) -> Message:
        if self.messages:
            self.taken += 1
            return self.messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}


def piece(content: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def exchange(within_s: float = 5.0, declared: int | None = None) -> Exchange:
    now = time.monotonic()
    return Exchange("id", now, now + within_s, declared_bytes=declared)


def request_of(caller: Caller) -> Request:
    return Request({"type": "http", SCOPE_KEY: exchange()}, caller)


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_taken() -> None:
    caller = Caller([piece(b"x")])
    receive = BoundedReceive(caller, exchange(declared=101), 100, BodyBudget(1000, Metrics()))

    with pytest.raises(TooLarge):
        await receive()

    assert caller.taken == 0


async def test_an_undeclared_body_is_refused_at_the_chunk_that_crosses_the_limit() -> None:
    caller = Caller([piece(b"x" * 60)] * 100)
    receive = BoundedReceive(caller, exchange(), 100, BodyBudget(1000, Metrics()))
    await receive()

    with pytest.raises(TooLarge):
        await receive()

    assert caller.taken == 2


async def test_a_body_that_does_not_arrive_in_time_passes_the_deadline() -> None:
    receive = BoundedReceive(Caller([piece(b"x")]), exchange(within_s=0.05), 100, BodyBudget(1000, Metrics()))
    await receive()

    with pytest.raises(DeadlineExceeded):
        await receive()


async def test_bodies_in_flight_share_a_budget_and_give_it_back() -> None:
    budget = BodyBudget(150, Metrics())
    first = BoundedReceive(Caller([piece(b"x" * 90, more=False)]), exchange(), 100, budget)
    second = BoundedReceive(Caller([piece(b"x" * 90)] * 2), exchange(), 100, budget)
    await first()

    with pytest.raises(Overloaded) as refused:
        await second()
    first.release()
    await second()

    assert refused.value.retry_after_s > 0
    assert budget.held == 90


async def test_work_that_is_done_in_time_is_answered() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await while_wanted(request_of(Caller()), work()) == "done"


async def test_work_that_fails_fails_with_its_own_error() -> None:
    async def work() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await while_wanted(request_of(Caller()), work())


async def test_work_is_cancelled_when_the_caller_leaves() -> None:
    caller, cancelled = Caller(), asyncio.Event()

    async def work() -> None:
        asyncio.get_running_loop().call_soon(caller.left.set)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(Cancelled):
        await while_wanted(request_of(caller), work())
    async with asyncio.timeout(1):
        await cancelled.wait()


async def test_work_is_cancelled_when_its_deadline_passes() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise RuntimeError("what a cancelled task raises must not be logged as never retrieved") from None

    with pytest.raises(DeadlineExceeded):
        await while_wanted(request_of(Caller()), work(), deadline=time.monotonic() + 0.05)
    async with asyncio.timeout(1):
        await cancelled.wait()
