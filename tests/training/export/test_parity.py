"""Graph and model agree on every golden input, and each way in which they could differ is caught."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bundle.decode import AnchorLayout, Detections, detections
from bundle.manifest import DetectorSpec
from training.export.parity import (
    MAX_BATCH,
    ParityFailed,
    agreement,
    check_batches,
    check_detector,
    check_detector_batches,
    check_embedder,
    found_agreement,
    golden_crops,
    golden_scenes,
)
from training.export.sessions import ServedGraph

SPEC = DetectorSpec(canvases=((192, 256),))  # and its small copy of 64 × 64


def test_the_embedder_s_graph_is_the_model(embedder) -> None:
    measured = check_embedder(embedder.module, embedder.graph)
    assert measured.cosine_least >= 0.999999
    assert measured.difference_most <= 1e-4
    assert measured.compared_on == len(golden_crops())


def test_faces_are_compared_beside_the_golden_crops(tiny) -> None:
    assert check_embedder(tiny.module, tiny.graph, golden_crops()[:2]).compared_on == len(golden_crops()) + 2


def test_the_detector_s_graph_is_the_model_on_every_canvas(detector) -> None:
    """Without a threshold an untrained detector finds faces everywhere: all of them are compared."""
    measured = check_detector(detector.module, detector.graph, SPEC, golden_scenes(160, 128)[2:])
    assert measured.exact


def test_the_faces_after_suppression_are_the_same(detector) -> None:
    scene = golden_scenes(160, 96)[3:]
    answers = []
    with torch.inference_mode():
        model = [of.numpy()[0] for of in detector.module(torch.from_numpy(scene))]
    for outputs in (model, [of[0] for of in detector.graph.run(scene)]):
        answers.append(detections(*outputs, 160, 96, AnchorLayout(), 0.0, 0.4, 50))
    measured = found_agreement(answers[:1], answers[1:], sure=0.0)
    assert measured.exact
    assert measured.compared_on == len(answers[0]) > 10
    np.testing.assert_allclose(answers[0].boxes, answers[1].boxes, atol=0.02)


def faces(*rows: tuple[float, float, float, float]) -> Detections:
    """Squares: left, top, side, score; the landmarks lie on the corner."""
    table = np.array(rows, np.float32).reshape(-1, 4)
    corner = table[:, :2]
    points = np.repeat(corner[:, None], 5, 1)
    return Detections(np.concatenate([corner, corner + table[:, 2:3]], 1), points, table[:, 3])


def test_agreement_about_faces_has_known_values() -> None:
    one = [faces((0, 0, 100, 0.9), (300, 0, 50, 0.8)), faces()]
    moved = [faces((0, 10, 100, 0.7), (300, 0, 50, 0.8)), faces()]
    assert found_agreement(one, one).exact
    measured = found_agreement(one, moved)
    assert measured.iou_least == pytest.approx(90 / 110)
    assert measured.points_p99 == pytest.approx(0.1, rel=0.02)
    assert measured.score_p99 == pytest.approx(0.2, rel=0.02)
    assert (measured.missing, measured.compared_on) == (0, 2)
    assert not measured.exact


@pytest.mark.parametrize("turned", [False, True])
def test_a_face_that_one_alone_is_sure_of_is_missing_and_not_one_that_both_find(turned: bool) -> None:
    one = [faces((0, 0, 100, 0.9), (300, 0, 50, 0.8))]
    other = [faces((0, 0, 100, 0.29))]
    measured = found_agreement(*((other, one) if turned else (one, other)))
    assert measured.compared_on == (1 if turned else 2)
    assert measured.missing == (1.0 if turned else 0.5)
    nothing = found_agreement([faces()], [faces((0, 0, 9, 0.2))])
    assert (nothing.exact, nothing.compared_on) == (True, 0)


def test_a_detector_whose_batches_differ_or_overflow_is_caught(detector) -> None:
    check_detector_batches(detector.graph, (96, 64))

    class Swapped(Mangled):
        def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
            scores, *rest = detector.graph.run(image)
            return scores * np.float32(1 if len(image) == 1 else 50), *rest

    class Overflowing(Mangled):
        def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
            scores, *rest = detector.graph.run(image)
            return scores + np.float32(np.nan), *rest

    with pytest.raises(ParityFailed, match="in a batch of 4, scores are off by"):
        check_detector_batches(Swapped(detector.graph, set()), (96, 64))
    with pytest.raises(ParityFailed, match="not finite"):
        check_detector_batches(Overflowing(detector.graph, set()), (96, 64))


def test_the_golden_inputs_never_change() -> None:
    crops, scenes = golden_crops(), golden_scenes(96, 64)
    assert np.array_equal(crops, golden_crops())
    assert crops.shape == (8, 112, 112, 3)
    assert scenes.shape == (4, 64, 96, 3)
    assert crops[0].max() == 0
    assert crops[1].min() == 255


def disturbed(module: nn.Module) -> nn.Module:
    other = copy.deepcopy(module)
    with torch.no_grad():
        next(p for p in other.parameters() if p.ndim == 4).mul_(1.05)
    return other


def test_other_weights_are_caught(embedder, detector) -> None:
    with pytest.raises(ParityFailed, match=r"embedder\.onnx: cosine"):
        check_embedder(disturbed(embedder.module), embedder.graph)
    with pytest.raises(ParityFailed, match=r"detector\.onnx: score off by"):
        check_detector(disturbed(detector.module), detector.graph, SPEC)


def test_swapped_channels_are_caught(embedder) -> None:
    class Swapped(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return embedder.module(image.flip(-1))

    with pytest.raises(ParityFailed, match="cosine"):
        check_embedder(Swapped(), embedder.graph)


class Mangled:
    """The graph, but for batches of some sizes, whose answers are in another order."""

    def __init__(self, graph: ServedGraph, sizes: set[int]) -> None:
        self.graph, self.sizes, self.path = graph, sizes, graph.path

    def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        (answer,) = self.graph.run(image)
        return (answer[::-1] if len(image) in self.sizes else answer,)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return self.graph.embed(crops)


@pytest.mark.parametrize("size", [3, MAX_BATCH])
def test_a_mistake_in_batches_of_one_size_alone_is_caught(tiny, size: int) -> None:
    with pytest.raises(ParityFailed, match=f"in a batch of {size}, cosine"):
        check_embedder(tiny.module, Mangled(tiny.graph, {size}))
    check_batches(Mangled(tiny.graph, {size + 1}), tiny.graph.embed(golden_crops()))


def test_answers_that_are_not_unit_vectors_are_caught(tiny) -> None:
    class Long(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return tiny.module(image) * 1.001

    class LongGraph(Mangled):
        def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
            return (tiny.graph.run(image)[0] * np.float32(1.001),)

        def embed(self, crops: np.ndarray) -> np.ndarray:
            return tiny.graph.embed(crops) * np.float32(1.001)

    with pytest.raises(ParityFailed, match=r"not unit vectors, off by 0\.001"):
        check_embedder(Long(), LongGraph(tiny.graph, set()))


def test_agreement_has_known_values() -> None:
    expected = np.eye(4, dtype=np.float32)[np.zeros(200, int)]
    got = expected.copy()
    assert agreement(expected, got).exact
    got[7] = (0.6, 0.8, 0, 0)
    measured = agreement(expected, got)
    assert measured.cosine_least == pytest.approx(0.6)
    assert measured.cosine_mean == pytest.approx(1 - 0.4 / 200)
    assert measured.cosine_p1 == pytest.approx(1)
    assert measured.difference_most == pytest.approx(0.8)
    assert not measured.exact


def test_a_cosine_of_one_does_not_hide_a_difference_in_length() -> None:
    expected = np.eye(4, dtype=np.float32)
    assert not agreement(expected, expected * 1.01).exact


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_answers_that_are_no_numbers_agree_with_nothing(broken: float) -> None:
    expected = np.eye(4, dtype=np.float32)
    got = expected.copy()
    got[1, 2] = broken
    measured = agreement(expected, got)
    assert (measured.cosine_least, measured.difference_most) == (0, np.inf)
    assert not measured.exact
