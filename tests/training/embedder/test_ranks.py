"""Two processes are together what one is with twice the batch, and end together."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.embedder.runs import interrupt
from tests.training.embedder.tiny import STILL, Colours, know_tiny, tiny
from tests.training.ranks import FOLDER, on_ranks
from training.data.identities import Faces
from training.embedder import train as run
from training.embedder.config import EmbedderConfig
from training.embedder.objective import Batch
from training.embedder.train import Training, train
from training.loop import checkpoint, tracking
from training.loop.distributed import World, start

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


def on_two(config: EmbedderConfig, **changed: Any) -> EmbedderConfig:
    return config.model_copy(update={"batch": config.batch // 2, **changed})


def comparable(**changed: Any) -> EmbedderConfig:
    """Of which two ranks with half the batch make the same: no statistics of a batch, no chance of a rank's own."""
    return tiny(
        **{
            "batch": 8,
            "epochs": 2.0,
            "augmentation": STILL,
            "optimiser": {"name": "sgd", "learning_rate": 0.1},
            "metric": {"centre": 0.1},
            "distillation": {"weight": 2.0},
            "ema": 0.5,
            "checkpoint_steps": 3,
            "schedule": {"warmup": 0, "decay": 0.0},
            **changed,
        }
    )


STILL_CENTRES = {"metric": {"centre": 0.1, "centre_rate": 0}}  # micro-batches meet moved ones


def some_faces() -> Faces:
    """Four people in flat colours with four pictures each, a few of which have doubtful labels."""
    rng = np.random.default_rng(1)
    colour = rng.integers(40, 216, (4, 1, 15, 15, 3)) + rng.integers(-40, 40, (4, 4, 15, 15, 3))
    pictures = colour.reshape(16, 15, 15, 3).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    label = np.repeat(np.arange(4), 4)
    return Faces(
        pictures=pictures,
        identity=label,
        label=label,
        family=np.full(16, ""),
        similarity=np.where(np.arange(16) % 7 == 3, 0.1, 0.9).astype(np.float32),
        source=np.full(16, "drawn"),
    )


def train_on_ranks() -> dict[str, Any]:
    """What a rank does in the test below; its folder is the working folder of the test."""
    folder = Path(os.environ[FOLDER])
    know_tiny()
    run.peak_flops = lambda device, dtype: 1e9
    tracking._tensorboard = lambda run, initial: None
    told: dict[str, Any] = {}
    faces, config = some_faces(), on_two(comparable())
    with start("cpu") as world:
        train(config, folder / "two", faces, faces, Colours(), world)
        train(
            on_two(comparable(**STILL_CENTRES), micro_batch=2),
            folder / "two in parts",
            faces,
            faces,
            Colours(),
            world,
        )
        train(on_two(comparable(epochs=3.0)), folder / "one, then two", faces, faces, Colours(), world)
        told["stopped"] = stopped_by_the_other(config, folder / "stopped", faces, world)
        told["failed"] = failed_by_the_first(config, folder / "failed", faces, world)
    return told


def stopped_by_the_other(config: EmbedderConfig, folder: Path, faces: Faces, world: World) -> str:
    taken = run.train_step

    def watched(training: Training, batch: Batch, rate: float) -> Any:
        if not world.first and training.student.step == 1:
            interrupt()
        return taken(training, batch, rate)

    run.train_step = watched
    try:
        train(config, folder, faces, faces, Colours(), world)
    except KeyboardInterrupt:
        return f"stopped at {checkpoint.load(folder / 'last.pt')['step']}"
    finally:
        run.train_step = taken
    return "not stopped"


def failed_by_the_first(config: EmbedderConfig, folder: Path, faces: Faces, world: World) -> str:
    def refuse(path: Path, state: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save, kept = refuse, checkpoint.save
    try:
        train(config, folder, faces, faces, Colours(), world)
    except Exception as error:
        return type(error).__name__
    finally:
        checkpoint.save = kept
    return "not failed"


def test_two_processes_are_together_what_one_is_with_twice_the_batch(tmp_path: Path) -> None:
    faces = some_faces()
    one = checkpoint.load(train(comparable(), tmp_path / "one", faces, faces, Colours()))
    train(comparable(), tmp_path / "one, then two", faces, faces, Colours())
    parted = checkpoint.load(train(comparable(**STILL_CENTRES), tmp_path / "parted", faces, faces, Colours()))
    longer = train(comparable(epochs=3.0), tmp_path / "longer", faces, faces, Colours())
    told = on_ranks(train_on_ranks, 2, tmp_path)
    assert [of["stopped"] for of in told] == ["stopped at 2"] * 2
    assert [of["failed"] for of in told] == ["OSError", "FirstFailed"]

    def assert_close(found: Path, expected: dict[str, Any]) -> dict[str, Any]:
        state = checkpoint.load(found)
        assert state["step"] == expected["step"]
        for part in ("model", "average", "centres"):
            torch.testing.assert_close(state[part], expected[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state["head"]["weight"], expected["head"]["weight"], rtol=1e-4, atol=1e-5)
        return state

    two = assert_close(tmp_path / "two" / "last.pt", one)
    assert two["head"]["moments"]["momentum"].shape == (4, 16)
    assert_close(tmp_path / "one, then two" / "last.pt", checkpoint.load(longer))
    train(comparable(epochs=3.0), tmp_path / "two", faces, faces, Colours())  # and on one process again
    assert_close(tmp_path / "two" / "last.pt", checkpoint.load(longer))
    assert_close(tmp_path / "two in parts" / "last.pt", parted)
