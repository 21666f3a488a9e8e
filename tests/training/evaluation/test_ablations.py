"""What other trainings gave is read as it was written, and nothing else passes for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.evaluation.drawn_scores import drawn_people
from training.data.identities import BadData, Faces
from training.evaluation.ablations import FILE, Ablation, read_ablations, write_ablations
from training.evaluation.bootstrap import Interval

HALF = Ablation(name="half", identities=3, faces=9, steps=5, distilled=False, fnmr=Interval(0.5, 0.4, 0.6))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "runs" / FILE
    both = (HALF, HALF.model_copy(update={"name": "whole", "lfw": 0.97, "lfw_error": 0.003}))
    assert read_ablations(file) == ()
    write_ablations(file, both)
    assert read_ablations(file) == both
    assert [of.name for of in file.parent.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a list of trainings"),
        ("[{]", "not a list of trainings"),
        ('{"name": "half"}', "not a list of trainings"),
        ('[{"name": "half"}]', "0.identities: Field required"),
        (
            '[{"name": "a", "identities": 1, "faces": 2, "steps": 0, "distilled": true, "fnmr": 0.5}]',
            "0.fnmr",
        ),
        ('[{"name": "half", "lfw": 1.5}]', "0.lfw: Input should be less than or equal to 1"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadData, match=said) as refused:
        read_ablations(tmp_path / FILE)
    assert "correct or remove it" in str(refused.value)


def test_a_file_from_before_lfw_was_measured_is_read(tmp_path: Path) -> None:
    write_ablations(tmp_path / FILE, [HALF])
    (older,) = json.loads((tmp_path / FILE).read_text())
    del older["lfw"], older["lfw_error"]
    (tmp_path / FILE).write_text(json.dumps([older]))
    assert read_ablations(tmp_path / FILE) == (HALF,)
    assert HALF.lfw is None


def test_a_training_is_measured_on_all_pairs_of_validation() -> None:
    embedding, identity, family = drawn_people(40, 4, noise=1.2)
    label = np.unique(identity, return_inverse=True)[1]
    blank = np.zeros((len(identity), 1, 1, 3), np.uint8)
    validation = Faces(blank, identity, label, family, np.ones(len(identity), np.float32), family)
    told = Ablation.measured("x", embedding, validation, identities=5, faces=20, steps=7, distilled=True)
    assert told.fnmr.low <= told.fnmr.value <= told.fnmr.high
    assert (told.faces, told.distilled, told.lfw, told.lfw_error) == (20, True, None, None)
