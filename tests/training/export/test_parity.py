"""Graph and model agree on every golden input, and each way in which they could differ is caught."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bundle.decode import AnchorLayout, detections
from training.export.parity import (
    MAX_BATCH,
    ParityFailed,
    agreement,
    check_batches,
    check_detector,
    check_embedder,
    golden_crops,
    golden_scenes,
)
from training.export.sessions import ServedGraph


def test_the_embedder_s_graph_is_the_model(embedder) -> None:
    measured = check_embedder(embedder.module, embedder.graph)
    assert measured.cosine_least >= 0.999999
    assert measured.difference_most <= 1e-4
    assert measured.compared_on == len(golden_crops())


def test_faces_are_compared_beside_the_golden_crops(tiny) -> None:
    assert check_embedder(tiny.module, tiny.graph, golden_crops()[:2]).compared_on == len(golden_crops()) + 2


def test_the_detector_s_graph_is_the_model_on_every_canvas(detector) -> None:
    measured = check_detector(detector.module, detector.graph, ((96, 64), (64, 96)))
    assert measured["score_difference_most"] <= 1e-4


def test_the_faces_after_suppression_are_the_same(detector) -> None:
    scene = golden_scenes(160, 96)[3:]
    answers = []
    with torch.inference_mode():
        model = [of.numpy()[0] for of in detector.module(torch.from_numpy(scene))]
    for scores, boxes, landmarks in (model, [of[0] for of in detector.graph.run(scene)]):
        answers.append(detections(scores, boxes, landmarks, 160, 96, AnchorLayout(), 0.0, 0.4, 50))
    np.testing.assert_allclose(answers[0].boxes, answers[1].boxes, atol=0.02)
    np.testing.assert_allclose(answers[0].scores, answers[1].scores, atol=1e-4)


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
        check_detector(disturbed(detector.module), detector.graph, ((96, 64),))


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
