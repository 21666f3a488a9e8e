from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.decode import AnchorLayout, anchors
from training.detector.retinanet import RetinaNet, ServedDetector, normalise


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    return RetinaNet((8, 8, 8, 8), (1, 1, 1, 1), 8).eval()


@pytest.mark.parametrize(("width", "height"), [(64, 96), (160, 32), (32, 32)])
def test_there_is_one_output_for_each_anchor(model: RetinaNet, width: int, height: int) -> None:
    count = len(anchors(width, height, AnchorLayout()))
    with torch.inference_mode():
        score, box, landmark = ServedDetector(model)(torch.zeros(2, height, width, 3, dtype=torch.uint8))
    assert (score.shape, box.shape, landmark.shape) == ((2, count), (2, count, 4), (2, count, 10))
    assert ((score >= 0) & (score <= 1)).all()


def test_outputs_stand_in_the_order_of_the_anchors(model: RetinaNet) -> None:
    """A bright spot changes the outputs around it most: rows, columns and strides are where the anchors say."""
    dark, spot = np.zeros((1, 128, 192, 3), np.uint8), np.zeros((1, 128, 192, 3), np.uint8)
    spot[0, 88:96, 144:152] = 255
    with torch.inference_mode():
        change = (
            (model(normalise(torch.from_numpy(spot)))[1] - model(normalise(torch.from_numpy(dark)))[1])
            .abs()
            .sum(-1)
        )
    laid = anchors(192, 128, AnchorLayout())
    for stride, level in zip(
        (8, 16), np.split(np.arange(len(laid)), [2 * 24 * 16, 2 * (24 * 16 + 12 * 8)]), strict=False
    ):
        weight = change[0, level].numpy()
        middle = (laid[level, :2] * weight[:, None]).sum(0) / weight.sum()
        assert np.abs(middle - [147.5, 91.5]).max() < 2 * stride


def test_the_untrained_detector_believes_in_few_faces(model: RetinaNet) -> None:
    noise = torch.randint(
        0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.inference_mode():
        score = ServedDetector(model)(noise)[0]
    assert score.mean().item() == pytest.approx(0.01, abs=0.01)


def test_the_default_is_as_small_as_is_said() -> None:
    assert sum(parameter.numel() for parameter in RetinaNet().parameters()) < 0.9e6
