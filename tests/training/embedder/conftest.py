"""What tests of the embedder's training share: the tiny backbone is known, and a run writes no TensorBoard."""

from __future__ import annotations

import pytest

from tests.training.embedder.tiny import TINY
from training.embedder import train
from training.embedder.backbones import BACKBONES
from training.loop import tracking


@pytest.fixture
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in TINY.items():
        monkeypatch.setitem(BACKBONES, name, make)


@pytest.fixture
def quick_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what takes a run half a second before its first step."""
    monkeypatch.setattr(train, "peak_flops", lambda device, dtype: 1e9)
    monkeypatch.setattr(tracking, "_commit", lambda: None)
    monkeypatch.setattr(tracking, "_tensorboard", lambda run, initial: None)
