"""Pictures without anybody: where they come from, and what is found on them all the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundle.decode import Detections
from training.data.pictures import BadData
from training.evaluation.faceless import DRAWN, OF_SCIKIT, faceless, false_finds


def found(*scores: float) -> Detections:
    count = len(scores)
    return Detections(
        np.zeros((count, 4), np.float32), np.zeros((count, 5, 2), np.float32), np.array(scores, np.float32)
    )


def test_pictures_are_drawn_taken_from_scikit_image_and_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(folder / name), np.full((120, 160, 3), 90, np.uint8))
    given = list(faceless(folder))
    assert Counter(source for source, _ in given) == {
        "drawn": DRAWN,
        "scikit-image": len(OF_SCIKIT),
        "rooms": 2,
    }
    assert {(of.ndim, of.shape[2], of.dtype.name) for _, of in given} == {(3, 3, "uint8")}
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(given, faceless(folder), strict=True))


def test_no_picture_that_shows_people_is_taken() -> None:
    assert not {"astronaut", "camera", "coins", "lfw_subset"} & set(OF_SCIKIT)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no picture"):
        faceless(tmp_path)
    with pytest.raises(BadData, match="no picture"):
        faceless(tmp_path / "absent")
    (tmp_path / "broken.png").write_bytes(b"broken")
    with pytest.raises(BadData, match="no readable picture"):
        list(faceless(tmp_path))


def test_finds_are_counted_by_source_and_threshold() -> None:
    rows = false_finds(["a", "a", "b"], [found(0.9, 0.4), found(), found(0.7)], at_one=0.3, at_tenth=0.8)
    assert [(of.source, of.pictures, of.at_one, of.at_tenth) for of in rows] == [
        ("a", 2, 1.0, 0.5),
        ("b", 1, 1.0, 0.0),
    ]
