"""A picture is seen at the scale that is said, and what is found comes back in its own pixels."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.decode import Detections
from bundle.preprocess import Size
from training.evaluation.scales import MULTI, ORIGINAL, VGA, Scale, seen, seen_at

WHITE = (255, 255, 255)


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A white rectangle on black; box: x0, y0, x1, y1 in whole pixels, the last ones outside."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = WHITE
    return pixels


def bright(canvases: list[Size]):
    """Finds the box around what is bright, and remembers the canvases."""

    def find(canvas: np.ndarray) -> Detections:
        canvases.append((canvas.shape[1], canvas.shape[0]))
        ys, xs = np.nonzero(canvas[..., 0] > 127)
        box = np.array([[xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5]], np.float32)
        score = np.array([0.5 + 0.1 * len(canvases)], np.float32)
        return Detections(box, np.repeat(box[:, None, :2], 5, 1), score)

    return find


@pytest.mark.parametrize("scale", [VGA, ORIGINAL, MULTI, Scale("other", (384, 288))])
def test_boxes_come_back_in_the_pictures_own_pixels(scale: Scale) -> None:
    found = seen(bright([]), picture(1024, 768, (256, 128, 512, 512)), scale)
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], [255.5, 127.5, 511.5, 511.5], atol=1.5)
    np.testing.assert_allclose(found.landmarks[0, 0], [255.5, 127.5], atol=1.5)


def test_canvases_are_whole_multiples_and_pictures_are_not_enlarged_to_vga() -> None:
    for of, expected in (
        (VGA, [(640, 480)]),
        (ORIGINAL, [(320, 224)]),
        (MULTI, [(160, 128), (320, 224), (608, 416)]),
    ):
        canvases: list[Size] = []
        seen(bright(canvases), picture(301, 201, (10, 10, 100, 100)), of)
        assert canvases == expected
    assert VGA.ratio(301, 201) == ORIGINAL.ratio(301, 201) == 1
    assert VGA.ratio(1280, 480) == VGA.ratio(300, 960) == 0.5


def test_the_surer_answer_of_two_views_is_kept() -> None:
    found = seen(bright([]), picture(320, 320, (64, 64, 192, 256)), MULTI)
    assert found.scores.tolist() == pytest.approx([0.8])  # the third view's


def test_a_view_that_two_scales_share_is_looked_at_once() -> None:
    canvases: list[Size] = []
    pixels = picture(640, 320, (64, 64, 192, 256))
    alone, merged = seen_at(bright(canvases), pixels, (ORIGINAL, MULTI))
    assert canvases == [(640, 320), (320, 160), (1280, 640)]
    assert len(alone) == len(merged) == 1
