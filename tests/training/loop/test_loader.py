"""Batches come in the order of their steps, the same from any number of workers, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.loop.loader import LoaderFailed, Prefetch

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@dataclass
class Batch:
    pixels: Tensor
    label: np.ndarray
    half: Tensor
    step: int


class OutOfRange(Exception):
    """Two arguments, neither of which is the message: cannot be built again from its own `args`."""

    def __init__(self, label: int, identities: int) -> None:
        super().__init__(f"label {label} of {identities}")


def make(step: int) -> Batch:
    rng = np.random.default_rng((7, step))
    time.sleep(0.002 * (step % 3))  # no worker keeps the pace of another
    return Batch(
        torch.from_numpy(rng.integers(0, 255, (4, 16, 16, 3), np.uint8)),
        rng.integers(0, 10, 4),
        torch.full((2,), float(step), dtype=torch.bfloat16),
        step,
    )


def children() -> int:
    return len(multiprocessing.active_children())


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    open_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    yield
    assert children() == 0
    if open_before:
        assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_batches_are_those_of_their_steps_in_order_whoever_made_them(workers: int) -> None:
    with Prefetch(make, start=5, stop=16, workers=workers) as batches:
        got = list(batches)
    assert [batch.step for batch in got] == list(range(5, 16))
    for batch in got:
        expected = make(batch.step)
        assert torch.equal(batch.pixels, expected.pixels)
        assert batch.pixels.dtype == torch.uint8
        assert np.array_equal(batch.label, expected.label)
        assert torch.equal(batch.half, expected.half)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_may_be_written_to(workers: int) -> None:
    with Prefetch(make, stop=1, workers=workers) as batches:
        batch = next(batches)
    batch.pixels += 1
    batch.label[0] = 3


@pytest.mark.parametrize("workers", [0, 2])
def test_without_an_end_batches_come_for_ever(workers: int) -> None:
    with Prefetch(make, workers=workers) as batches:
        assert [next(batches).step for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_batch_larger_than_any_pipe_arrives_whole() -> None:
    with Prefetch(lambda step: np.full(3_000_000, step), stop=3, workers=2) as batches:
        assert [int(batch.sum()) for batch in batches] == [0, 3_000_000, 6_000_000]


def fail_at_four(step: int) -> int:
    if step == 4:
        raise ValueError("picture 4 is unreadable")
    return step


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_comes_at_its_step_as_itself_and_with_its_traceback(workers: int) -> None:
    with Prefetch(fail_at_four, workers=workers) as batches:
        assert [next(batches) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="picture 4 is unreadable") as caught:
            next(batches)
        if workers:
            assert "in fail_at_four" in str(caught.value.__cause__)
            assert children() == 0
            with pytest.raises(LoaderFailed, match="closed"):
                next(batches)


def test_an_error_that_cannot_travel_is_told() -> None:
    def fail(step: int) -> None:
        raise OutOfRange(12, 10)

    with (
        Prefetch(fail, workers=1) as batches,
        pytest.raises(LoaderFailed, match=r"OutOfRange: label 12 of 10"),
    ):
        next(batches)


def test_a_batch_that_cannot_travel_is_an_error_of_its_step() -> None:
    def unsendable(step: int) -> Callable[[], int]:
        return lambda: step

    with Prefetch(unsendable, workers=1) as batches, pytest.raises(Exception, match=r"[Cc]an't (pickle|get)"):
        next(batches)


def die(step: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_was_killed_is_reported_with_the_likely_cause() -> None:
    with Prefetch(die, workers=2) as batches, pytest.raises(LoaderFailed, match=r"step 0 .* code -9.*memory"):
        next(batches)


def test_the_end_of_the_block_ends_workers_in_the_middle_of_their_work() -> None:
    def run() -> None:
        with Prefetch(make, workers=3) as batches:
            next(batches)
            assert children() == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert children() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_the_whole_group_leaves_the_workers_to_their_parent(number: int) -> None:
    with Prefetch(make, workers=2) as batches:  # at once: a worker may not have begun yet
        for worker in multiprocessing.active_children():
            assert worker.pid is not None
            os.kill(worker.pid, number)
        assert [next(batches).step for _ in range(6)] == [0, 1, 2, 3, 4, 5]


def test_the_parent_s_signals_are_as_they_were() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Prefetch(make, workers=1) as batches:
        next(batches)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.needs_gpu
def test_workers_are_started_beside_a_gpu_in_use_and_may_not_touch_it() -> None:
    used = torch.ones(2, device="cuda")
    with Prefetch(make, stop=4, workers=2) as batches:
        assert [of.step for of in batches] == [0, 1, 2, 3]
    assert used.sum() == 2
    with (
        Prefetch(lambda step: torch.ones(step + 1, device="cuda").cpu(), workers=1) as batches,
        pytest.raises(RuntimeError, match="Cannot re-initialize CUDA in forked subprocess"),
    ):
        next(batches)


def _orphan(file: Path) -> None:
    with Prefetch(make, workers=3) as batches:
        next(batches)
        pids = [str(worker.pid) for worker in multiprocessing.active_children()]
        file.write_text("\n".join(pids))
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_workers_end_when_their_parent_was_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("fork").Process(target=_orphan, args=(tmp_path / "pids",))
    parent.start()
    parent.join()
    workers = [Path("/proc") / pid for pid in (tmp_path / "pids").read_text().split()]
    assert len(workers) == 3
    deadline = time.monotonic() + 30
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False
