"""What takes no part, and what will not work out, is said before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.embedder.tiny import PK_FOUR, tiny
from training.data.identities import Faces
from training.embedder.train import train

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


def test_what_takes_no_part_is_counted(
    tmp_path: Path, drawn_faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    doubted = replace(drawn_faces, similarity=np.where(np.arange(16) < 3, 0.1, 0.9).astype(np.float32))
    train(tiny(sampling=PK_FOUR, epochs=6.0), tmp_path, doubted, doubted)
    told = capsys.readouterr().err
    assert "3 of 16 faces are unlike their own person" in told
    assert "1 people have a single picture" in told
