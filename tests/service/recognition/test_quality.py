"""A face made worse scores worse, in the component that says why."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from bundle.align import TEMPLATE, align
from service.recognition.quality import Quality, assess

Crop = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def crop() -> Crop:
    """The one photograph that tests may use, aligned at points set by hand."""
    from skimage import data

    points = np.array([[206, 110], [242, 108], [227, 131], [212, 148], [241, 147]], np.float32)
    return align(np.ascontiguousarray(data.astronaut()), points)


def scored(crop: Crop, landmarks: npt.NDArray[Any] = TEMPLATE, score: float = 0.9) -> Quality:
    return assess(crop, landmarks.astype(np.float32), score)


def test_a_good_face_is_good_in_everything(crop: Crop) -> None:
    quality = scored(crop)
    assert (quality.low, quality.too_small, quality.extreme_pose) == (False, False, False)
    assert min(quality.scores().values()) > 0.7
    assert quality.detection == 0.9


def test_every_score_lies_in_zero_to_one_and_overall_is_the_weakest() -> None:
    random = np.random.default_rng(2)
    for _ in range(30):
        noisy = (random.random((112, 112, 3)) * random.uniform(0, 255)).astype(np.uint8)
        quality = scored(noisy, random.random((5, 2)) * random.uniform(1, 500), random.uniform(0, 1))
        assert all(0 <= score <= 1 for score in quality.scores().values())
        assert quality.overall == min(quality.sharpness, quality.brightness, quality.contrast, quality.size)


@pytest.mark.parametrize(
    ("component", "worsen"),
    [
        ("sharpness", lambda of: cv2.GaussianBlur(of, (0, 0), 5)),
        ("brightness", lambda of: (of * 0.06).astype(np.uint8)),
        ("brightness", lambda of: 255 - (255 - of) // 12), ("contrast", lambda of: 120 + of // 32),
    ],
)  # fmt: skip
def test_a_face_that_cannot_be_recognised_is_low_for_its_reason(
    crop: Crop, component: str, worsen: Any
) -> None:
    quality = scored(worsen(crop))
    assert quality.low
    assert getattr(quality, component) < 0.5 < getattr(scored(crop), component)


def test_a_slight_blur_and_half_the_light_are_forgiven(crop: Crop) -> None:
    assert not scored(cv2.GaussianBlur(crop, (0, 0), 1)).low
    assert not scored((crop * 0.5).astype(np.uint8)).low


def test_size_is_the_crops_side_in_the_picture(crop: Crop) -> None:
    for side, too_small, low in ((20, True, True), (34, True, False), (60, False, False)):
        quality = scored(crop, TEMPLATE * side / 112)
        assert (quality.too_small, quality.low) == (too_small, low)
        assert quality.size == pytest.approx(min(1, side / 56), abs=0.02)


def test_a_turned_head_is_less_frontal_and_a_tilted_one_is_not(crop: Crop) -> None:
    frontal = [
        scored(crop, TEMPLATE + np.outer([0, 0, 1, 0, 0], [away, 0])).frontal for away in (0, 6, 16, 30)
    ]
    assert frontal == sorted(frontal, reverse=True)
    assert scored(crop, TEMPLATE + np.outer([0, 0, 1, 0, 0], [16, 0])).extreme_pose
    assert scored(crop, TEMPLATE + np.outer([0, 0, 1, 0, 0], [30, 0])).low
    turn = np.array([[0, -1], [1, 0]])
    assert scored(crop, TEMPLATE @ turn).frontal == pytest.approx(frontal[0], abs=1e-3)


def test_looking_up_or_down_is_less_frontal(crop: Crop) -> None:
    for away in (-18, 22):
        assert scored(crop, TEMPLATE + np.outer([0, 0, 1, 0, 0], [0, away])).frontal < 0.5


def test_points_that_coincide_are_no_face(crop: Crop) -> None:
    with pytest.raises(ValueError, match="coincide"):
        scored(crop, np.full((5, 2), 7.0))
