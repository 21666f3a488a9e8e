"""A detector lends its points where it agrees with a box, whichever detector it is, and once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.decode import Detections
from training.data.photographs import Photograph, with_landmarks
from training.data.pictures import BadData
from training.data.raw_photographs import Picture
from training.data.scenes import draw_scene
from training.data.teacher_landmarks import agreed, annotated, completed, lent, taught, yunet


def photograph(boxes: np.ndarray, landmarks: np.ndarray | None = None, scale: float = 1.0) -> Photograph:
    count = len(boxes)
    points = np.full((count, 5, 2), np.nan, np.float32) if landmarks is None else landmarks
    pixels = np.zeros((300, 300, 3), np.uint8)
    return Photograph("x", pixels, scale, boxes.astype(np.float32), np.zeros(count, bool), points)


def scene(number: int) -> tuple[Photograph, Detections]:
    """Drawn people without points, and what a detector that sees well says of them and of one who is not there."""
    drawn = draw_scene(number, people=(3, 4))
    one = photograph(drawn.boxes)
    ghost = np.array([[500, 500, 540, 550]], np.float32)
    boxes = np.concatenate([ghost, drawn.boxes + 1])
    points = np.concatenate([np.zeros((1, 5, 2), np.float32), drawn.landmarks])
    return one, Detections(boxes, points, np.linspace(0.9, 0.5, len(boxes)).astype(np.float32))


def test_points_are_lent_only_where_the_teacher_agrees() -> None:
    boxes = np.array([[0, 0, 20, 20], [4, 0, 24, 20], [100, 100, 120, 120], [200, 200, 210, 210]])
    seen = np.array([[0, 0, 20, 20], [115, 115, 140, 140]], np.float32)
    found = Detections(seen, np.arange(20, dtype=np.float32).reshape(2, 5, 2), np.ones(2, np.float32))
    points = agreed(photograph(boxes), found)
    np.testing.assert_array_equal(points[0], found.landmarks[0])
    assert np.isnan(points[1:]).all()  # one detection serves one face; a slight overlap serves none
    nothing = Detections(seen[:0], found.landmarks[:0], found.scores[:0])
    assert np.isnan(agreed(photograph(boxes), nothing)).all()


@given(seed=st.integers(0, 200), at_least=st.floats(0.2, 0.9))
def test_no_point_comes_from_a_detection_that_disagrees_or_serves_twice(seed: int, at_least: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 100, (8, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 60, (8, 2))], 1)
    moved = boxes[rng.permutation(8)[:6]] + rng.normal(0, 6, (6, 4))
    marks = np.broadcast_to(np.arange(6.0)[:, None, None], (6, 5, 2)).astype(np.float32)
    points = agreed(
        photograph(boxes), Detections(moved.astype(np.float32), marks, np.ones(6, np.float32)), at_least
    )
    lent = [(face, int(of[0, 0])) for face, of in enumerate(points) if not np.isnan(of).any()]
    assert len({detection for _, detection in lent}) == len(lent)
    for face, detection in lent:
        one, other = boxes[face], moved[detection]
        common = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0).prod()
        union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common
        assert common / union >= at_least - 1e-6


def test_points_that_were_annotated_stay(capsys: pytest.CaptureFixture[str]) -> None:
    one, found = scene(5)
    own = np.full_like(one.landmarks, np.nan)
    own[0] = 7
    (whole,) = completed([photograph(one.boxes, own)], lambda picture: found)
    np.testing.assert_array_equal(whole.landmarks[0], own[0])
    np.testing.assert_allclose(whole.landmarks[1], found.landmarks[2])
    assert "landmarks of 2 of 2 faces" in capsys.readouterr().out


def test_any_detector_may_teach_and_is_asked_once(tmp_path: Path) -> None:
    one, found = scene(6)
    asked = []

    def detect(picture: Picture) -> Detections:
        asked.append(picture.shape)
        return found

    cache = tmp_path / "runs" / "points.npz"
    for _ in range(2):
        points = taught([one], detect, cache, "drawn eyes")
        assert list(points) == ["x"]
        np.testing.assert_allclose(with_landmarks(one, points["x"]).landmarks, found.landmarks[1:])
    assert asked == [(300, 300, 3)]
    with pytest.raises(
        BadData, match=r"points\.npz: landmarks of 'drawn eyes', not of 'other eyes'; delete it"
    ):
        taught([one], detect, cache, "other eyes")


def test_points_are_kept_in_annotated_pixels(tmp_path: Path) -> None:
    small, found = scene(7)
    half = Photograph("x", small.pixels, 0.5, small.boxes, small.ignored, small.landmarks)
    points = taught([half], lambda picture: found, tmp_path / "points.npz", "drawn eyes")
    np.testing.assert_allclose(points["x"], (found.landmarks[1:] + 0.5) * 2 - 0.5, rtol=1e-6)
    again = with_landmarks(half, points["x"])
    np.testing.assert_allclose(again.landmarks, found.landmarks[1:], rtol=1e-5)
    np.testing.assert_allclose(annotated(again), points["x"], rtol=1e-5)


def test_a_cache_that_names_no_teacher_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", x=np.zeros((2, 5, 2), np.float32))
    points = taught([], lambda picture: pytest.fail("nobody is asked"), tmp_path / "points.npz", "anyone")
    assert points["x"].shape == (2, 5, 2)


def test_points_are_lent_to_the_photographs_they_were_asked_for(tmp_path: Path) -> None:
    one, found = scene(8)
    points = {"x": found.landmarks[1:]}
    (whole,) = lent([one], points, tmp_path / "points.npz")
    np.testing.assert_allclose(whole.landmarks, found.landmarks[1:])
    for other in ({}, {"x": found.landmarks}):
        with pytest.raises(
            BadData, match=r"points\.npz: no landmarks for the 2 faces of x: the set has changed since"
        ):
            list(lent([one], other, tmp_path / "points.npz"))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half of one"])
def test_a_damaged_cache_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "points.npz").write_bytes(content)
    with pytest.raises(BadData, match=r"points\.npz: damaged .*; delete it, and the teacher is asked again"):
        taught([], lambda picture: pytest.fail("nobody is asked"), tmp_path / "points.npz", "anyone")


def test_what_is_no_yunet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"nowhere\.onnx: no such file; the teacher of points is YuNet"):
        yunet(tmp_path / "nowhere.onnx")
    (tmp_path / "notes.onnx").write_text("no graph")
    with pytest.raises(BadData, match=r"notes\.onnx: not a YuNet graph that OpenCV reads"):
        yunet(tmp_path / "notes.onnx")
