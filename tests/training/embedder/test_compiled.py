"""A compiled training goes on as if nothing had happened, as one that is not compiled does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.embedder.runs import assert_equal, at_step, interrupt
from tests.training.embedder.tiny import tiny
from training.config import BadConfig
from training.data.identities import Faces
from training.embedder.hints import find_compiler
from training.embedder.train import train
from training.loop import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_backbone", "quick_tracking")]


@pytest.mark.filterwarnings("ignore")  # of the compiler's own modules
def test_a_compiled_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        find_compiler()
    except BadConfig as error:
        pytest.skip(str(error))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    config = tiny(
        backbone="tiny-normalised",
        batch=8,
        micro_batch=3,  # 2, 3 and 3 faces: another shape within the step
        epochs=2.0,
        precision="bf16",
        schedule={"warmup": 1, "decay": 0.5},
        compile=True,
    )

    def go(folder: str) -> Path:
        torch.compiler.reset()  # as in a process of its own
        return train(config, tmp_path / folder, drawn_faces, drawn_faces)

    whole = go("whole")
    at_step(monkeypatch, 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        go("stopped")
    assert checkpoint.load(tmp_path / "stopped" / "last.pt")["step"] == 2
    assert_equal(go("stopped"), whole)
    assert checkpoint.load(whole)["step"] == 4
