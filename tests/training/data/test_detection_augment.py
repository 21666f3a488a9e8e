from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.detection_augment import SMALLEST, Crop, augment, cut, flip, pyramid, recolour
from training.data.widerface import Photograph

MARKS = np.array([[60, 70], [90, 70], [75, 85], [64, 100], [86, 100]], np.float32)


def photograph(width: int = 400, height: int = 300) -> Photograph:
    """A dark picture with a bright disc at each of a face's five points."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    for x, y in MARKS:
        cv2.circle(pixels, (int(x), int(y)), 4, (250, 250, 250), -1)
    boxes = np.array([[50, 55, 100, 115], [300, 200, 306, 207]], np.float32)
    points = np.stack([MARKS, np.full((5, 2), np.nan, np.float32)])
    return Photograph("x", pixels, 1.0, boxes, np.array([False, False]), points)


def crop_of(seed: int) -> Crop:
    one = photograph()
    return augment(one, pyramid(one.pixels), 320, np.random.default_rng(seed))


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(60, 90),
    y=st.floats(70, 100),
    extent=st.floats(120, 1400),
    angle=st.floats(-25, 25),
)
def test_points_stay_on_the_pixels_they_name(x: float, y: float, extent: float, angle: float) -> None:
    one = photograph(1600, 1400)
    crop = cut(one, pyramid(one.pixels), (x, y, extent), 320, angle)
    light = crop.pixels[..., 0].astype(float) - 20
    for px, py in crop.landmarks[0]:
        reach = max(2.0, 9 * 320 / extent)
        ys, xs = np.mgrid[:320, :320]
        near = light * ((np.abs(xs - px) <= reach) & (np.abs(ys - py) <= reach)).clip(0, 1)
        if near.sum() > 200 and reach < px < 319 - reach and reach < py < 319 - reach:
            middle = np.array([(near * xs).sum(), (near * ys).sum()]) / near.sum()
            assert np.abs(middle - [px, py]).max() < 0.6


@given(seed=st.integers(0, 2000))
@settings(max_examples=30, deadline=None)
def test_flipping_twice_is_the_identity(seed: int) -> None:
    crop = crop_of(seed)
    twice = flip(flip(crop))
    np.testing.assert_array_equal(twice.pixels, crop.pixels)
    np.testing.assert_allclose(twice.boxes, crop.boxes, atol=1e-4)
    np.testing.assert_allclose(twice.landmarks, crop.landmarks, atol=1e-4)


def test_a_flip_renames_left_and_right() -> None:
    one = photograph()
    crop = cut(one, pyramid(one.pixels), (75, 85, 150), 320)
    mirrored = flip(crop)
    assert crop.landmarks[0, 0, 0] < crop.landmarks[0, 1, 0]
    assert mirrored.landmarks[0, 0, 0] < mirrored.landmarks[0, 1, 0]
    assert mirrored.landmarks[0, 3, 0] < mirrored.landmarks[0, 4, 0]
    assert (mirrored.boxes[:, 0] <= mirrored.boxes[:, 2]).all()
    np.testing.assert_allclose(mirrored.landmarks[0, 0, 0], 319 - crop.landmarks[0, 1, 0], atol=1e-4)


@given(seed=st.integers(0, 5000))
@settings(max_examples=60, deadline=None)
def test_every_crop_is_whole(seed: int) -> None:
    crop = crop_of(seed)
    assert crop.pixels.shape == (320, 320, 3)
    assert crop.pixels.dtype == np.uint8
    assert len(crop.boxes) == len(crop.ignored) == len(crop.landmarks)
    assert ((crop.boxes >= -0.5) & (crop.boxes <= 319.5)).all()
    taught = crop.boxes[~crop.ignored]
    assert (taught[:, 2:] > taught[:, :2]).all()
    assert (taught[:, 3] - taught[:, 1] >= SMALLEST / 2 - 1e-3).all()


def test_crops_show_near_and_far_faces() -> None:
    tall = np.concatenate(
        [(crop.boxes[:, 3] - crop.boxes[:, 1])[~crop.ignored] for crop in map(crop_of, range(300))]
    )
    assert (tall > 0.5 * 320).mean() > 0.05  # a face of 60 pixels, enlarged at most three times
    assert (tall < 40).mean() > 0.1


def test_a_face_that_leaves_the_crop_is_ignored_not_background() -> None:
    one = photograph()
    crop = cut(one, pyramid(one.pixels), (110, 85, 60), 320)  # the face's centre is left of the crop
    assert crop.ignored.tolist() == [True]


def test_the_same_generator_gives_the_same_crop() -> None:
    first, again = crop_of(3), crop_of(3)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.boxes, again.boxes)


def test_colour_changes_no_shape_and_keeps_light_lighter_than_dark() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(32, 0)
    for seed in range(20):
        changed = recolour(ramp, np.random.default_rng(seed))
        assert changed.shape == ramp.shape
        assert changed.dtype == np.uint8
        assert changed[:, -64:].mean() > changed[:, :64].mean()
