"""A dense teacher's anchors are ours, and its layers lead each of our stages by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bundle.decode import AnchorLayout, anchors
from tests.training.detector.scrfd import write_scrfd
from training.config import BadConfig
from training.data.identities import BadData
from training.detector.backbones.slim_resnet import slim_resnet
from training.detector.retinanet import RetinaNet
from training.detector.teacher import Answers, Teacher, Ways, forced, refuse_other_anchors

SIDE = 64


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scrfd(tmp_path_factory.mktemp("teacher") / "teacher.onnx")


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
    with pytest.raises(BadData, match=r"has no tensor 'absent': teacher\.layers names"):
        Teacher(graph, ("absent",))


def test_it_is_called_by_its_file_and_digest(graph: Path) -> None:
    assert Teacher(graph).name == f"teacher.onnx sha256:{hashlib.sha256(graph.read_bytes()).hexdigest()}"


def of_another_kind(path: Path) -> Path:
    """A graph that takes a picture, and answers one map."""
    whole = onnx.load(write_scrfd(path))
    del whole.graph.output[1:]
    onnx.save(whole, path)
    return path


def test_what_is_no_dense_teacher_is_refused_by_name(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("no graph at all")
    (tmp_path / "half.onnx").write_bytes(graph.read_bytes()[:-2000])
    synthetic = tmp_path / "one.onnx"
    for path, told in (
        (tmp_path / "nowhere.onnx", "no such teacher; a dense teacher is an SCRFD graph"),
        (tmp_path / "notes.onnx", "not an ONNX graph|no SCRFD graph"),
        (tmp_path / "half.onnx", "not an ONNX graph|no SCRFD graph"),
        (of_another_kind(synthetic), r"no SCRFD graph with five points: it answers \(128, 1\)"),
    ):
        with pytest.raises(BadData, match=rf"{path.name}: ({told})") as refused:
            Teacher(path)
        assert "\n" not in str(refused.value)


def test_a_failure_without_a_word_is_told_by_its_kind(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Teacher, "ask", fails)
    with pytest.raises(BadData, match="no SCRFD graph with five points: RuntimeError"):
        Teacher(graph)


def test_anchors_that_are_not_its_own_are_refused() -> None:
    refuse_other_anchors(AnchorLayout())
    with pytest.raises(BadConfig, match="the configuration 2 of 4, 2 of 8"):
        refuse_other_anchors(AnchorLayout(strides=(4, 8), sizes=((16, 30), (58, 110))))


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
