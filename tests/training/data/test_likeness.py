"""One picture in another size or compression is recognised; two pictures are not taken for one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from training.data.likeness import alike
from training.data.scenes import draw_scene

SCENES = [(f"scene {number}", draw_scene(number).pixels) for number in range(40)]


@pytest.mark.parametrize("quality", [30, 80])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
def test_a_copy_is_found_whatever_its_size_and_compression(scale: float, quality: int) -> None:
    copy = cv2.resize(SCENES[7][1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    copy = cv2.imdecode(cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    assert alike([("copy", copy)], SCENES) == [("copy", "scene 7")]


def test_different_pictures_are_not_alike() -> None:
    assert alike(SCENES[:20], SCENES[20:]) == []


def test_with_nothing_to_compare_nothing_is_alike() -> None:
    assert alike([("one", np.zeros((9, 9, 3), np.uint8))], []) == []
