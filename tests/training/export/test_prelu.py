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

from training.export.parity import agreement, golden_crops
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
    crops = golden_crops()
    measured = agreement(embedder.graph.embed(crops), ServedGraph(target).embed(crops))
    assert measured.difference_most <= 1e-5


def test_where_a_convolution_feeds_it_one_pass_over_the_picture_is_saved(embedder, tmp_path: Path) -> None:
    target = tmp_path / "embedder.prelu-rewrite.onnx"
    rewrite_prelu(embedder.graph.path, target)
    after = operators(target)
    assert (after["Mul"], after["Add"] - operators(embedder.graph.path)["Add"]) == (33, 33)
    used = {name for node in onnx.load(target).graph.node for name in node.input}
    assert [of.name for of in onnx.load(target).graph.initializer if of.name not in used] == []


FLOAT = TensorProto.FLOAT


def written(
    path: Path, nodes: list, constants: dict[str, np.ndarray], shape: list, outputs: str = "y"
) -> Path:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(of.astype(np.float32), name) for name, of in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def answers(path: Path, x: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})


SLOPES = st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5)


@settings(max_examples=20, deadline=None)
@given(SLOPES, st.integers(0, 2**31))
def test_it_is_exact_for_any_slope(
    tmp_path_factory: pytest.TempPathFactory, slopes: list[float], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("prelu")
    slope = np.array(slopes, np.float32)[:, None]
    nodes = [helper.make_node("PRelu", ["x", "slope"], ["y"])]
    source = written(folder / "a.onnx", nodes, {"slope": slope}, ["n", len(slope), "w"])
    rewrite_prelu(source, folder / "b.onnx")
    x = np.random.default_rng(seed).normal(0, 10, (2, len(slope), 7)).astype(np.float32)
    (got,) = answers(folder / "b.onnx", x)
    np.testing.assert_allclose(got, np.where(x > 0, x, x * slope), rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(SLOPES, st.booleans(), st.integers(0, 2**31))
def test_so_it_is_behind_a_convolution(
    tmp_path_factory: pytest.TempPathFactory, slopes: list[float], biased: bool, seed: int
) -> None:
    """Slopes of 1 and above, too, for which nothing can be moved into the weights."""
    folder, random, channels = tmp_path_factory.mktemp("prelu"), np.random.default_rng(seed), len(slopes)
    constants = {
        "slope": np.array(slopes).reshape(-1, 1, 1),
        "w": random.normal(size=(channels, channels, 3, 3)),
        "b": random.normal(size=channels),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["c", "slope"], ["y"]),
    ]
    source = written(folder / "a.onnx", nodes, constants, [1, channels, 5, 5])
    rewrite_prelu(source, folder / "b.onnx")
    x = random.normal(0, 3, (1, channels, 5, 5)).astype(np.float32)
    (expected,), (got,) = answers(source, x), answers(folder / "b.onnx", x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("taken", ["an output", "another node"])
def test_what_somebody_else_takes_too_is_not_scaled(taken: str, tmp_path: Path) -> None:
    constants = {"slope": np.full((2, 1, 1), 0.25), "w": np.ones((2, 2, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("PRelu", ["c", "slope"], ["p"]),
        helper.make_node("Add", ["p", "c" if taken == "another node" else "p"], ["y"]),
    ]
    outputs = "yc" if taken == "an output" else "y"
    source = written(tmp_path / "a.onnx", nodes, constants, [1, 2, 3, 3], outputs)
    rewrite_prelu(source, tmp_path / "b.onnx")
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 3)).astype(np.float32)
    for expected, got in zip(answers(source, x), answers(tmp_path / "b.onnx", x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_weights_that_two_convolutions_share_are_scaled_for_one_alone(tmp_path: Path) -> None:
    constants = {"slope": np.full((2, 1, 1), 0.25), "w": np.ones((2, 2, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("PRelu", ["c", "slope"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    source = written(tmp_path / "a.onnx", nodes, constants, [1, 2, 3, 3])
    rewrite_prelu(source, tmp_path / "b.onnx")
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(
        answers(tmp_path / "b.onnx", x)[0], answers(source, x)[0], rtol=1e-5, atol=1e-6
    )


def test_a_graph_without_prelu_is_refused_and_nothing_is_written(detector, tmp_path: Path) -> None:
    with pytest.raises(NothingToRewrite):
        rewrite_prelu(detector.graph.path, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()
