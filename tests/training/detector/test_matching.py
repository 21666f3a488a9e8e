from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decode import AnchorLayout, anchors, iou
from training.data.identities import BadData
from training.detector.dataset import levels_of
from training.detector.matching import NEGATIVE, POSITIVE, SILENT, Matches, atss, match

LAID = anchors(160, 160, AnchorLayout())
LEVELS = levels_of(160, AnchorLayout())
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


def by_iou(boxes: np.ndarray, ignored: np.ndarray) -> Matches:
    return match(LAID, boxes, ignored, 0.35, 0.28)


def by_atss(boxes: np.ndarray, ignored: np.ndarray) -> Matches:
    return atss(LAID, boxes, ignored, LEVELS)


BOTH = pytest.mark.parametrize("assign", [by_iou, by_atss])


@BOTH
def test_a_picture_without_faces_is_all_background(assign: Callable[..., Matches]) -> None:
    matches = assign(np.zeros((0, 4), np.float32), np.zeros(0, bool))
    assert (matches.label == NEGATIVE).all()


@BOTH
def test_an_ignored_face_is_neither_taught_nor_denied(assign: Callable[..., Matches]) -> None:
    box = np.array([[40, 40, 80, 90]], np.float32)
    matches = assign(box, np.array([True]))
    assert not (matches.label == POSITIVE).any()
    assert (matches.label[iou(CORNERS, box)[:, 0] >= 0.5] == SILENT).all()
    assert (matches.label == NEGATIVE).any()


@BOTH
def test_the_face_index_counts_ignored_faces_too(assign: Callable[..., Matches]) -> None:
    boxes = np.array([[0, 0, 20, 25], [80, 80, 120, 130]], np.float32)
    matches = assign(boxes, np.array([True, False]))
    assert set(matches.face[matches.label == POSITIVE].tolist()) == {1}


@pytest.mark.parametrize("tall", [8, 12, 16, 24, 40, 60, 90, 120, 150])
def test_the_layout_leaves_no_size_without_a_fitting_anchor(tall: float) -> None:
    """Faces of every size, wherever they stand, overlap some anchor enough to learn from."""
    for x, y in np.random.default_rng(1).uniform(75, 85, (20, 2)):
        box = np.array([[x - 0.4 * tall, y - tall / 2, x + 0.4 * tall, y + tall / 2]], np.float32)
        assert iou(CORNERS, box).max() >= (0.35 if tall >= 16 else 0.15)


@BOTH
@pytest.mark.parametrize(
    "box", [[30, 30, 30, 60], [30, 30, 60, 30], [50, 30, 30, 60], [30, np.nan, 60, 60], [30, 30, np.inf, 60]]
)
def test_a_face_without_area_is_refused_by_name(assign: Callable[..., Matches], box: list[float]) -> None:
    boxes = np.array([[80, 80, 120, 130], box], np.float32)
    with pytest.raises(BadData, match="face 1 has the box"):
        assign(boxes, np.zeros(2, bool))
    assert (assign(boxes[:1], np.zeros(1, bool)).label == POSITIVE).any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_atss_keeps_its_rules_for_any_crowd(seed: int, count: int) -> None:
    boxes = crowd(seed, count)
    matches = by_atss(boxes, np.zeros(count, bool))
    positive = np.flatnonzero(matches.label == POSITIVE)
    faces = matches.face[positive]
    assert set(faces.tolist()) == set(range(count))
    assert (matches.label[matches.label != POSITIVE] == NEGATIVE).all()
    overlap = iou(CORNERS, boxes)
    for face in range(count):
        own = positive[faces == face]
        if len(own) > 1:  # one may have been forced
            x, y = LAID[own, 0], LAID[own, 1]
            assert ((x > boxes[face, 0]) & (x < boxes[face, 2])).all()
            assert ((y > boxes[face, 1]) & (y < boxes[face, 3])).all()
            assert overlap[own, face].min() >= threshold(boxes[face]) - 1e-6
            assert len(own) <= 3 * 9 * 2


def threshold(box: np.ndarray) -> float:
    """Mean plus deviation of the IoU of the anchors of the nine nearest cells of each level, face by face."""
    middle, found, start = (box[:2] + box[2:]) / 2, [], 0
    for cells, per_cell in LEVELS:
        level = slice(start, start + cells * per_cell)
        start = level.stop
        apart = np.square(LAID[level, :2] - middle).sum(1)
        found.append(iou(CORNERS[level], box[None])[np.argsort(apart, kind="stable")[: 9 * per_cell], 0])
    around = np.concatenate(found)
    return float(around.mean() + around.std(ddof=1))


def test_atss_takes_the_level_whose_anchors_fit() -> None:
    """A face of 58 pixels, the middle level's own size, in the middle of a cell of it."""
    half = np.array([58 * 0.8**0.5, 58 / 0.8**0.5]) / 2
    middle = np.array([71.5, 71.5])
    box = np.concatenate([middle - half, middle + half]).astype(np.float32)[None]
    positive = np.flatnonzero(by_atss(box, np.zeros(1, bool)).label == POSITIVE)
    first = 2 * 20 * 20
    assert first <= positive.min()
    assert positive.max() < first + 2 * 10 * 10
    assert np.abs(LAID[positive, 2:] - 2 * half).max() < 1e-3
