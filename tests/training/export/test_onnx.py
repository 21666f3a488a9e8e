"""The graph is what the service expects: names, types, free sizes, everything inside one file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from bundle.decode import AnchorLayout, anchors, detections
from bundle.manifest import DetectorSpec
from bundle.preprocess import enclosing
from tests.training.export.conftest import SLIM, settle, settled_on_scenes
from training.detector.config import Backbone, DetectorConfig
from training.embedder.backbones import backbone
from training.export.onnx import OPSET, export_detector, export_embedder
from training.export.parity import check_detector, check_embedder
from training.export.sessions import ServedGraph


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [of.dim_param or of.dim_value for of in value.type.tensor_type.shape.dim]


def test_the_embedder_takes_bytes_and_gives_float_vectors(embedder) -> None:
    graph = onnx.load(embedder.graph.path).graph
    (given,), (got,) = graph.input, graph.output
    assert (given.name, shape(given), given.type.tensor_type.elem_type) == (
        "image",
        ["n", 112, 112, 3],
        TensorProto.UINT8,
    )
    assert (got.name, shape(got), got.type.tensor_type.elem_type) == (
        "embedding",
        ["n", 32],
        TensorProto.FLOAT,
    )


def test_the_detector_takes_any_canvas_and_names_its_outputs(detector) -> None:
    graph = onnx.load(detector.graph.path).graph
    assert shape(graph.input[0]) == ["n", "h", "w", 3]
    assert [(of.name, shape(of)) for of in graph.output] == [
        ("score", ["n", "a"]),
        ("box", ["n", "a", 4]),
        ("landmark", ["n", "a", 10]),
    ]


@pytest.mark.parametrize("which", ["embedder", "detector"])
def test_bytes_become_floats_before_anything_else(which: str, request: pytest.FixtureRequest) -> None:
    """TensorRT takes uint8 into a Cast and into nothing else."""
    graph = onnx.load(request.getfixturevalue(which).graph.path).graph
    assert [node.op_type for node in graph.node if "image" in node.input] == ["Cast"]


def test_a_matrix_at_the_end_takes_in_the_normalisation_that_follows_it(tiny) -> None:
    operators = Counter(node.op_type for node in onnx.load(tiny.graph.path).graph.node)
    assert (operators["Gemm"], operators["BatchNormalization"]) == (1, 0)
    assert check_embedder(tiny.module, tiny.graph).exact


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mbf", "iresnet18"])
def test_every_family_of_backbones_is_exported_exactly(name: str, tmp_path) -> None:
    model = settle(backbone(name, 64), 112)
    served = export_embedder(model, tmp_path / "embedder.onnx")
    assert check_embedder(served, ServedGraph(tmp_path / "embedder.onnx")).exact


def levels(*strides: int) -> AnchorLayout:
    """An anchor a cell, as large as four of it."""
    return AnchorLayout(strides=strides, sizes=tuple((4.0 * of,) for of in strides))


SLIM_LEVELS = [(4, 8, 16, 32, 64, 128), (8, 16), (16,)]
RESNET50 = DetectorConfig(backbone=Backbone(name="resnet50"), pyramid=256)


@pytest.mark.parametrize(
    "config",
    [
        *(
            DetectorConfig(backbone=Backbone(name=name, width=0.25), pyramid=16)
            for name in ("resnet18", "resnet34", "mobilenet")
        ),
        *(SLIM.model_copy(update={"anchors": levels(*strides)}) for strides in SLIM_LEVELS),
        pytest.param(RESNET50, marks=pytest.mark.slow),
    ],
    ids=lambda of: f"{of.backbone.name} {'-'.join(map(str, of.anchors.strides))}",
)
def test_every_backbone_and_every_choice_of_levels_is_exported_exactly(
    config: DetectorConfig, tmp_path: Path
) -> None:
    """On canvas and small copy; of random weights a ResNet-50's answers are off by the most, so they are kept small."""
    gain = 1.0 if config is RESNET50 else 2.0
    served = export_detector(settled_on_scenes(config, gain), tmp_path / "detector.onnx")
    canvas = enclosing((256, 192), max(config.anchors.strides))
    spec = DetectorSpec(anchors=config.anchors, canvases=(canvas,))
    assert check_detector(served, ServedGraph(tmp_path / "detector.onnx"), spec).compared_on > 0


@pytest.mark.parametrize("which", ["embedder", "detector"])
def test_no_normalisation_layer_and_no_second_file_is_left(
    which: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(which).graph.path
    model = onnx.load(path, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    assert (operators["BatchNormalization"], operators["Identity"]) == (0, 0)
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert [of.name for of in path.parent.iterdir()] == [path.name]
    assert [(of.domain, of.version) for of in model.opset_import] == [("", OPSET)]


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (480, 640)])
def test_the_detector_s_anchors_are_those_that_are_decoded(detector, size: tuple[int, int]) -> None:
    height, width = size
    scores, boxes, landmarks = detector.graph.run(np.zeros((2, height, width, 3), np.uint8))
    count = len(anchors(width, height, AnchorLayout()))
    assert (scores.shape, boxes.shape, landmarks.shape) == ((2, count), (2, count, 4), (2, count, 10))
    assert 0 <= scores.min() <= scores.max() <= 1


@pytest.mark.parametrize("size", [(64, 96), (192, 32)])
def test_a_picture_s_answer_does_not_depend_on_its_batch(detector, size: tuple[int, int]) -> None:
    pictures = np.random.default_rng(3).integers(0, 256, (5, *size, 3), np.uint8)
    together = detector.graph.run(pictures)
    for at, picture in enumerate(pictures):
        for whole, alone in zip(together, detector.graph.run(picture[None]), strict=True):
            np.testing.assert_allclose(whole[at], alone[0], atol=1e-5)


@pytest.mark.parametrize("size", [(64, 90), (70, 96), (100, 100), (16, 16)])
def test_a_canvas_that_the_strides_do_not_divide_fails(detector, size: tuple[int, int]) -> None:
    """Levels of the pyramid no longer lie on one another."""
    with pytest.raises(Fail, match="Add"):
        detector.graph.run(np.zeros((1, *size, 3), np.uint8))


@pytest.mark.parametrize("size", [(63, 64), (64, 61), (1, 1)])
def test_where_it_answers_for_a_larger_canvas_its_answer_is_not_misread(
    detector, size: tuple[int, int]
) -> None:
    height, width = size
    outputs = [of[0] for of in detector.graph.run(np.zeros((1, height, width, 3), np.uint8))]
    with pytest.raises(ValueError, match=f"canvas {width} × {height} is not a positive multiple of 32"):
        detections(*outputs, width, height, AnchorLayout(), 0.5, 0.4, 100)


def test_exporting_leaves_the_model_as_it_was(settled_embedder, tmp_path) -> None:
    before = {name: of.clone() for name, of in settled_embedder.state_dict().items()}
    export_embedder(settled_embedder, tmp_path / "again.onnx")
    after = settled_embedder.state_dict()
    assert before.keys() == after.keys()
    assert all(bool((before[name] == after[name]).all()) for name in before)


def test_the_same_model_is_exported_to_the_same_bytes(embedder, settled_embedder, tmp_path) -> None:
    export_embedder(settled_embedder, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == embedder.graph.path.read_bytes()
