from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from bundle.decode import AnchorLayout, anchors, decode, detections, encode, inside, iou, nms

LAYOUT = AnchorLayout()
CANVAS = (320, 256)


def faces(count: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    """(n, 4) xyxy boxes within some hundred pixels, at least one pixel wide."""
    low = count.flatmap(lambda n: arrays.arrays(np.float32, (n, 4), elements=st.floats(0, 300, width=32)))
    return low.map(lambda of: np.concatenate([of[:, :2], of[:, :2] + of[:, 2:] + 1], 1))


def scores(count: int) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.float32, count, elements=st.floats(0, 1, width=32))


def quiet(width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs of a detector that sees nothing: every anchor, score 0."""
    count = len(anchors(width, height, LAYOUT))
    return np.zeros(count, np.float32), np.zeros((count, 4), np.float32), np.zeros((count, 10), np.float32)


@settings(max_examples=60, deadline=None)
@given(boxes=faces(st.integers(0, 8)), data=st.data())
def test_decoding_inverts_encoding(boxes: np.ndarray, data: st.DataObject) -> None:
    laid = anchors(*CANVAS, LAYOUT)
    chosen = laid[data.draw(arrays.arrays(np.int64, len(boxes), elements=st.integers(0, len(laid) - 1)))]
    points = data.draw(arrays.arrays(np.float32, (len(boxes), 5, 2), elements=st.floats(-50, 400, width=32)))
    decoded, landmarks = decode(*encode(boxes, points, chosen, LAYOUT), chosen, LAYOUT)
    np.testing.assert_allclose(decoded, boxes, atol=0.01)
    np.testing.assert_allclose(landmarks, points, atol=0.01)


def test_anchors_are_ordered_by_stride_row_column_and_size() -> None:
    laid = anchors(64, 32, LAYOUT)
    assert laid.shape == (2 * (8 * 4 + 4 * 2 + 2 * 1), 4)
    np.testing.assert_allclose(laid[:5, :2], [[3.5, 3.5], [3.5, 3.5], [11.5, 3.5], [11.5, 3.5], [19.5, 3.5]])
    np.testing.assert_allclose(laid[16, :2], [3.5, 11.5])
    np.testing.assert_allclose(laid[-1, :2], [47.5, 15.5])
    np.testing.assert_allclose(laid[:2, 2:].prod(1) ** 0.5, [16, 30], rtol=1e-5)
    np.testing.assert_allclose(laid[:, 2] / laid[:, 3], 0.8, rtol=1e-5)


@given(across=st.integers(1, 6), down=st.integers(1, 6))
def test_anchors_are_spread_evenly_about_the_middle_of_the_canvas(across: int, down: int) -> None:
    laid = anchors(32 * across, 32 * down, LAYOUT)
    np.testing.assert_allclose(laid[:, :2].mean(0), [(32 * across - 1) / 2, (32 * down - 1) / 2], rtol=1e-5)


def test_anchors_are_made_once_and_cannot_be_spoilt() -> None:
    assert anchors(64, 64, LAYOUT) is anchors(64, 64, AnchorLayout())
    with pytest.raises(ValueError, match="read-only"):
        anchors(64, 64, LAYOUT)[0] = 0


@pytest.mark.parametrize("size", [(0, 32), (-32, 32), (100, 64), (64, 100)])
def test_a_canvas_that_the_strides_do_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        anchors(*size, LAYOUT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"strides": (8, 16)},
        {"sizes": ((16,), (), (64,))},
        {"sizes": ((16,), (-1,), (64,))},
        {"variances": (0.0, 0.2)},
        {"aspect": 0.0},
        {"strides": (), "sizes": ()},
        {"stride": (8,)},
    ],
)
def test_a_layout_without_meaning_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AnchorLayout.model_validate(wrong)


def test_a_layout_survives_json() -> None:
    assert AnchorLayout.model_validate_json(LAYOUT.model_dump_json()) == LAYOUT


@given(boxes=faces(st.integers(0, 12)), others=faces(st.integers(0, 5)))
def test_iou_is_symmetric_and_a_share(boxes: np.ndarray, others: np.ndarray) -> None:
    overlap = iou(boxes, others)
    assert overlap.shape == (len(boxes), len(others))
    np.testing.assert_allclose(overlap, iou(others, boxes).T, rtol=1e-5)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-6)).all()
    np.testing.assert_allclose(np.diag(iou(boxes, boxes)), 1, rtol=1e-5)


@given(boxes=faces(st.integers(0, 12)), others=faces(st.integers(0, 5)))
def test_the_share_inside_is_at_least_the_overlap_of_both(boxes: np.ndarray, others: np.ndarray) -> None:
    share = inside(boxes, others)
    assert share.shape == (len(boxes), len(others))
    assert (share <= 1 + 1e-5).all()
    assert (share >= iou(boxes, others) - 1e-6).all()
    np.testing.assert_allclose(np.diag(inside(boxes, boxes)), 1, rtol=1e-5)


def test_half_of_a_box_lies_inside_another() -> None:
    boxes, other = np.array([[0, 0, 10, 10], [20, 0, 30, 40]]), np.array([[5, -20, 30, 20]])
    np.testing.assert_allclose(inside(boxes, other), [[0.5], [0.5]])


def test_an_empty_box_overlaps_nothing_not_even_itself() -> None:
    empty = np.array([[5, 5, 5, 9], [7, 7, 3, 3]], np.float32)
    assert not iou(empty, empty).any()
    assert not inside(empty, empty).any()


@settings(max_examples=60, deadline=None)
@given(boxes=faces(st.integers(0, 20)), threshold=st.floats(0.1, 0.9), data=st.data())
def test_suppression_keeps_the_best_of_every_heap(
    boxes: np.ndarray, threshold: float, data: st.DataObject
) -> None:
    score = data.draw(scores(len(boxes)))
    kept = nms(boxes, score, threshold)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(score[kept]) <= 0).all()
    among = iou(boxes[kept], boxes[kept])
    assert (among[~np.eye(len(kept), dtype=bool)] <= threshold).all()
    for dropped in set(range(len(boxes))) - set(kept.tolist()):
        better = kept[score[kept] >= score[dropped]]
        assert iou(boxes[dropped : dropped + 1], boxes[better]).max() > threshold
    np.testing.assert_array_equal(nms(boxes[kept], score[kept], threshold), np.arange(len(kept)))


@settings(max_examples=60, deadline=None)
@given(boxes=faces(st.integers(1, 15)), data=st.data())
def test_suppression_does_not_care_about_order_place_or_scale(boxes: np.ndarray, data: st.DataObject) -> None:
    # Ties have no better one: scores are all different here.
    score = np.array(data.draw(st.permutations(range(len(boxes)))), np.float32) / len(boxes)
    kept = set(nms(boxes, score, 0.4).tolist())
    order = np.array(data.draw(st.permutations(range(len(boxes)))))
    assert {int(order[i]) for i in nms(boxes[order], score[order], 0.4)} == kept
    # A power of two moves and scales floats without rounding them.
    assert set(nms(boxes * 4, score, 0.4).tolist()) == kept
    assert set(nms(boxes, score / 2, 0.4).tolist()) == kept


def test_a_planted_face_is_found_where_it_was_planted() -> None:
    score, deltas, offsets = quiet(*CANVAS)
    laid = anchors(*CANVAS, LAYOUT)
    box, points = np.array([[100, 60, 148, 120]], np.float32), np.full((1, 5, 2), 90, np.float32)
    anchor = int(
        iou(np.concatenate([laid[:, :2] - laid[:, 2:] / 2, laid[:, :2] + laid[:, 2:] / 2], 1), box).argmax()
    )
    encoded = encode(box, points, laid[anchor : anchor + 1], LAYOUT)
    score[anchor], deltas[anchor], offsets[anchor] = 0.9, encoded[0][0], encoded[1][0]
    found = detections(score, deltas, offsets, *CANVAS, LAYOUT, min_score=0.5, nms_iou=0.4, top_k=100)
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, box, atol=0.01)
    np.testing.assert_allclose(found.landmarks, points, atol=0.01)
    assert found.scores.tolist() == [np.float32(0.9)]


def test_nothing_above_the_threshold_is_no_face_of_the_right_shape() -> None:
    found = detections(*quiet(*CANVAS), *CANVAS, LAYOUT, min_score=0.5, nms_iou=0.4, top_k=100)
    assert (found.boxes.shape, found.landmarks.shape, found.scores.shape) == ((0, 4), (0, 5, 2), (0,))
    assert len(found) == 0


def test_a_crowd_of_scores_is_cut_before_suppression() -> None:
    score, deltas, offsets = quiet(*CANVAS)
    score[:] = np.linspace(0.1, 0.9, len(score), dtype=np.float32)
    found = detections(score, deltas, offsets, *CANVAS, LAYOUT, min_score=0.0, nms_iou=1.0, top_k=7)
    np.testing.assert_array_equal(found.scores, np.sort(score)[::-1][:7])


def test_a_wild_delta_stays_finite() -> None:
    score, deltas, offsets = quiet(*CANVAS)
    score[0], deltas[0] = 1, 1e6
    found = detections(score, deltas, offsets, *CANVAS, LAYOUT, min_score=0.5, nms_iou=0.4, top_k=10)
    assert np.isfinite(found.boxes).all()


def test_outputs_of_another_canvas_are_refused() -> None:
    with pytest.raises(ValueError, match="anchors"):
        detections(*quiet(320, 320), *CANVAS, LAYOUT, min_score=0.5, nms_iou=0.4, top_k=10)


def test_a_box_without_extent_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="without width"):
        encode(np.array([[5, 5, 5, 9.0]]), np.zeros((1, 5, 2)), anchors(*CANVAS, LAYOUT)[:1], LAYOUT)
