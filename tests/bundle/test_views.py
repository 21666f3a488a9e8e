"""A face is found once, by the view in which it has a comfortable size, wherever it stands and however large it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decode import AnchorLayout, anchors, detections, encode, iou
from bundle.folder import Bundle, open_bundle
from bundle.manifest import DetectorSpec
from bundle.preprocess import canvas_for, letterbox
from bundle.views import View, faces_in, shapes, views
from tests.astronaut import filling

SPEC = DetectorSpec(min_score=0.5)
BLANK = np.zeros((480, 640, 3), np.uint8)
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])  # of a box
BORDER = 160  # √(width · height) at which a quarter-sized copy takes over: twice 80, the anchors' middle
Rows = list[npt.NDArray[np.float32]]


def box_of(size: float, x: float = 320, y: float = 240) -> npt.NDArray[np.float64]:
    """(4,) xyxy of a face of √(width · height) = size around (x, y)."""
    width, height = size * 0.8**0.5, size / 0.8**0.5
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def quiet(view: View) -> Rows:
    """Rows of a detector that sees nothing in `view`."""
    height, width = view.pixels.shape[:2]
    count = len(anchors(width, height, SPEC.anchors))
    return [np.zeros(shape, np.float32) for shape in ((count,), (count, 4), (count, 10))]


def planted(view: View, *faces: tuple[npt.NDArray[np.float64], float]) -> Rows:
    """Rows of a detector that sees exactly these faces (box on the canvas, score) in `view`."""
    rows = quiet(view)
    height, width = view.pixels.shape[:2]
    laid = anchors(width, height, SPEC.anchors)
    corners = np.concatenate([laid[:, :2] - laid[:, 2:] / 2, laid[:, :2] + laid[:, 2:] / 2], 1)
    for box, score in faces:
        on = view.placed.to_canvas(box)[None]
        points = on[0, :2] + POINTS * (on[0, 2:] - on[0, :2])
        at = int(iou(corners, on)[:, 0].argmax())
        encoded = encode(on, points[None], laid[at : at + 1], SPEC.anchors)
        rows[0][at], rows[1][at], rows[2][at] = score, encoded[0][0], encoded[1][0]
    return rows


def found(*planted_in: Sequence[tuple[npt.NDArray[np.float64], float]]) -> Any:
    """Faces of BLANK where each view sees what is planted in it."""
    seen = views(BLANK, SPEC)
    outputs = [planted(view, *of) for view, of in zip(seen, planted_in, strict=True)]
    return faces_in(seen, outputs, SPEC, SPEC.min_score)


def test_the_views_of_a_canvas_are_itself_and_a_quarter_sized_copy() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    itself, near = views(canvas, SPEC)
    assert itself.pixels is canvas
    np.testing.assert_array_equal(itself.placed.to_picture(np.array([3.0, 5.0])), [3, 5])
    assert near.pixels.shape == (128, 160, 3)
    means = canvas.reshape(120, 4, 160, 4, 3).mean((1, 3))
    np.testing.assert_allclose(near.pixels[:120], means, atol=0.51)
    assert not near.pixels[120:].any()


def test_without_a_near_scale_there_is_one_view_and_nothing_changes() -> None:
    alone = SPEC.model_copy(update={"near_scale": 0.0})
    (view,) = views(BLANK, alone)
    rows = planted(view, (box_of(60), 0.9), (box_of(300), 0.8))
    plain = detections(*rows, 640, 480, alone.anchors, 0.5, alone.nms_iou, alone.top_k)
    told = faces_in([view], [rows], alone, 0.5)
    np.testing.assert_array_equal(told.boxes, plain.boxes)
    np.testing.assert_array_equal(told.landmarks, plain.landmarks)
    assert shapes(alone) == alone.canvases


@given(
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    scale=st.floats(0.01, 0.5),
    strides=st.sampled_from([(8, 16, 32), (4, 8, 16, 32, 64)]),
)
def test_the_shapes_are_those_of_the_views_and_the_strides_divide_them(
    width: int, height: int, scale: float, strides: tuple[int, ...]
) -> None:
    coarsest = strides[-1]
    layout = AnchorLayout(strides=strides, sizes=tuple((2.0 * of,) for of in strides))
    canvases = ((width * coarsest, height * coarsest), (coarsest, coarsest))
    spec = DetectorSpec(anchors=layout, canvases=canvases, near_scale=scale)
    every = [
        view.pixels.shape[1::-1] for w, h in canvases for view in views(np.zeros((h, w, 3), np.uint8), spec)
    ]
    assert set(every) == set(shapes(spec))
    assert not any(side % coarsest for size in every for side in size)


@settings(max_examples=60)
@given(size=st.floats(14, 460), x=st.floats(60, 580), y=st.floats(60, 420))
def test_a_face_that_both_views_see_is_found_once_where_it_is(size: float, x: float, y: float) -> None:
    box = box_of(size, x, y)
    told = found([(box, 0.9)], [(box, 0.8)])
    assert len(told) == 1
    np.testing.assert_allclose(told.boxes[0], box, atol=0.1)
    np.testing.assert_allclose(told.landmarks[0], box[:2] + POINTS * (box[2:] - box[:2]), atol=0.1)


@given(size=st.floats(14, 460))
def test_the_views_leave_no_gap_between_them(size: float) -> None:
    """Whichever view a face is right for reports it, though they may disagree about its size by a fifth."""
    box, wrong = box_of(size), box_of(size * (1.2 if size < BORDER else 1 / 1.2))
    told = found([(wrong, 0.9)], []) if size < BORDER else found([], [(wrong, 0.9)])
    assert len(told) == 1
    assert iou(told.boxes, box[None])[0, 0] > 0.6


def test_each_view_is_silent_about_the_sizes_that_the_other_sees_better() -> None:
    assert len(found([], [(box_of(0.6 * BORDER), 0.9)])) == 0
    assert len(found([(box_of(1.6 * BORDER), 0.9)], [])) == 0


def test_a_large_face_has_the_points_of_the_small_copy_however_sure_the_canvas_is() -> None:
    right, beside = box_of(300), box_of(300, x=350)
    told = found([(beside, 0.99)], [(right, 0.6)])
    assert told.scores.tolist() == [np.float32(0.6)]
    np.testing.assert_allclose(told.boxes[0], right, atol=0.1)


@pytest.mark.parametrize("surer", [0, 1])
def test_around_the_border_the_surer_of_two_duplicates_stays(surer: int) -> None:
    boxes = box_of(BORDER), box_of(BORDER, x=330)
    scores = [0.7, 0.7]
    scores[surer] = 0.9
    told = found([(boxes[0], scores[0])], [(boxes[1], scores[1])])
    assert told.scores.tolist() == [np.float32(0.9)]
    np.testing.assert_allclose(told.boxes[0], boxes[surer], atol=0.1)


def test_faces_of_both_views_are_told_together_best_first() -> None:
    small, large = box_of(40, 60, 60), box_of(320, 420)
    told = found([(small, 0.7)], [(large, 0.9)])
    assert told.scores.tolist() == [np.float32(0.9), np.float32(0.7)]
    np.testing.assert_allclose(told.boxes, [large, small], atol=0.1)
    assert len(found([], [])) == 0


@pytest.mark.parametrize(("sure", "told"), [(0.6, [0.9]), (0.95, [0.95, 0.9])])
def test_a_piece_of_a_surer_near_face_is_not_told(sure: float, told: list[float]) -> None:
    near = box_of(320)
    for size, x, y in ((200, 300, 220), (120, 400, 300), (80, 250, 120)):  # half a face, an eye, an ear
        of = found([(box_of(size, x, y), sure)], [(near, 0.9)])
        assert of.scores.tolist() == [np.float32(score) for score in told]


def test_a_face_beside_a_near_one_or_inside_a_small_one_stays() -> None:
    near = box_of(320)
    edge = near[0]  # three quarters of this face lie in the near one
    assert len(found([(box_of(100, edge + 22), 0.6)], [(near, 0.9)])) == 2
    small = box_of(100)  # a mascot's face on a cap: nothing that fills the frame is there
    assert len(found([(small, 0.9), (box_of(30, y=205), 0.6)], [])) == 2


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), least=st.floats(0.0, 0.9), more=st.floats(0.01, 0.09))
def test_what_is_found_above_a_score_does_not_depend_on_what_is_below(
    seed: int, least: float, more: float
) -> None:
    random = np.random.default_rng(seed)
    seen = views(np.zeros((96, 128, 3), np.uint8), SPEC)
    outputs = []
    for view in seen:
        rows = quiet(view)
        rows[0][:] = random.random(len(rows[0])) ** 4
        outputs.append([rows[0], random.normal(0, 2, rows[1].shape).astype(np.float32), rows[2]])
    every, fewer = (faces_in(seen, outputs, SPEC, score) for score in (least, least + more))
    sure = every.scores >= least + more
    np.testing.assert_array_equal(every.boxes[sure], fewer.boxes)
    np.testing.assert_array_equal(every.scores[sure], fewer.scores)


@pytest.fixture(scope="module")
def default(repository: Path) -> Bundle:
    return open_bundle(repository / "models" / "default")


@pytest.fixture(scope="module")
def detector(default: Bundle) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = default.file(default.manifest.detector.file)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("fraction", [0.4, 0.6, 0.8, 1.0, 1.2])
@pytest.mark.parametrize("size", [(640, 480), (960, 1280)])
def test_a_face_that_fills_the_frame_is_found_with_its_points(
    default: Bundle, detector: onnxruntime.InferenceSession, size: tuple[int, int], fraction: float
) -> None:
    spec, portrait = default.manifest.detector, filling(fraction, size)
    canvas, placed = letterbox(portrait.picture, canvas_for(*size, spec.canvases))
    seen = views(canvas, spec)
    outputs = [
        [of[0] for of in detector.run(list(spec.outputs), {spec.input: view.pixels[None]})] for view in seen
    ]
    told = faces_in(seen, outputs, spec, spec.min_score)
    assert len(told) == 1
    assert iou(placed.to_picture(told.boxes), portrait.box[None])[0, 0] > 0.6
    apart = np.linalg.norm(placed.to_picture(told.landmarks)[0] - portrait.points, axis=1).mean()
    assert apart < 0.12 * portrait.eyes_apart  # measured: 0.03 to 0.08
