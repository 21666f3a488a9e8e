from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.detector.oblongs import SMALL, oblongs
from training.detector import sweep
from training.detector.config import DenseTeaching
from training.detector.dataset import keep
from training.loop.diagnosis import Diverged


def test_the_sweep_is_on_a_student_of_its_own_and_needs_no_teacher(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"teacher": DenseTeaching(layers=("a", "b", "c"), hint_steps=5)})
    suggestion = sweep.find_rate(config, tmp_path / "run", keep(oblongs(12)), steps=20)
    assert 1e-5 <= suggestion <= 1
    assert (tmp_path / "run" / "learning-rate.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_sweep_ends_where_the_loss_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[float] = []

    def step(training: Any, batch: Any, rate: float) -> Any:
        training.student.step += 1
        swept.append(rate)
        if rate > 1e-2:
            raise Diverged("step 9")
        return {"loss": 3 - rate * 100}, []

    monkeypatch.setattr(sweep, "train_step", step)
    assert sweep.find_rate(SMALL, tmp_path, keep(oblongs(12))) < 1e-2
    assert sum(rate > 1e-2 for rate in swept) == 1
