"""A run is judged by what the service would find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundle.decode import AnchorLayout, Detections, anchors, encode, iou
from tests.training.detector.oblongs import SMALL, oblongs
from training.data.photographs import Photograph
from training.detector.retinanet import RetinaNet
from training.detector.selection import FACE, FOUND, canvas_of, drawn, find, select, show
from training.detector.student import model_of


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    return model_of(SMALL).eval()


def test_an_untrained_detector_is_judged_by_recalls_between_nothing_and_all(model: RetinaNet) -> None:
    results = select(model, oblongs(2), SMALL)
    assert results.keys() == {"ap", "recall@1fp", "recall@0.1fp"}
    assert 0 <= results["recall@0.1fp"] <= results["recall@1fp"] <= 1
    assert select(model, [], SMALL) == {}


class SmallCopiesAlone(nn.Module):
    """Is blind for the canvas and knows, in its quarter-sized copy, where a face of this box on the canvas is."""

    def __init__(self, box: np.ndarray) -> None:
        super().__init__()
        self.box = nn.Parameter(torch.from_numpy(box))

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = picture.shape[2:]
        laid = anchors(width, height, SMALL.anchors)
        scores, deltas = np.full(len(laid), -9, np.float32), np.zeros((len(laid), 4), np.float32)
        if width < canvas_of(SMALL)[0]:
            box = (self.box.detach().numpy()[None] + 0.5) / 4 - 0.5
            corners = np.concatenate([laid[:, :2] - laid[:, 2:] / 2, laid[:, :2] + laid[:, 2:] / 2], 1)
            at = int(iou(corners, box)[:, 0].argmax())
            scores[at] = 9
            deltas[at] = encode(box, np.zeros((1, 5, 2), np.float32), laid[at : at + 1], SMALL.anchors)[0]
        rows = scores, deltas, np.zeros((len(laid), 10), np.float32)
        scored, boxed, pointed = (torch.from_numpy(of)[None] for of in rows)
        return scored, boxed, pointed


def test_a_face_that_fills_the_picture_is_found_in_the_small_copy_as_it_is_served() -> None:
    box = np.array([160, 20, 480, 460], np.float32)  # on the canvas; the picture is twice as large
    sees: Any = SmallCopiesAlone(box)
    picture, boxes = np.zeros((960, 1280, 3), np.uint8), (box[None] + 0.5) * 2 - 0.5
    found = find(sees, picture, SMALL)
    np.testing.assert_allclose(found.boxes, boxes, atol=0.1)
    points = np.full((1, 5, 2), np.nan, np.float32)
    photograph = Photograph("a", picture, 1.0, boxes, np.array([False]), points)
    assert select(sees, [photograph], SMALL)["recall@0.1fp"] == 1

    small = np.array(
        [[1000, 800, 1040, 850]], np.float32
    )  # 25 canvas pixels high: of no large face, and missed
    both = Photograph(
        "b", picture, 1.0, np.concatenate([boxes, small]), np.zeros(2, bool), points.repeat(2, 0)
    )
    assert select(sees, [both], SMALL) == {"ap": 0.5, "recall@1fp": 1, "recall@0.1fp": 1}


def test_nothing_reaches_a_score_above_one(model: RetinaNet) -> None:
    assert len(find(model, oblongs(1)[0].pixels, SMALL, min_score=2.0)) == 0


def test_the_canvas_grows_to_what_the_coarsest_level_needs(model: RetinaNet) -> None:
    assert canvas_of(SMALL) == (640, 480)
    layout = AnchorLayout(strides=(32, 64, 128), sizes=((32,), (64,), (128,)))
    coarse = SMALL.model_copy(update={"anchors": layout, "sides": (128,)})
    assert canvas_of(coarse) == (640, 512)
    find(model_of(coarse).eval(), np.zeros((90, 70, 3), np.uint8), coarse)


@pytest.mark.parametrize("shape", [(100, 80), (1000, 400), (1, 900)])
def test_what_is_drawn_is_a_small_copy_with_both_kinds_of_boxes(shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), np.uint8)
    height, width = shape
    boxes = np.array([[0.1 * width, 0.2 * height, 0.5 * width, 0.6 * height]], np.float32)
    points = np.full((1, 5, 2), 0.7 * min(shape), np.float32)
    found = Detections(boxes + 0.2 * min(shape), points, np.array([0.9], np.float32))
    shown = drawn(picture, boxes, found)
    assert max(shown.shape[:2]) == min(640, max(shape))
    assert not picture.any()
    if min(shape) > 1:
        assert {FACE, FOUND} <= {tuple(of) for of in shown.reshape(-1, 3).tolist()}


def test_tensorboard_gets_the_first_pictures_and_nothing_else_is_written(
    model: RetinaNet, tmp_path: Path
) -> None:
    show(model, oblongs(2), SMALL, tmp_path, 7)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file.parent.name for file in files] == ["tensorboard"]
    assert b"selection/1" in files[0].read_bytes()
