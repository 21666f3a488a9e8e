"""Graph and model agree on every golden input, and each way in which they could differ is caught."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bundle.decode import AnchorLayout, detections
from training.export.parity import (
    ParityFailed,
    check_detector,
    check_embedder,
    check_variant,
    golden_crops,
    golden_scenes,
)


def test_the_embedder_s_graph_is_the_model(embedder) -> None:
    measured = check_embedder(embedder.module, embedder.graph)
    assert measured["cosine_least"] >= 0.999999
    assert measured["difference_most"] <= 1e-4
    assert measured["swapped_channels_move"] > 1e-3


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
    assert crops.shape == (4, 112, 112, 3)
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


class Grey:
    """A graph, or a model, that looks at brightness alone: no channel order could be told from its answers."""

    def __init__(self, of) -> None:
        self.of, self.path = of.graph, of.graph.path

    def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.of.run(np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, -1))


def test_a_graph_that_is_blind_to_colour_is_caught(embedder) -> None:
    class Model(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(Grey(embedder).run(image.numpy())[0])

    with pytest.raises(ParityFailed, match="swapped channels change nothing"):
        check_embedder(Model(), Grey(embedder))


def test_a_mistake_in_batches_alone_is_caught(embedder) -> None:
    class Shuffled:
        path = embedder.graph.path

        def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
            return (embedder.graph.run(image)[0][::-1],)

    with pytest.raises(ParityFailed, match="cosine"):
        check_embedder(embedder.module, Shuffled())


def test_a_variant_that_drifts_is_caught(embedder, detector) -> None:
    class Drifted:
        path = embedder.graph.path

        def embed(self, crops: np.ndarray) -> np.ndarray:
            got = embedder.graph.embed(crops)
            got[-1] += 3e-3
            return got

    check_variant(embedder.graph, embedder.graph, golden_crops())
    with pytest.raises(ParityFailed):
        check_variant(embedder.graph, Drifted(), golden_crops())
