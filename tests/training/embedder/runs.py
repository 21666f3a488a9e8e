"""What tests of whole runs share: comparing what two left behind, and acting at a step of one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.embedder import train as run
from training.embedder.objective import Batch
from training.embedder.train import Training
from training.loop import checkpoint


def flat(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a checkpoint, with the way to it."""
    if isinstance(state, (dict, list, tuple)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from flat(value, f"{name}.{key}")
    else:
        yield name, state


def assert_equal(found: Path, expected: Path) -> None:
    ours, theirs = dict(flat(checkpoint.load(found))), dict(flat(checkpoint.load(expected)))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value) if isinstance(value, Tensor) else ours[name] == value, name


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Let `act()` happen before that step is taken, once."""
    taken, done = run.train_step, []

    def watched(training: Training, batch: Batch, rate: float) -> Any:
        if training.student.step == step and not done:
            done.append(step)
            act()
        return taken(training, batch, rate)

    monkeypatch.setattr(run, "train_step", watched)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
