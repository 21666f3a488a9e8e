"""Processes come to one answer, and none waits for one that has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.ranks import on_ranks
from training.loop.agreement import FirstFailed, alike, anywhere, by_the_first
from training.loop.distributed import ALONE, start


def test_one_process_agrees_with_itself() -> None:
    done = []
    by_the_first(lambda: done.append(1), ALONE)
    assert done == [1]
    assert [anywhere(flag, ALONE) for flag in (True, False)] == [True, False]
    assert alike(3, ALONE)
    with pytest.raises(ZeroDivisionError):
        by_the_first(lambda: 1 / 0, ALONE)


def agree() -> dict[str, Any]:
    done: list[int] = []
    with start("cpu") as world:
        told = {
            "nowhere": anywhere(False, world),
            "anywhere": anywhere(world.rank == 1, world),
            "alike": alike(2**40, world),
            "unlike": alike(2**40 + world.rank, world),
        }
        by_the_first(lambda: done.append(world.rank), world)
        try:
            by_the_first(lambda: 1 / 0, world)
        except (ZeroDivisionError, FirstFailed) as error:
            told["failed"] = type(error).__name__
        told["after"] = anywhere(False, world)  # both go on together
    return {**told, "done": done}


def test_two_processes_agree(tmp_path: Path) -> None:
    first, second = on_ranks(agree, 2, tmp_path)
    shared = {"nowhere": False, "anywhere": True, "alike": True, "unlike": False, "after": False}
    assert first == {**shared, "failed": "ZeroDivisionError", "done": [0]}
    assert second == {**shared, "failed": "FirstFailed", "done": []}
