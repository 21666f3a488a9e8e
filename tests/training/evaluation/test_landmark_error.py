"""Distances over the distance of the eyes, of faces that both detectors show, and of nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.decode import Detections
from bundle.preprocess import Letterbox
from training.evaluation.finding import Truth
from training.evaluation.landmark_error import landmark_error, matched, normalised

POINTS = np.array([[10, 20], [30, 20], [20, 30], [12, 40], [28, 40]], np.float32)  # the eyes 20 pixels apart


def found(*rows: tuple[float, np.ndarray, tuple[float, float, float, float]]) -> Detections:
    """From (score, points, box)."""
    return Detections(
        np.array([box for *_, box in rows], np.float32).reshape(-1, 4),
        np.array([points for _, points, _ in rows], np.float32).reshape(-1, 5, 2),
        np.array([score for score, *_ in rows], np.float32),
    )


def truth(*boxes: tuple[float, float, float, float]) -> list[Truth]:
    faces = np.array(boxes, np.float32).reshape(-1, 4)
    return [Truth("val/e/0", faces, np.zeros(len(faces), bool), Letterbox(1.0, 640, 480))]


FACE, SMALL, OTHER = (0, 0, 40, 50), (200, 0, 220, 25), (300, 0, 360, 80)


def test_the_error_is_the_mean_distance_over_the_distance_of_the_eyes() -> None:
    moved = POINTS + np.array([3, 4], np.float32)  # five pixels, each
    box = np.array([FACE], np.float32)
    assert normalised(moved[None], POINTS[None], box).tolist() == pytest.approx([5 / 20])
    assert normalised(POINTS[None] * 3, POINTS[None] * 3, box * 3).tolist() == [0]
    assert normalised(moved[None] * 2, POINTS[None] * 2, box * 2).tolist() == pytest.approx([5 / 20])


def test_of_a_profile_it_is_over_a_share_of_the_face() -> None:
    profile, box = POINTS * np.array([0, 1], np.float32), np.array([FACE], np.float32)
    error = normalised(profile[None] + np.array([3, 4], np.float32), profile[None], box)
    assert error.tolist() == pytest.approx([5 / (0.25 * (40 * 50) ** 0.5)])


def test_only_faces_of_the_claim_that_both_show_are_compared() -> None:
    ours = found((0.9, POINTS + 2, FACE), (0.9, POINTS, SMALL), (0.1, POINTS, OTHER))
    theirs = found((0.9, POINTS, FACE), (0.9, POINTS, SMALL), (0.9, POINTS, OTHER))
    error = landmark_error(truth(FACE, SMALL, OTHER), [ours], [theirs], "drawn", threshold=0.5)
    assert (error.faces, error.of, error.against) == (
        1,
        2,
        "drawn",
    )  # SMALL is too small, OTHER not sure enough
    assert error.median == error.p90 == pytest.approx(8**0.5 / 20)


def test_nobody_to_compare_is_not_a_number() -> None:
    nothing = found()
    error = landmark_error(truth(FACE), [nothing], [found((0.9, POINTS, FACE))], "drawn", 0.5)
    assert (error.faces, error.of) == (0, 1)
    assert np.isnan([error.median, error.p90]).all()


def test_a_find_shows_one_face_and_a_face_is_shown_by_its_best_find() -> None:
    near = (2, 2, 42, 52)
    boxes = np.array([FACE, near], np.float32)
    assert matched(boxes, found((0.9, POINTS, FACE))).tolist() == [0, -1]
    assert matched(boxes[:1], found((0.9, POINTS, near), (0.2, POINTS, FACE))).tolist() == [1]
    assert matched(boxes[:1], found((0.9, POINTS, near), (0.2, POINTS, FACE)), 0.5).tolist() == [0]
    assert matched(boxes[:0], found((0.9, POINTS, FACE))).tolist() == []
