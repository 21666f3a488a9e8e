"""Runs a function on several gloo processes, as torchrun would."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

FOLDER = "FACET_TEST_FOLDER"


def on_ranks(work: Callable[[], Any], size: int, folder: Path) -> list[Any]:
    """What `work()`, a function of a module, returns on each of `size` ranks: tensors, numbers, dicts, lists.

    `folder` must be there; a rank finds it in the environment as `FOLDER`. The processes are forked off one that has
    imported torch, with what optimisers need of it: the first call of a session takes seconds, the others tenths.
    Raises ProcessRaisedException with the traceback of the rank that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "torch._dynamo", __name__])
    multiprocessing.start_processes(_rank, (size, port, work, folder), nprocs=size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _rank(rank: int, size: int, port: int, work: Callable[[], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        FOLDER: str(folder),  # given here: the server that forks keeps the environment it was started with
    }
    torch.save(work(), folder / f"{rank}.pt")
