"""A dense teacher's anchors are ours, and its layers lead each of our stages by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bundle.decode import AnchorLayout, anchors
from training.config import BadConfig
from training.data.identities import BadData
from training.detector.backbones.slim_resnet import slim_resnet
from training.detector.retinanet import RetinaNet
from training.detector.teacher import Answers, Teacher, Ways, forced

SIDE = 64


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says of every anchor: score 0.25, two strides to each edge of the box, points on the anchor's centre."""
    nodes: list[Any] = []
    outputs, constants = [], []
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node(
                "AveragePool", ["picture"], [f"mean{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        for name, width, value in (("score", 1, 0.25), ("box", 4, 2.0), ("points", 10, 0.0)):
            kernel = np.zeros((2 * width, 3, 1, 1), np.float32)
            bias = np.full(2 * width, value, np.float32)
            constants += [
                numpy_helper.from_array(kernel, f"k{name}{stride}"),
                numpy_helper.from_array(bias, f"b{name}{stride}"),
                numpy_helper.from_array(np.array([-1, width]), f"s{name}{stride}"),
            ]
            last = f"{name}{stride}"
            nodes += [
                helper.make_node("Conv", [f"mean{stride}", f"k{last}", f"b{last}"], [f"c{last}"]),
                helper.make_node("Transpose", [f"c{last}"], [f"t{last}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t{last}", f"s{last}"], [last]),
            ]
            outputs.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", width]))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 640, 640])
    model = helper.make_model(
        helper.make_graph(nodes, "teacher", [picture], outputs, constants),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    onnx.save(model, path)
    return path


def test_each_answer_is_of_the_anchor_with_its_index(graph: Path) -> None:
    layout = AnchorLayout(sizes=((16, 32), (64, 128), (256, 512)))
    laid = anchors(SIDE, SIDE, layout)
    answers = Teacher(graph).ask(np.zeros((2, SIDE, SIDE, 3), np.uint8))
    assert answers.scores.shape == (2, len(laid))
    assert (answers.scores == 0.25).all()
    strides = np.repeat([8, 16, 32], [128, 32, 8])
    # it counts a cell's place from the cell's corner, we from its middle
    middle = (answers.boxes[0, :, :2] + answers.boxes[0, :, 2:]).numpy() / 2
    np.testing.assert_allclose(laid[:, :2] - middle, np.repeat(strides[:, None] / 2, 2, 1), atol=1e-4)
    extent = (answers.boxes[0, :, 2:] - answers.boxes[0, :, :2]).numpy()
    np.testing.assert_allclose(extent, np.repeat(4.0 * strides[:, None], 2, 1))
    assert answers.features == []


def test_its_layers_come_along_where_they_are_named(graph: Path) -> None:
    teacher = Teacher(graph, ("mean8", "mean16", "mean32"))
    crops = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    features = teacher.ask(crops).features
    assert [tuple(of.shape) for of in features] == [(2, 3, 8, 8), (2, 3, 4, 4), (2, 3, 2, 2)]
    assert [len(of) for of in teacher.scales(crops)] == [3, 3, 3]
    for of in teacher.ask(crops).features:  # from now on in units of what they were on these crops
        assert of.float().square().mean().item() == pytest.approx(1, rel=0.02)
    with pytest.raises(BadData, match="has no tensor 'absent'"):
        Teacher(graph, ("absent",))


@pytest.fixture
def model() -> RetinaNet:
    torch.manual_seed(0)
    return RetinaNet(slim_resnet((8, 8, 12, 16), (1, 1, 1, 1)), 8).eval()


def answers_of(model: RetinaNet, picture: torch.Tensor) -> Answers:
    """As a teacher would who is the model itself."""
    return Answers(*(torch.zeros(1, 1) for _ in range(3)), model.features(picture))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_on_either_way(model: RetinaNet) -> None:
    picture = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        said = answers_of(model, picture)
        ways = Ways(model, [torch.ones(len(of[0])) for of in said.features], 4, 2, compiled=False)
        plain = model(picture)
        for step in (0, 3):
            hint, outputs = ways(picture, said, step)
            assert hint is not None
            assert hint.item() == pytest.approx(0, abs=1e-8)
            for ours, expected in zip(outputs, plain, strict=True):
                torch.testing.assert_close(ours, expected)
        assert ways(picture, said, 4)[0] is None
        assert ways(picture, None, 0)[0] is None


def test_a_forced_stage_learns_from_the_teacher_s_input_alone(model: RetinaNet) -> None:
    features = [torch.randn(1, c, SIDE // s, SIDE // s) for c, s in ((8, 8), (12, 16), (16, 32))]
    made, _ = forced(model, torch.randn(1, 3, SIDE, SIDE), features)
    made[2].sum().backward()
    assert all(p.grad is None for p in model.backbone.stem.parameters())
    assert all(p.grad is None for p in model.backbone.stages[:3].parameters())
    assert any(p.grad is not None for p in model.backbone.stages[3].parameters())


def test_layers_of_other_widths_are_refused_before_the_first_step(model: RetinaNet) -> None:
    with pytest.raises(BadConfig, match=r"\[4, 4, 4\] channels, our stages \[8, 12, 16\]"):
        Ways(model, [torch.ones(4)] * 3, 4, 2, compiled=False)
