"""What takes no part, and what will not work out, is said before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.embedder.tiny import PK_FOUR, tiny
from training.data.identities import Faces
from training.embedder.config import EmbedderConfig
from training.embedder.remarks import remarks
from training.embedder.student import build
from training.embedder.train import train
from training.loop.distributed import ALONE

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


def test_what_takes_no_part_is_counted(
    tmp_path: Path, drawn_faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    doubted = replace(drawn_faces, similarity=np.where(np.arange(16) < 3, 0.1, 0.9).astype(np.float32))
    train(tiny(sampling=PK_FOUR, epochs=6.0), tmp_path, doubted, doubted)
    told = capsys.readouterr().err
    assert "memory: about 0.00 GB (model " in told
    assert "3 of 16 faces are unlike their own person" in told
    assert "1 people have a single picture" in told


def said(config: EmbedderConfig, faces: Faces, validation: Faces | None = None) -> list[str]:
    return remarks(config, build(config, faces), faces, faces if validation is None else validation, 6, ALONE)


def test_a_usual_run_is_told_its_memory_alone(drawn_faces: Faces) -> None:
    (line,) = said(tiny(), drawn_faces)
    assert line.startswith("memory: about ")


def test_memory_that_will_not_do_is_told_with_a_remedy(
    drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.embedder.remarks.free_memory", lambda device: 1000)
    (line,) = said(tiny(), drawn_faces)
    assert "0.00 GB are free: " in line


def test_a_rate_far_from_the_usual_is_told(drawn_faces: Faces) -> None:
    usual = 0.1 * 4 / 1024
    assert len(said(tiny(optimiser={"name": "sgd", "learning_rate": usual}), drawn_faces)) == 1
    told = said(tiny(optimiser={"name": "sgd", "learning_rate": 10 * usual}), drawn_faces)
    assert "is 10 × the usual of SGD under a margin loss at a batch of 4" in told[-1]


def test_fp16_on_a_cpu_is_told(drawn_faces: Faces) -> None:
    assert "precision fp16 is for GPUs" in said(tiny(precision="fp16"), drawn_faces)[0]
    assert len(said(tiny(precision="bf16"), drawn_faces)) == 1


def test_a_scale_under_which_nobody_can_be_told_apart_is_told(drawn_faces: Faces) -> None:
    """With four people 0.9 needs e^s = 27, s = 3.30."""
    few = {"name": "softmax", "weight": 1.0, "options": {"scale": 3.2}}
    assert (
        "3.2 is too small for 4 identities: below 3.3 even a perfect" in said(tiny(head=few), drawn_faces)[0]
    )
    enough = {**few, "options": {"scale": 3.4}}
    for silent in (
        tiny(head=enough),
        tiny(head={**few, "weight": 0}, metric={"triplet": 1.0}, sampling=PK_FOUR),
    ):
        assert not any("scale" in line for line in said(silent, drawn_faces))


def test_a_validation_that_is_not_compared_whole_is_told(
    drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("remarks", "validation"):
        monkeypatch.setattr(f"training.embedder.{module}.MOST", 6)
    line = said(tiny(), drawn_faces)[0]
    assert "validation compares 6 of 16 faces, always the same of 2 people" in line
