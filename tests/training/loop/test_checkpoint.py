"""A checkpoint is whole or absent, and reading one runs no code from it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from training.loop import checkpoint


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run" / "last.pt", {"step": 3, "model": {"weight": torch.arange(4.0)}})
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    assert state["step"] == 3
    assert torch.equal(state["model"]["weight"], torch.arange(4.0))
    assert [of.name for of in (tmp_path / "run").iterdir()] == ["last.pt"]


def test_a_save_that_fails_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1})

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(file, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load(file) == {"step": 1}
    assert [of.name for of in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_truncated_file_is_named_with_what_to_do(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1, "model": torch.zeros(100)})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(checkpoint.UnreadableCheckpoint, match=r"last\.pt cannot be read .* delete it"):
        checkpoint.load(file)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "last.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(checkpoint.UnreadableCheckpoint):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "harm").exists()


def test_a_file_that_holds_no_state_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "last.pt")
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="no training state"):
        checkpoint.load(tmp_path / "last.pt")
