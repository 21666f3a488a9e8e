"""The rewrite is the same function in other operators, whatever the slope."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from training.export.parity import check_variant, golden_crops
from training.export.prelu import NothingToRewrite, rewrite_prelu
from training.export.sessions import ServedGraph


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_every_prelu_is_rewritten_and_nothing_else_is_touched(embedder, tmp_path: Path) -> None:
    target = tmp_path / "embedder.prelu-rewrite.onnx"
    before = operators(embedder.graph.path)
    assert rewrite_prelu(embedder.graph.path, target) == before["PRelu"] == 33
    after = operators(target)
    assert after["PRelu"] == 0
    assert after["Relu"] - before["Relu"] == 33
    assert after["Conv"] == before["Conv"]


def test_the_rewritten_embedder_is_the_embedder(embedder, tmp_path: Path) -> None:
    target = tmp_path / "embedder.prelu-rewrite.onnx"
    rewrite_prelu(embedder.graph.path, target)
    measured = check_variant(embedder.graph, ServedGraph(target), golden_crops())
    assert measured["difference_most"] <= 1e-5


def single(path: Path, slope: np.ndarray) -> Path:
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["x", "slope"], ["y"])],
        "single",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(slope), "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(slope), "w"])],
        [numpy_helper.from_array(slope.reshape(-1, 1), "slope")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5), st.integers(0, 2**31))
def test_it_is_exact_for_any_slope(
    tmp_path_factory: pytest.TempPathFactory, slopes: list[float], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("prelu")
    slope = np.array(slopes, np.float32)
    source, target = single(folder / "a.onnx", slope), folder / "b.onnx"
    rewrite_prelu(source, target)
    x = np.random.default_rng(seed).normal(0, 10, (2, len(slope), 7)).astype(np.float32)
    got = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, np.where(x > 0, x, x * slope[:, None]), rtol=1e-5, atol=1e-5)


def test_a_graph_without_prelu_is_refused_and_nothing_is_written(detector, tmp_path: Path) -> None:
    with pytest.raises(NothingToRewrite):
        rewrite_prelu(detector.graph.path, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()
