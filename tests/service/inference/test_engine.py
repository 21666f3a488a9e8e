"""One item in, its own rows out: whatever is batched, cancelled, late or failed together (invariants 2 and 6)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeadlineExceeded, Internal, NotReady, Overloaded
from service.inference.backend import Array
from service.inference.backends.fake import Fake
from service.inference.engine import Engine, Output
from service.inference.worker import Lanes
from service.telemetry.metrics import Metrics

POISON = 999
SOON = 30.0


def told_back(batch: Array) -> tuple[Array, ...]:
    """Each item's tag in two outputs; a batch with a poisoned item in it fails as a whole."""
    if (batch[:, 0] == POISON).any():
        raise RuntimeError("bad item")
    return batch[:, 0] * 2, np.repeat(batch[:, :1], 3, axis=1)


def item(tag: int, length: int = 2) -> Array:
    return np.full(length, tag, np.int64)


@contextmanager
def opened(
    backend: Fake, *, lanes: int = 2, limit: int = 64, max_batch: int = 4
) -> Iterator[tuple[Engine, Metrics]]:
    metrics = Metrics()
    shared = Lanes(lanes)
    engine = Engine("toy", backend, shared, metrics, limit=limit, max_batch=max_batch, stage=0)
    try:
        yield engine, metrics
    finally:
        shared.close()
        engine.close()


def later(seconds: float = SOON) -> float:
    return time.monotonic() + seconds


def tag_of(output: Output) -> int:
    double, copies = output.rows
    (tag,) = set(copies.tolist())
    assert double == tag * 2
    return int(tag)


def dropped(metrics: Metrics, reason: str) -> float:
    return (
        metrics.registry.get_sample_value("facet_dropped_total", {"engine": "toy", "reason": reason}) or 0.0
    )


async def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never came true")


async def test_an_item_gets_its_own_rows_and_its_times() -> None:
    with opened(Fake(told_back)) as (engine, _):
        output = await engine.submit(item(7), later())
    assert tag_of(output) == 7
    assert output.waited_s >= 0
    assert output.ran_s >= 0


async def test_callers_who_wait_at_the_same_time_share_a_batch() -> None:
    gate = threading.Event()
    backend = Fake(told_back, gate)
    with opened(backend, lanes=1, max_batch=8) as (engine, _):
        first = asyncio.create_task(engine.submit(item(0), later()))
        await until(lambda: backend.shapes)
        others = [asyncio.create_task(engine.submit(item(tag), later())) for tag in range(1, 6)]
        await asyncio.sleep(0)
        gate.set()
        assert [tag_of(output) for output in await asyncio.gather(first, *others)] == list(range(6))
    assert backend.shapes == [(1, 2), (5, 2)]


async def test_items_of_different_shapes_are_answered_from_different_batches() -> None:
    with opened(Fake(told_back)) as (engine, _):
        outputs = await asyncio.gather(*(engine.submit(item(tag, 2 + tag % 3), later()) for tag in range(20)))
    assert [tag_of(output) for output in outputs] == list(range(20))


async def test_one_bad_item_fails_alone() -> None:
    gate = threading.Event()
    backend = Fake(told_back, gate)
    with opened(backend, lanes=1, max_batch=8) as (engine, metrics):
        first = asyncio.create_task(engine.submit(item(0), later()))
        await until(lambda: backend.shapes)
        tasks = [asyncio.create_task(engine.submit(item(tag), later())) for tag in (1, POISON, 2)]
        await asyncio.sleep(0)
        gate.set()
        await first
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [tag_of(answer) for answer in answers if isinstance(answer, Output)] == [1, 2]
    assert isinstance(answers[1], Internal)
    assert "bad item" not in str(answers[1])
    assert backend.shapes == [(1, 2), (3, 2), (1, 2), (1, 2), (1, 2)]
    assert (
        metrics.registry.get_sample_value("facet_failed_batches_total", {"engine": "toy"}) == 2
    )  # whole, and alone


@pytest.mark.parametrize("rows", [lambda of: of[1:], lambda of: np.concatenate([of[:1] * 0, of])])
async def test_a_model_that_answers_too_few_or_too_many_rows_fails_instead_of_shifting_them(
    rows: Callable[[Array], Array],
) -> None:
    with opened(Fake(lambda batch: (rows(batch),)), max_batch=4) as (engine, _):
        answers = await asyncio.gather(
            *(engine.submit(item(tag), later()) for tag in range(5)), return_exceptions=True
        )
    assert all(isinstance(answer, Internal) for answer in answers)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    gate = threading.Event()
    backend = Fake(told_back, gate)
    with opened(backend, lanes=1, limit=3, max_batch=1) as (engine, metrics):
        tasks = [asyncio.create_task(engine.submit(item(0), later()))]
        await until(lambda: backend.shapes)
        tasks += [asyncio.create_task(engine.submit(item(tag), later())) for tag in (1, 2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await engine.submit(item(4), later())
        assert metrics.registry.get_sample_value("facet_queue_depth", {"engine": "toy"}) == 3
        gate.set()
        assert [tag_of(output) for output in await asyncio.gather(*tasks)] == [0, 1, 2, 3]
        assert tag_of(await engine.submit(item(5), later())) == 5
    assert 0.1 <= refused.value.retry_after_s <= 30
    assert refused.value.details["limit"] == 3
    assert metrics.registry.get_sample_value("facet_refused_total", {"reason": "toy"}) == 1


async def test_a_caller_who_left_costs_no_run() -> None:
    gate = threading.Event()
    backend = Fake(told_back, gate)
    with opened(backend, lanes=1, max_batch=8) as (engine, metrics):
        first = asyncio.create_task(engine.submit(item(0), later()))
        await until(lambda: backend.shapes)
        stays, leaves = (asyncio.create_task(engine.submit(item(tag), later())) for tag in (1, 2))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.wait([leaves])
        gate.set()
        assert tag_of(await stays) == 1
        await first
        assert backend.shapes == [(1, 2), (1, 2)]
        assert dropped(metrics, "abandoned") == 1


async def test_a_late_caller_is_told_at_the_deadline_and_costs_no_run() -> None:
    gate = threading.Event()
    backend = Fake(told_back, gate)
    with opened(backend, lanes=1, max_batch=8) as (engine, metrics):
        first = asyncio.create_task(engine.submit(item(0), later()))
        await until(lambda: backend.shapes)
        asked = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await engine.submit(item(1), later(0.05))
        assert 0.04 <= time.monotonic() - asked < 5  # while the only lane is still busy
        gate.set()
        await first
        await until(lambda: dropped(metrics, "expired") == 1)
    assert backend.shapes == [(1, 2)]


async def test_a_deadline_in_the_past_is_never_run() -> None:
    backend = Fake(told_back)
    with opened(backend) as (engine, _):
        with pytest.raises(DeadlineExceeded):
            await engine.submit(item(1), later(-1))
        assert tag_of(await engine.submit(item(2), later())) == 2
    assert backend.shapes == [(1, 2)]


async def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    gate = threading.Event()
    backend = Fake(told_back, gate)
    with opened(backend, lanes=1, max_batch=1) as (engine, _):
        running = asyncio.create_task(engine.submit(item(0), later()))
        await until(lambda: backend.shapes)
        waiting = asyncio.create_task(engine.submit(item(1), later()))
        await asyncio.sleep(0)
        engine.close()
        with pytest.raises(NotReady):
            await waiting
        with pytest.raises(NotReady):
            await engine.submit(item(2), later())
        gate.set()
        assert tag_of(await running) == 0
        engine.close()
    assert backend.closed


async def test_the_engine_nearest_the_answer_goes_first() -> None:
    gate, order = threading.Event(), list[str]()

    def noting(name: str) -> Fake:
        def note(batch: Array) -> tuple[Array, ...]:
            order.append(name)
            return (batch,)

        return Fake(note, gate)

    metrics, lanes = Metrics(), Lanes(1)
    early = Engine("early", noting("early"), lanes, metrics, limit=9, max_batch=1, stage=0)
    late = Engine("late", noting("late"), lanes, metrics, limit=9, max_batch=1, stage=1)
    blocking = asyncio.create_task(early.submit(item(0), later()))
    await asyncio.sleep(0.05)
    tasks = [asyncio.create_task(of.submit(item(1), later())) for of in (early, early, late, late)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(blocking, *tasks)
    lanes.close()
    early.close()
    late.close()
    assert order == ["early", "late", "late", "early", "early"]


@dataclass(frozen=True)
class Caller:
    """What one caller does: when it comes (ms), what it sends, whether it leaves, how long it gives."""

    comes_ms: int
    length: int
    poisoned: bool
    leaves_after_ms: int | None
    gives_ms: int


CALLERS = st.lists(
    st.builds(
        Caller,
        comes_ms=st.integers(0, 4),
        length=st.integers(1, 2),
        poisoned=st.sampled_from([False, False, False, True]),
        leaves_after_ms=st.sampled_from([None, None, 0, 1, 3]),
        gives_ms=st.sampled_from([30_000, 30_000, 0, 2]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=15, deadline=None)
@given(
    callers=CALLERS, lanes=st.integers(1, 3), max_batch=st.integers(1, 6), limit=st.sampled_from([2, 8, 64]),
    slowness_ms=st.sampled_from([0, 1, 2]),
)  # fmt: skip
def test_nobody_ever_gets_what_came_from_another(
    callers: list[Caller], lanes: int, max_batch: int, limit: int, slowness_ms: int
) -> None:
    """Callers whose items carry their own tag come, leave, run late and fail together, on several lanes."""

    def slowly(batch: Array) -> tuple[Array, ...]:
        time.sleep(slowness_ms / 1000)
        if (batch[:, -1] < 0).any():
            raise RuntimeError("bad item")
        return batch[:, 0] * 2, np.repeat(batch[:, :1], 3, axis=1)

    async def call(engine: Engine, tag: int, caller: Caller) -> Output:
        await asyncio.sleep(caller.comes_ms / 1000)
        value = item(tag, caller.length + 1)
        value[-1] = -1 if caller.poisoned else 1
        submitted = asyncio.create_task(engine.submit(value, later(caller.gives_ms / 1000)))
        if caller.leaves_after_ms is not None:
            await asyncio.sleep(caller.leaves_after_ms / 1000)
            submitted.cancel()
        return await submitted

    async def all_of_them() -> list[Output | BaseException]:
        with opened(Fake(slowly), lanes=lanes, limit=limit, max_batch=max_batch) as (engine, _):
            calls = (call(engine, tag, caller) for tag, caller in enumerate(callers, start=1))
            return await asyncio.gather(*calls, return_exceptions=True)

    for tag, (caller, answer) in enumerate(zip(callers, asyncio.run(all_of_them()), strict=True), start=1):
        if isinstance(answer, Output):
            assert tag_of(answer) == tag
            assert not caller.poisoned
        elif isinstance(answer, Internal):
            assert caller.poisoned
        elif isinstance(answer, asyncio.CancelledError):
            assert caller.leaves_after_ms is not None
        elif isinstance(answer, DeadlineExceeded):
            assert caller.gives_ms < 30_000
        else:
            assert isinstance(answer, Overloaded)
            assert len(callers) > limit
