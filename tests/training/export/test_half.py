"""Half precision: the same function to three digits, bytes in and float32 out, and nothing beyond float16's range."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.export.half import NotForHalf, to_half
from training.export.parity import agreement, golden_crops, golden_scenes
from training.export.sessions import ServedGraph


def test_the_ends_stay_what_they_are_and_the_layers_are_halved(tiny, tmp_path: Path) -> None:
    target = tmp_path / "half.onnx"
    assert to_half(tiny.graph.path, target) > 0
    graph = onnx.load(target).graph
    kinds = {of.name: of.type.tensor_type.elem_type for of in (*graph.input, *graph.output)}
    assert kinds == {"image": TensorProto.UINT8, "embedding": TensorProto.FLOAT}
    constants = {of.name: of.data_type for of in graph.initializer}
    weighted = [name for of in graph.node if of.op_type in ("Conv", "Gemm") for name in of.input[1:]]
    assert {constants[name] for name in weighted} == {TensorProto.FLOAT16}
    assert target.stat().st_size < 0.75 * tiny.graph.path.stat().st_size


def test_normalisation_and_length_are_computed_in_float32(tiny, tmp_path: Path) -> None:
    to_half(tiny.graph.path, tmp_path / "half.onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "half.onnx"))
    kinds = {of.name: of.type.tensor_type.elem_type for of in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type in ("Sub", "Div", "ReduceL2"):
            assert kinds.get(node.output[0], TensorProto.FLOAT) == TensorProto.FLOAT, node.op_type
    assert (
        np.abs(np.linalg.norm(ServedGraph(tmp_path / "half.onnx").embed(golden_crops()), axis=1) - 1).max()
        < 1e-6
    )


def test_the_embedder_stays_the_embedder_in_any_batch(embedder, tmp_path: Path) -> None:
    to_half(embedder.graph.path, tmp_path / "half.onnx")
    half, crops = ServedGraph(tmp_path / "half.onnx"), golden_crops()
    assert agreement(embedder.graph.embed(crops), half.embed(crops)).cosine_least > 0.999
    np.testing.assert_allclose(half.run(crops)[0], half.embed(crops), atol=1e-3)


def test_a_graph_with_branches_and_many_outputs_too(detector, tmp_path: Path) -> None:
    to_half(detector.graph.path, tmp_path / "half.onnx")
    scene = golden_scenes(96, 64)
    for whole, half in zip(
        detector.graph.run(scene), ServedGraph(tmp_path / "half.onnx").run(scene), strict=True
    ):
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, whole, atol=0.05 * np.abs(whole).max())


def written(path: Path, nodes: list, constants: dict[str, np.ndarray], shape: list) -> Path:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(of, name) for name, of in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_weight_beyond_the_range_is_refused_by_name(tmp_path: Path) -> None:
    heavy = np.full((2, 2), 1e5, np.float32)
    path = written(
        tmp_path / "a.onnx", [helper.make_node("MatMul", ["x", "heavy"], ["y"])], {"heavy": heavy}, [1, 2]
    )
    with pytest.raises(NotForHalf, match=r"heavy holds 1e\+05"):
        to_half(path, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, [1, 2])
    with pytest.raises(NotForHalf, match="no layer with weights"):
        to_half(path, tmp_path / "b.onnx")


def test_a_constant_and_a_tensor_that_both_sides_use_keep_both_forms(tmp_path: Path) -> None:
    """`w` is used by a layer and by the end; `m` is used between two layers and by the end; a resize's scales are not
    halved; a cast to float32 between layers becomes one to float16."""
    eye = np.eye(4, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["c", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("MatMul", ["r", "w"], ["last"]),
        helper.make_node("Add", ["last", "w"], ["sum"]),
        helper.make_node("Add", ["sum", "m"], ["y"]),
    ]
    constants = {"w": eye, "scales": np.ones(2, np.float32)}
    path = written(tmp_path / "a.onnx", nodes, constants, [4, 4])
    assert to_half(path, tmp_path / "b.onnx") == 1
    kept = {of.name: of.data_type for of in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert kept == {"w": TensorProto.FLOAT, "w_half": TensorProto.FLOAT16, "scales": TensorProto.FLOAT}
    x = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * x + eye, atol=2e-3)


def test_nothing_is_left_over(tiny, tmp_path: Path) -> None:
    to_half(tiny.graph.path, tmp_path / "half.onnx")
    graph = onnx.load(tmp_path / "half.onnx").graph
    used = Counter(name for node in graph.node for name in node.input)
    assert [of.name for of in graph.initializer if not used[of.name]] == []
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert len(casts) == len({(node.input[0], node.attribute[0].i) for node in casts})
