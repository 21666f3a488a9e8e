"""What a student is drawn to: known values of the distances, and a teacher's answers that are asked for once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.training.embedder.tiny import Colours, Tiny, tiny
from training.config import BadConfig
from training.data.identities import BadData, Faces, load_faces
from training.data.shards import write_shards
from training.embedder import distillation
from training.embedder.distillation import (
    ReferenceEmbedder,
    ServedTeacher,
    TorchTeacher,
    cosine_distance,
    normalise,
    open_teacher,
    reference_input,
    relational_distance,
    teacher_targets,
)
from training.embedder.student import build
from training.loop import checkpoint
from training.loop.checkpoint import UnreadableCheckpoint


def random(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# distances


def test_the_cosine_distance_is_nought_for_one_direction_and_two_for_the_opposite() -> None:
    teacher = random(5, 8)
    assert cosine_distance(3 * teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distance(-teacher, teacher).item() == pytest.approx(2, abs=1e-6)
    right = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert cosine_distance(right, torch.tensor([[0.0, 1.0], [0.0, 1.0]])).item() == pytest.approx(0.5)


def test_the_relational_distance_of_three_faces_is_the_one_by_hand() -> None:
    """Ours at 0°, 90° and 180°, theirs at 0°, 90° and 270°, on the unit circle."""
    ours = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    theirs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    leg, long = math.sqrt(2), 2.0
    mean = (2 * leg + long) / 3
    # pairs 01, 02, 12: ours leg, long, leg; theirs leg, leg, long
    by_distance = 2 * 0.5 * ((long - leg) / mean) ** 2 / 3
    # cosines of the angles at each corner: ours 45°, 90°, 45°; theirs 90°, 45°, 45°; each stands twice in 27
    half = math.cos(math.pi / 4)
    by_angle = 2 * 2 * 0.5 * half**2 / 27
    found = relational_distance(ours, theirs)
    assert found.item() == pytest.approx(by_distance + 2 * by_angle, rel=1e-5)


def test_a_turned_and_stretched_copy_has_the_same_relations() -> None:
    teacher = random(7, 5)
    turn = torch.linalg.qr(random(9, 9, 1)).Q[:5]  # into more dimensions
    length = 1 + torch.arange(7)[:, None]
    assert relational_distance(length * (teacher @ turn), teacher).item() == pytest.approx(0, abs=1e-9)
    assert relational_distance(random(7, 9, 2), teacher).item() > 0.01


def test_a_collapsed_student_has_a_finite_gradient() -> None:
    same = torch.ones(4, 6, requires_grad=True)
    near = (torch.ones(4, 6) + 1e-4 * random(4, 6).float()).requires_grad_()
    for student in (same, near):
        loss = relational_distance(student, random(4, 3).float())
        loss.backward()
        assert loss > 0
        assert torch.isfinite(student.grad).all()
    assert near.grad.any()


def test_the_relational_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # otherwise as they are: in float32
    teacher = random(5, 3, 4)
    student = random(5, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda of: relational_distance(of, teacher), student)


def test_two_faces_have_no_relations() -> None:
    with pytest.raises(ValueError, match="three faces or more, got 2"):
        relational_distance(random(2, 4), random(2, 4))


def test_distances_are_in_float32_whatever_autocast_says() -> None:
    student, teacher = random(4, 8).bfloat16(), random(4, 8, 1).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert cosine_distance(student, teacher).dtype == torch.float32
        assert relational_distance(student, teacher).dtype == torch.float32


# the teacher's targets


def targets(faces: Faces, cache: Path, teacher: Any = None) -> np.ndarray:
    return teacher_targets(teacher or Colours(), faces.crops(), cache)


def test_a_target_is_the_face_s_and_its_mirror_image_s_direction_together(
    drawn_faces: Faces, tmp_path: Path
) -> None:
    found = targets(drawn_faces, tmp_path)
    crops, teacher = drawn_faces.crops(), Colours()
    expected = teacher.embed(crops) + teacher.embed(crops[:, :, ::-1])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_teacher_is_asked_once_for_the_same_pictures(drawn_faces: Faces, tmp_path: Path) -> None:
    teacher = Colours()
    first = targets(drawn_faces, tmp_path, teacher)
    asked = teacher.asked
    np.testing.assert_array_equal(targets(drawn_faces, tmp_path, teacher), first)
    assert teacher.asked == asked == 2 * len(drawn_faces)
    teacher.digest = "another"
    targets(drawn_faces, tmp_path, teacher)
    assert teacher.asked == 2 * asked
    other = np.ascontiguousarray(drawn_faces.crops()[::-1])
    assert not np.array_equal(teacher_targets(teacher, other, tmp_path), first)
    assert len(list(tmp_path.iterdir())) == 3  # and nothing half-done is left


def test_one_changed_face_among_many_is_asked_about_anew(tmp_path: Path) -> None:
    class Brightness(Colours):
        def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
            self.asked += len(crops)
            angle = crops[:, 56, 56, 0] / 255
            return np.pad(np.stack([np.cos(angle), np.sin(angle)], 1), ((0, 0), (0, 14))).astype(np.float32)

    crops = np.zeros((2048, 112, 112, 3), np.uint8)
    teacher = Brightness()
    before = teacher_targets(teacher, crops, tmp_path)
    crops[1023, 56, 56, 0] = 200
    after = teacher_targets(teacher, crops, tmp_path)
    assert teacher.asked == 2 * 2 * 2048
    assert np.flatnonzero((after != before).any(1)).tolist() == [1023]


def test_an_interrupted_teacher_goes_on_where_it_was(
    drawn_faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "CHUNK", 4)
    whole = targets(drawn_faces, tmp_path / "whole")

    class Interrupted(Colours):
        def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
            if self.asked >= 20:
                raise KeyboardInterrupt
            return super().embed(crops, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        targets(drawn_faces, tmp_path / "parts", Interrupted())
    (left,) = (tmp_path / "parts").iterdir()
    left.write_bytes(left.read_bytes() + b"torn")
    teacher = Colours()
    np.testing.assert_array_equal(targets(drawn_faces, tmp_path / "parts", teacher), whole)
    assert teacher.asked == 2 * (16 - 8)


def test_pictures_that_stay_in_their_files_are_asked_about_alike(drawn_faces: Faces, tmp_path: Path) -> None:
    rows = [(of, f"p{who}", "drawn") for of, who in zip(drawn_faces.pictures, drawn_faces.label, strict=True)]
    write_shards(tmp_path / "set", rows)
    encoded, decoded = (load_faces(tmp_path / "set", decoded=most) for most in (0, 100))
    np.testing.assert_array_equal(targets(encoded, tmp_path / "e"), targets(decoded, tmp_path / "d"))


def test_a_cache_that_cannot_be_used_is_named(drawn_faces: Faces, tmp_path: Path) -> None:
    targets(drawn_faces, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    with pytest.raises(BadData, match=rf"{file.name} cannot be read .*: delete it"):
        targets(drawn_faces, tmp_path)
    np.save(file, np.zeros((16, 8), np.float32))
    with pytest.raises(BadData, match=r"holds \(16, 8\), not \(16, 16\): delete it"):
        targets(drawn_faces, tmp_path)


def test_a_teacher_without_an_answer_is_refused(drawn_faces: Faces, tmp_path: Path) -> None:
    class Silent(Colours):
        def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
            return np.zeros((len(crops), 16), np.float32)

    with pytest.raises(BadConfig, match="answer to face 0 is no direction"):
        targets(drawn_faces, tmp_path, Silent())


# teachers


def write_graph(file: Path, takes: str, shape: tuple[int | str, ...], kind: int) -> Path:
    """A graph that answers the mean of its input over all but the first axis and the last one's three, twice."""
    gives = [shape[0], 6]
    nodes = [
        helper.make_node("Cast", [takes], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "rows"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "to", "axis"], ["six"]),
        helper.make_node("LpNormalization", ["six"], ["embedding"], axis=1),
    ]
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [2], [-1 if shape[0] != 1 else 1, 112 * 112 * 3]),
        *(
            helper.make_tensor(name, TensorProto.INT64, [1], [value])
            for name, value in (("from", 0), ("to", 6), ("axis", 1))
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info(takes, kind, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, gives)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return file


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "served.onnx", "image", ("n", 112, 112, 3), TensorProto.UINT8)


def test_a_served_graph_teaches(served: Path, drawn_faces: Faces) -> None:
    teacher = open_teacher(served, 1)
    assert isinstance(teacher, ServedTeacher)
    assert teacher.dimension == 6
    crops = drawn_faces.crops()
    found = teacher.embed(crops)
    first = crops.reshape(16, -1)[:, :6].astype(np.float32)
    np.testing.assert_allclose(found, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)


def test_the_reference_embedder_is_known_by_its_input(tmp_path: Path, drawn_faces: Faces) -> None:
    file = write_graph(tmp_path / "reference.onnx", "input0", (1, 3, 112, 112), TensorProto.FLOAT)
    assert isinstance(open_teacher(file, 1), ReferenceEmbedder)
    picture = np.zeros((1, 112, 112, 3), np.uint8)
    picture[0, 2, 5] = (255, 0, 128)
    given = reference_input(picture)
    assert given.shape == (1, 3, 112, 112)
    np.testing.assert_allclose(
        given[0, :, 2, 5],
        [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225],
        rtol=1e-6,
    )


def test_a_trained_run_teaches_with_its_average(
    tiny_backbone: None, tmp_path: Path, drawn_faces: Faces
) -> None:
    student = build(tiny(), drawn_faces)
    with torch.no_grad():
        student.model.embedding.weight.zero_()
    checkpoint.save(tmp_path / "last.pt", student.state(tiny()))
    teacher = open_teacher(tmp_path / "last.pt")
    assert isinstance(teacher, TorchTeacher)
    assert teacher.dimension == 16
    crops = drawn_faces.crops()
    with torch.inference_mode():
        expected = student.average(normalise(torch.from_numpy(crops.copy())))
    found = teacher.embed(crops)
    np.testing.assert_allclose(found, torch.nn.functional.normalize(expected).numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_network_teaches_in_eval_mode_and_its_digest_is_of_its_weights() -> None:
    torch.manual_seed(0)
    model = Tiny(16, normalised=True).train()
    teacher = TorchTeacher(model, batch=3)
    crops = np.random.default_rng(0).integers(0, 256, (7, 112, 112, 3), np.uint8)
    np.testing.assert_allclose(teacher.embed(crops)[4:5], teacher.embed(crops[4:5]), atol=1e-6)
    assert not model.training
    with torch.no_grad():
        model.hidden.weight[0, 0] += 1
    assert TorchTeacher(model).digest != teacher.digest


def test_what_is_no_teacher_is_refused_by_name(
    tiny_backbone: None, tmp_path: Path, drawn_faces: Faces
) -> None:
    other = write_graph(tmp_path / "other.onnx", "picture", ("n", 112, 112, 3), TensorProto.UINT8)
    (tmp_path / "torn.onnx").write_bytes(b"\xff\xff\xff not protobuf")
    (tmp_path / "broken.onnx").write_bytes(
        write_graph(tmp_path / "b.onnx", "image", ("n", 112, 112, 3), TensorProto.UINT8)
        .read_bytes()
        .replace(b"LpNormalization", b"LpNormalisation")
    )
    checkpoint.save(tmp_path / "detector.pt", {"kind": "detector", "config": {}})
    (tmp_path / "torn.pt").write_bytes(b"half")
    for file, message in (
        (tmp_path / "none.onnx", "no such teacher"),
        (other, "takes 'picture': a teacher is a run's checkpoint"),
        (tmp_path / "torn.onnx", "is no ONNX graph"),
        (tmp_path / "broken.onnx", "no teacher that ONNX Runtime can run"),
        (tmp_path / "detector.pt", "no embedder's checkpoint of this version"),
    ):
        with pytest.raises(BadConfig, match=message) as raised:
            open_teacher(file)
        assert str(file) in str(raised.value)
    with pytest.raises(UnreadableCheckpoint, match=r"torn\.pt"):
        open_teacher(tmp_path / "torn.pt")


def test_normalised_pictures_lie_between_minus_one_and_one_channels_first() -> None:
    crops = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    crops[0, 3, 4] = torch.tensor([0, 255, 51])
    found = normalise(crops)
    assert found.shape == (1, 3, 112, 112)
    torch.testing.assert_close(found[0, :, 3, 4], torch.tensor([-1.0, 1.0, -0.6]))
