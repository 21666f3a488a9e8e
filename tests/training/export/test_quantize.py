"""int8 in the form that TensorRT parses, calibrated on pictures and on nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from training.config import BadConfig
from training.data.annotations.intake import photographs
from training.data.identities import Faces
from training.data.scenes import draw_scene
from training.data.widerface import wider
from training.export import quantize
from training.export.onnx import OPSET
from training.export.parity import agreement
from training.export.quantize import (
    WINDOW,
    BadCalibrationData,
    Pictures,
    crops_to_calibrate,
    layers,
    to_int8,
    windows_to_calibrate,
)
from training.export.sessions import ServedGraph


@pytest.fixture(scope="module")
def quantised(tiny, many_faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "int8.onnx"
    assert to_int8(tiny.graph.path, target, crops_to_calibrate(many_faces, 12)) == layers(tiny.graph.path)
    return target


def test_each_layer_takes_a_pair_for_its_input_and_one_for_its_weights(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    makers = {output: node for node in graph.node for output in node.output}
    found = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(found) == 4
    for node in found:
        taken, weights = (makers[name] for name in node.input[:2])
        assert (taken.op_type, weights.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert makers[taken.input[0]].op_type == "QuantizeLinear"
        assert weights.input[0] not in makers  # stored as int8


def test_scales_are_symmetric_and_of_each_output_channel(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    constants = {of.name: numpy_helper.to_array(of) for of in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (constants[node.input[1]] > 0).all()
    weights = [constants[node.input[1]].size for node in pairs if node.input[0] in constants]
    assert sorted(weights) == [8, 8, 12, 16]


def test_nothing_that_tensorrt_cannot_read_is_in_it(quantised: Path) -> None:
    model = onnx.load(quantised)
    operators = Counter(node.op_type for node in model.graph.node)
    assert not [name for name in operators if name.startswith("QLinear") or "Integer" in name]
    assert {of.domain for of in model.opset_import} == {""}
    assert model.opset_import[0].version == OPSET
    assert not model.metadata_props
    kinds = Counter(of.data_type for of in model.graph.initializer)
    assert kinds[TensorProto.INT32] == 0  # biases stay in float
    assert kinds[TensorProto.UINT8] == 0
    assert [node.op_type for node in model.graph.node if "image" in node.input] == ["Cast"]


def test_it_is_smaller_and_near_and_takes_any_batch(tiny, quantised: Path, many_faces: Faces) -> None:
    crops, graph = many_faces.crops(), ServedGraph(quantised)
    assert agreement(tiny.graph.embed(crops), graph.embed(crops)).cosine_p1 > 0.98
    np.testing.assert_allclose(graph.run(crops[:3])[0], graph.embed(crops[:3]), atol=1e-3)


def test_the_same_pictures_give_the_same_bytes(
    tiny, quantised: Path, many_faces: Faces, tmp_path: Path
) -> None:
    to_int8(tiny.graph.path, tmp_path / "again.onnx", crops_to_calibrate(many_faces, 12))
    assert (tmp_path / "again.onnx").read_bytes() == quantised.read_bytes()


def test_an_excluded_layer_stays_in_float(tiny, many_faces: Faces, tmp_path: Path) -> None:
    first, *rest = layers(tiny.graph.path)
    target = tmp_path / "int8.onnx"
    assert to_int8(tiny.graph.path, target, crops_to_calibrate(many_faces, 4), exclude=[first]) == tuple(rest)
    graph = onnx.load(target).graph
    given = next(node for node in graph.node if node.name == first)
    assert given.input[1] in {of.name for of in graph.initializer if of.data_type == TensorProto.FLOAT}


def test_an_unknown_layer_is_refused_and_the_known_are_listed(
    tiny, many_faces: Faces, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=r"no layer /typo; it has .*Conv"):
        to_int8(tiny.graph.path, tmp_path / "a.onnx", crops_to_calibrate(many_faces, 4), exclude=["/typo"])


NOISE = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), np.uint8)


@pytest.mark.parametrize(
    ("pictures", "complaint"),
    [
        (NOISE, "noise, not photographs"),
        (np.zeros((8, 112, 112, 3), np.uint8), "noise, not photographs"),
        (NOISE.astype(np.float32) / 127.5 - 1, "takes bytes"),
        (NOISE.transpose(0, 3, 1, 2), "takes bytes"),
        (NOISE[0], "takes bytes"),
        (NOISE[:3], "3 pictures are too few"),
        (NOISE[:0], "0 pictures are too few"),
    ],
)
def test_random_or_wrongly_prepared_data_are_refused(pictures: np.ndarray, complaint: str) -> None:
    with pytest.raises(BadCalibrationData, match=complaint):
        Pictures(pictures)


def test_pictures_are_handed_out_once_each_as_the_service_sends_them(many_faces: Faces) -> None:
    crops = many_faces.crops()[:5]
    reader = Pictures(crops)
    given = []
    while (feed := reader.get_next()) is not None:
        assert list(feed) == ["image"]
        assert feed["image"].flags.c_contiguous
        given.append(feed["image"][0])
    assert np.array_equal(np.stack(given), crops)
    assert reader.get_next() is None
    reader.set_range(1, 3)
    some = [feed["image"][0] for feed in iter(reader.get_next, None)]
    assert np.array_equal(np.stack(some), crops[1:3])
    assert len(reader) == 5


def test_everybody_gives_a_face_before_anybody_gives_a_second(many_faces: Faces) -> None:
    everyone = {
        crop.tobytes(): who for crop, who in zip(many_faces.crops(), many_faces.identity, strict=True)
    }
    people = [everyone[crop.tobytes()] for crop in crops_to_calibrate(many_faces, 18)]
    assert len(set(people[:12])) == 12
    assert len(people) == 18
    assert len(crops_to_calibrate(many_faces, 1000)) == len(many_faces)
    assert np.array_equal(crops_to_calibrate(many_faces, 18), crops_to_calibrate(many_faces, 18))
    assert not np.array_equal(crops_to_calibrate(many_faces, 18), crops_to_calibrate(many_faces, 18, seed=1))


def test_windows_are_of_canvases_of_photographs_that_are_trained_on(
    drawn_sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is of a picture held out for selection or of the claim's; each shows a face."""
    root, read = drawn_sets.root / "wider", []

    def watched(of, **options):
        for one in photographs(of, **options):
            read.append(one.name)
            yield one

    monkeypatch.setattr(quantize, "photographs", watched)
    windows = windows_to_calibrate(root, 8)
    assert windows.shape == (8, WINDOW[1], WINDOW[0], 3)
    trained = {one.name for one in wider(root, "train")}
    assert len(set(read)) == 8
    assert set(read) < trained
    assert np.array_equal(windows, windows_to_calibrate(root, 8))
    assert not np.array_equal(windows, windows_to_calibrate(root, 8, seed=1))
    assert len(windows_to_calibrate(root, 1000)) == len(trained)


def test_a_detector_s_layers_are_quantised_as_an_embedder_s(detector, drawn_sets, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    done = to_int8(detector.graph.path, target, windows_to_calibrate(drawn_sets.root / "wider", 6))
    assert done == layers(detector.graph.path)
    graph = onnx.load(target).graph
    constants = {of.name: numpy_helper.to_array(of) for of in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 2 * len(done)
    assert all(constants[node.input[2]].dtype == np.int8 for node in pairs)
    assert not any(constants[node.input[2]].any() for node in pairs)
    assert {of.data_type for of in graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT8,
        TensorProto.INT64,
    }
    scores = [
        ServedGraph(path).run(np.stack([draw_scene(0, 96, 64).pixels]))[0]
        for path in (detector.graph.path, target)
    ]
    np.testing.assert_allclose(*scores, atol=0.05)
