"""What cannot be trained is refused before it begins, with the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.embedder.tiny import Colours, tiny
from training.config import BadConfig
from training.data.identities import BadData, Faces
from training.embedder.train import prepare, train
from training.loop.distributed import ALONE

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


def test_one_identity_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    alone = replace(drawn_faces, label=np.zeros(16, np.int64))
    with pytest.raises(BadData, match="at least two identities"):
        train(tiny(), tmp_path, alone, drawn_faces)


def test_a_label_out_of_range_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    with pytest.raises(BadData, match="a label is -1: number the identities from 0"):
        train(tiny(), tmp_path, replace(drawn_faces, label=drawn_faces.label - 1), drawn_faces)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0.1}, "less than a step: train longer"),
        ({"schedule": {"warmup": 7}}, "no room for a warm-up of 7"),
        ({"distillation": {"weight": 1.0}}, "distils, but there is no teacher"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(
    changed: dict[str, Any], message: str, tmp_path: Path, drawn_faces: Faces
) -> None:
    with pytest.raises(BadConfig, match=message):
        train(tiny(**changed), tmp_path / "run", drawn_faces, drawn_faces)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_dimension_can_teach_relations_alone(tmp_path: Path, drawn_faces: Faces) -> None:
    with pytest.raises(BadConfig, match="have 16 numbers, the student's 32: make them equal"):
        train(tiny(dimension=32, distillation={"weight": 1.0}), tmp_path, drawn_faces, drawn_faces, Colours())
    relations = tiny(dimension=32, distillation={"weight": 0, "relational": 1.0})
    train(relations, tmp_path, drawn_faces, drawn_faces, Colours())


def test_hints_are_the_reference_s(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(backbone="mobilefacenet", distillation={"weight": 1.0, "hint_steps": 2})
    with pytest.raises(BadConfig, match="hint_steps: only the reference embedder's layers are known"):
        prepare(config, tmp_path, drawn_faces, Colours(), ALONE)


def test_without_a_compiler_the_way_out_is_named(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++ -O2")
    with pytest.raises(
        BadConfig, match=r"needs a C\+\+ compiler, and /nowhere/g\+\+ is not .* compile = false"
    ):
        prepare(tiny(compile=True), tmp_path, drawn_faces, None, ALONE)
