"""With everything inside, the graph finds the faces that `bundle.decode` finds outside of it, in the same order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from bundle.decode import AnchorLayout, Detections, anchors, detections
from bundle.manifest import DetectorSpec
from training import __main__ as command
from training.data.scenes import draw_scene
from training.export import suppression
from training.export.onnx import OPSET
from training.export.sessions import ServedGraph
from training.export.suppression import with_suppression

WIDTH, HEIGHT = 96, 64
COUNT = len(anchors(WIDTH, HEIGHT, AnchorLayout()))
ANY = DetectorSpec(min_score=0.0, top_k=200)

Heads = tuple[np.ndarray, np.ndarray, np.ndarray]


def saying(folder: Path, heads: Heads) -> Path:
    """A detector that says `heads` ([n, a], [n, a, 4], [n, a, 10]) whatever it is shown."""
    told = ("told_score", "told_box", "told_landmark")
    model = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : {OPSET}]>
        told (uint8[n, h, w, 3] image) => (float[n, a] score, float[n, a, 4] box, float[n, a, 10] landmark) {{
            score = Identity (told_score)
            box = Identity (told_box)
            landmark = Identity (told_landmark)
        }}"""
    )
    model.graph.initializer.extend(map(numpy_helper.from_array, heads, told))
    onnx.save(model, folder / "told.onnx")
    return folder / "told.onnx"


def random_heads(seed: int, pictures: int = 2, count: int = COUNT) -> Heads:
    random = np.random.default_rng(seed)
    shapes = ((pictures, count, 4), (pictures, count, 10))
    deltas, offsets = (random.normal(0, 1, shape).astype(np.float32) for shape in shapes)
    return random.random((pictures, count), np.float32), deltas, offsets


def outside(heads: Heads, spec: DetectorSpec, width: int = WIDTH, height: int = HEIGHT) -> list[Detections]:
    limits = spec.anchors, spec.min_score, spec.nms_iou, spec.top_k
    return [detections(*rows, width, height, *limits) for rows in zip(*heads, strict=True)]


def inside(
    source: Path, spec: DetectorSpec, pictures: np.ndarray | None = None
) -> tuple[np.ndarray, Detections]:
    """The faces of all pictures, and in which picture each is."""
    target = source.with_name("whole.onnx")
    with_suppression(source, target, spec)
    blank = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    picture, box, landmark, score = ServedGraph(target).run(blank if pictures is None else pictures)
    return picture, Detections(box, landmark, score)


def check(expected: list[Detections], got: tuple[np.ndarray, Detections]) -> int:
    """Same faces, same order; returns how many."""
    picture, faces = got
    assert picture.dtype == np.int64
    assert picture.tolist() == [at for at, of in enumerate(expected) for _ in range(len(of))]
    for at, of in enumerate(expected):
        mine = picture == at
        assert np.array_equal(faces.scores[mine], of.scores)
        np.testing.assert_allclose(faces.boxes[mine], of.boxes, atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(faces.landmarks[mine], of.landmarks, atol=1e-3, rtol=1e-5)
    return len(picture)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "spec",
    [ANY, DetectorSpec(min_score=0.7, nms_iou=0.1), DetectorSpec(min_score=0.2, nms_iou=0.9, top_k=7)],
)
def test_random_answers_give_the_same_faces(seed: int, spec: DetectorSpec, tmp_path: Path) -> None:
    heads = random_heads(seed)
    assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) > 5


def test_equal_scores_keep_the_order_of_the_anchors(tmp_path: Path) -> None:
    """Every score is one of three: whoever comes first in the anchors' order is kept, here and there."""
    scores, deltas, offsets = random_heads(5)
    heads = np.round(scores * 2).astype(np.float32) / 2, deltas, offsets
    for spec in (ANY, ANY.model_copy(update={"top_k": 20})):
        assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) > 5


def test_a_score_of_exactly_the_limit_counts(tmp_path: Path) -> None:
    scores, deltas, offsets = random_heads(6)
    scores[:] = 0.25
    scores[0, 3], scores[1, 9] = 0.3, np.nextafter(np.float32(0.3), np.float32(0))
    spec = DetectorSpec(min_score=0.3)
    heads = scores, deltas, offsets
    assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) == 1


def test_where_there_is_no_face_there_are_no_rows(tmp_path: Path) -> None:
    scores, deltas, offsets = random_heads(7)
    spec = DetectorSpec(min_score=0.5)
    scores[0] = 0.1
    heads = scores, deltas, offsets
    assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) > 0
    scores[1] = 0.1
    assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) == 0
    faces = inside(saying(tmp_path, heads), spec)[1]
    assert (faces.boxes.shape, faces.landmarks.shape) == ((0, 4), (0, 5, 2))


def test_more_faces_than_the_most_are_cut_before_they_suppress(tmp_path: Path) -> None:
    """All anchors are sure and apart from one another: the best `top_k` of each picture are left, no more."""
    scores, deltas, offsets = random_heads(8)
    deltas[..., 2:] = -12  # every box shrinks to a few pixels
    spec = DetectorSpec(min_score=0.0, top_k=11, nms_iou=1.0)
    heads = scores, deltas, offsets
    assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) == 2 * 11


def test_a_wild_delta_stays_a_finite_box(tmp_path: Path) -> None:
    scores, deltas, offsets = random_heads(9, pictures=1)
    deltas[0, :50, 2:] = 1e6
    heads = scores, deltas, offsets
    blank = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    expected = outside(heads, ANY)
    assert np.isfinite(expected[0].boxes).all()
    check(expected, inside(saying(tmp_path, heads), ANY, blank))


def test_the_anchors_of_any_layout_are_laid(tmp_path: Path) -> None:
    layout = AnchorLayout(strides=(4, 8), sizes=((5.5,), (16, 30, 44)), aspect=0.7, variances=(0.3, 0.1))
    count = len(anchors(WIDTH, HEIGHT, layout))
    heads, spec = random_heads(10, count=count), ANY.model_copy(update={"anchors": layout})
    assert check(outside(heads, spec), inside(saying(tmp_path, heads), spec)) > 5


@pytest.mark.parametrize(("width", "height"), [(96, 64), (101, 70), (64, 33), (1, 200), (250, 1)])
@pytest.mark.parametrize("pictures", [1, 5])
def test_drawn_pictures_of_any_size_show_the_same_faces(
    detector, width: int, height: int, pictures: int, tmp_path: Path
) -> None:
    """What is no multiple of the strides is on a black canvas, at its top left."""
    scene = np.stack([draw_scene(number, 256, 200).pixels[:height, :width] for number in range(pictures)])
    wide, tall = -(-width // 32) * 32, -(-height // 32) * 32
    canvas = np.zeros((pictures, tall, wide, 3), np.uint8)
    canvas[:, :height, :width] = scene
    heads = detector.graph.run(canvas)
    source = tmp_path / "detector.onnx"
    source.write_bytes(detector.graph.path.read_bytes())
    assert check(outside(heads, ANY, wide, tall), inside(source, ANY, scene)) > 0


def test_the_ends_are_named_and_free(detector, tmp_path: Path) -> None:
    with_suppression(detector.graph.path, tmp_path / "whole.onnx", ANY)
    model = onnx.load(tmp_path / "whole.onnx")
    (given,) = model.graph.input
    assert (given.name, given.type.tensor_type.elem_type) == ("image", TensorProto.UINT8)
    assert [of.dim_param or of.dim_value for of in given.type.tensor_type.shape.dim] == ["n", "h", "w", 3]
    kinds = {of.name: of.type.tensor_type.elem_type for of in model.graph.output}
    floats = dict.fromkeys(("box", "landmark", "score"), TensorProto.FLOAT)
    assert kinds == {"picture": TensorProto.INT64, **floats}
    assert [(of.domain, of.version) for of in model.opset_import] == [("", OPSET)]


def test_a_bundle_s_detector_is_written_by_the_verb(
    detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(detector=ANY), file=lambda name: detector.graph.path.with_name(name)
    )
    monkeypatch.setattr(suppression, "open_bundle", lambda path: bundle)
    target = tmp_path / "new" / "detector.nms.onnx"
    assert command.main(["one-graph", "--bundle", str(tmp_path), "--to", str(target)]) == 0
    assert len(ServedGraph(target).run(np.zeros((1, 64, 64, 3), np.uint8))) == 4
    assert capsys.readouterr().out == f"{target}: picture, box, landmark and score of faces from 0 on\n"
