from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decode import AnchorLayout, anchors, iou
from training.detector.matching import NEGATIVE, POSITIVE, SILENT, match

LAID = anchors(160, 160, AnchorLayout())
CORNERS = np.concatenate([LAID[:, :2] - LAID[:, 2:] / 2, LAID[:, :2] + LAID[:, 2:] / 2], 1)


def crowd(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle, tall = rng.uniform(0, 160, (count, 2)), np.exp(rng.uniform(np.log(6), np.log(150), (count, 1)))
    half = np.concatenate([0.8 * tall, tall], 1) / 2
    return np.concatenate([middle - half, middle + half], 1).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_every_rule_holds_for_any_crowd(seed: int, count: int) -> None:
    boxes = crowd(seed, count)
    matches = match(LAID, boxes, np.zeros(count, bool), 0.35, 0.28)
    overlap = iou(CORNERS, boxes)
    positive = matches.label == POSITIVE
    assert set(matches.face[positive].tolist()) == set(range(count))  # no face goes unlearnt
    assert positive[overlap.max(1) >= 0.35].all()
    # Whatever overlaps enough learns the face it overlaps most: no forced match steals it.
    own = overlap.max(1) >= 0.35
    np.testing.assert_array_equal(matches.face[own], overlap[own].argmax(1))
    between = (overlap.max(1) >= 0.28) & ~positive
    assert (matches.label[between] == SILENT).all()
    assert (matches.label[(overlap.max(1) < 0.28) & ~positive] == NEGATIVE).all()


def test_a_picture_without_faces_is_all_background() -> None:
    matches = match(LAID, np.zeros((0, 4), np.float32), np.zeros(0, bool), 0.35, 0.28)
    assert (matches.label == NEGATIVE).all()


def test_an_ignored_face_is_neither_taught_nor_denied() -> None:
    box = np.array([[40, 40, 80, 90]], np.float32)
    matches = match(LAID, box, np.array([True]), 0.35, 0.28)
    assert not (matches.label == POSITIVE).any()
    assert (matches.label[iou(CORNERS, box)[:, 0] >= 0.5] == SILENT).all()
    assert (matches.label == NEGATIVE).any()


def test_the_face_index_counts_ignored_faces_too() -> None:
    boxes = np.array([[0, 0, 20, 25], [80, 80, 120, 130]], np.float32)
    matches = match(LAID, boxes, np.array([True, False]), 0.35, 0.28)
    assert set(matches.face[matches.label == POSITIVE].tolist()) == {1}


@pytest.mark.parametrize("tall", [8, 12, 16, 24, 40, 60, 90, 120, 150])
def test_the_layout_leaves_no_size_without_a_fitting_anchor(tall: float) -> None:
    """Faces of every size, wherever they stand, overlap some anchor enough to learn from."""
    for x, y in np.random.default_rng(1).uniform(75, 85, (20, 2)):
        box = np.array([[x - 0.4 * tall, y - tall / 2, x + 0.4 * tall, y + tall / 2]], np.float32)
        assert iou(CORNERS, box).max() >= (0.35 if tall >= 16 else 0.15)
