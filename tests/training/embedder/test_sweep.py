"""The sweep suggests a learning rate and leaves the run alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.embedder.tiny import STILL, tiny
from training.data.identities import Faces
from training.embedder import sweep
from training.embedder.objective import Batch
from training.embedder.sweep import find_rate
from training.embedder.train import Training
from training.loop.diagnosis import Diverged

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


def test_the_sweep_suggests_a_rate_and_leaves_the_run_alone(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(batch=16, augmentation=STILL)
    rate = find_rate(config, tmp_path / "run", drawn_faces, steps=40)
    assert 1e-5 <= rate <= 0.1
    assert (tmp_path / "run" / "learning-rate.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_sweep_ends_where_the_loss_is_no_number(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = []

    def step(training: Training, batch: Batch, rate: float) -> Any:
        training.student.step += 1
        swept.append(rate)
        if rate > 1e-2:
            raise Diverged("step 9")
        return {"loss": 3 - rate * 100}, []

    monkeypatch.setattr(sweep, "train_step", step)
    assert find_rate(tiny(), tmp_path, drawn_faces) < 1e-2
    assert swept == sorted(swept)
    assert sum(rate > 1e-2 for rate in swept) == 1
