"""What processes have to agree on, lest one waits for ever for another. On one process nothing is asked."""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.loop.distributed import World


class FirstFailed(Exception):
    """The first process could not do what it does for all; it says itself why."""


def anywhere(flag: bool, world: World) -> bool:
    """Whether `flag` is set on any rank: the same answer on every one."""
    if world.size == 1:
        return flag
    return bool(world.maximum(torch.tensor(float(flag), device=world.device)))


def alike(number: int, world: World) -> bool:
    """Whether every rank has the same number, below 2⁵³."""
    ends = torch.tensor([number, -number], dtype=torch.float64, device=world.device)
    greatest, least = world.maximum(ends).tolist()
    return greatest == -least


def by_the_first(work: Callable[[], None], world: World) -> None:
    """Let the first rank do `work` (validate, write a file) while the others wait for it.

    Raises what `work` raises on the first rank, and FirstFailed on the others, all of which then end together.
    """
    error: Exception | None = None
    if world.first:
        try:
            work()
        except Exception as raised:
            error = raised
    failed = anywhere(error is not None, world)
    if error is not None:
        raise error
    if failed:
        raise FirstFailed("the first process failed; its message says why")
