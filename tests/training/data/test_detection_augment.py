"""Whatever moves the pixels moves boxes, ignored places and points alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.detection_augment import (
    SHORTEST,
    SMALLEST,
    Chances,
    Crop,
    augment,
    covered,
    cut,
    degrade,
    flip,
    hide,
    mosaic,
    pyramid,
    recolour,
    window,
)
from training.data.photographs import Photograph

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


def blocks(*boxes: tuple[int, int, int, int], ignored: tuple[bool, ...] = ()) -> Photograph:
    """Dark, with every box filled with light: its edges are half a pixel out of its first and last pixel's centres."""
    pixels = np.full((300, 400, 3), 20, np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 250
    corners = np.array(boxes, np.float32) - 0.5
    flags = np.array(ignored or [False] * len(boxes))
    return Photograph("x", pixels, 1.0, corners, flags, np.full((len(boxes), 5, 2), np.nan, np.float32))


def lit(pixels: np.ndarray) -> np.ndarray:
    """The box around what is light, its edges found to fractions of a pixel by how light they are."""
    light = (pixels[..., 0].astype(float) - 20) / 230
    across, down = light.max(0), light.max(1)
    left, right, top, bottom = (
        int(np.flatnonzero(of > 0.02)[end]) for of in (across, down) for end in (0, -1)
    )
    return np.array(
        [
            left + 0.5 - across[left],
            top + 0.5 - down[top],
            right - 0.5 + across[right],
            bottom - 0.5 + down[bottom],
        ]
    )


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(100, 300),
    y=st.floats(100, 200),
    extent=st.floats(160, 600),
    ignored=st.booleans(),
    mirrored=st.booleans(),
)
def test_boxes_end_where_their_pixels_do(
    x: float, y: float, extent: float, ignored: bool, mirrored: bool
) -> None:
    one = blocks((180, 130, 220, 170), ignored=(ignored,))
    crop = cut(one, pyramid(one.pixels), (x, y, extent), 320)
    crop = flip(crop) if mirrored else crop
    if len(crop.boxes) and (crop.boxes > 2).all() and (crop.boxes < 317).all():
        assert crop.ignored.tolist() == [ignored]
        np.testing.assert_allclose(crop.boxes[0], lit(crop.pixels), atol=0.6 * max(1, 320 / extent))


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(-80, 80), extent=st.floats(200, 500))
def test_a_turned_box_is_around_the_turned_head_and_keeps_the_middle_of_its_pixels(
    angle: float, extent: float
) -> None:
    one = blocks((230, 100, 260, 140))
    crop = cut(one, pyramid(one.pixels), (200, 150, extent), 320, angle)
    left, top, right, bottom = crop.boxes[0]
    around = np.linspace(0, 2 * np.pi, 3600)  # an ellipse of 30 by 40 pixels, a point every tenth of a degree
    x, y, turn = 15 * np.cos(around), 20 * np.sin(around), np.deg2rad(angle)
    assert right - left == pytest.approx(np.ptp(x * np.cos(turn) + y * np.sin(turn)) * 320 / extent, rel=1e-4)
    assert bottom - top == pytest.approx(np.ptp(y * np.cos(turn) - x * np.sin(turn)) * 320 / extent, rel=1e-4)
    light = crop.pixels[..., 0].astype(float) - 20
    ys, xs = np.mgrid[:320, :320]
    light *= light > 5
    middle = (light * xs).sum() / light.sum(), (light * ys).sum() / light.sum()
    np.testing.assert_allclose(((left + right) / 2, (top + bottom) / 2), middle, atol=0.5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), angle=st.floats(-20, 20))
def test_a_face_is_taught_exactly_if_its_middle_is_in_the_crop(seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, (360, 260), (6, 2))
    one = blocks(*(tuple(of) for of in np.concatenate([low, low + rng.integers(16, 40, (6, 2))], 1).tolist()))
    x, y, extent = 200 + rng.normal(0, 80), 150 + rng.normal(0, 60), rng.uniform(100, 320)
    crop = cut(one, pyramid(one.pixels), (x, y, extent), 320, angle)
    turn = np.deg2rad(angle)
    away = (one.boxes[:, :2] + one.boxes[:, 2:]) / 2 - (x, y)
    across = away @ (np.cos(turn), np.sin(turn)) * 320 / extent + 159.5
    down = away @ (-np.sin(turn), np.cos(turn)) * 320 / extent + 159.5
    inside = (across > 0) & (across < 320) & (down > 0) & (down < 320)
    assert int((~crop.ignored).sum()) == int(inside.sum())  # none of them is too small
    assert len(crop.boxes) >= inside.sum()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 3000))
def test_after_everything_the_points_are_still_on_their_marks(seed: int) -> None:
    one = photograph()
    marked = np.full_like(one.pixels, 20)
    for px, py in MARKS:
        cv2.circle(marked, (int(px), int(py)), 5, (250, 250, 250), -1)
    one = Photograph("x", marked, 1.0, one.boxes[:1], one.ignored[:1], one.landmarks[:1])
    crop = augment(one, pyramid(marked), 320, np.random.default_rng(seed))
    if len(crop.boxes) == 0 or crop.ignored[0] or crop.boxes[0, 3] - crop.boxes[0, 1] < 60:
        return
    points = crop.landmarks[0]
    grey = cv2.GaussianBlur(crop.pixels, (3, 3), 0).astype(float).mean(2)
    between = (points[0] + points[2]) / 2, (points[1] + points[2]) / 2, (points[3] + points[4]) / 2
    within = [point for point in points if ((point > 2) & (point < 317)).all()]
    dark = [grey[round(y), round(x)] for x, y in between if 2 < x < 317 and 2 < y < 317]
    assert all(grey[round(y), round(x)] > max(dark) for x, y in within if dark)
    assert points[0, 0] < points[1, 0]
    assert points[3, 0] < points[4, 0]


def test_heads_lean_to_either_side_and_some_pictures_are_grey_or_soft() -> None:
    lean, grey, soft = [], 0, 0
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for seed in range(120):
        crop = crop_of(seed)
        lean += [eyes[1] for eyes in (crop.landmarks[:1, 1] - crop.landmarks[:1, 0])]
        changed = recolour(noise, np.random.default_rng(seed)).astype(float)
        grey += int(np.ptp(changed, axis=2).max() == 0)
        soft += int(np.abs(np.diff(changed, axis=1)).mean() < 0.6 * changed.std())
    assert min(np.sum(np.array(lean) > 1), np.sum(np.array(lean) < -1)) > 20
    assert 5 < grey < 40
    assert 3 < soft < 40


def test_a_mosaic_places_its_parts_in_reading_order() -> None:
    one = photograph()
    sizes = [(60, 90), (100, 90), (60, 70), (100, 70)]
    parts = [
        cut(one, pyramid(one.pixels), (75, 85, 80 + 10 * i), max(size), size=size)
        for i, size in enumerate(sizes)
    ]
    whole = mosaic(parts)
    assert whole.pixels.shape == (160, 160, 3)
    row = 0
    for part, (x, y), (width, height) in zip(parts, [(0, 0), (60, 0), (0, 90), (60, 90)], sizes, strict=True):
        np.testing.assert_array_equal(whole.pixels[y : y + height, x : x + width], part.pixels)
        rows = slice(row, row := row + len(part.boxes))
        np.testing.assert_allclose(whole.boxes[rows], part.boxes + np.array([x, y, x, y]))
        np.testing.assert_allclose(whole.landmarks[rows], part.landmarks + np.array([x, y]), equal_nan=True)
        np.testing.assert_array_equal(whole.ignored[rows], part.ignored)
    assert row == len(whole.boxes)


def test_a_part_is_the_middle_of_the_square() -> None:
    one = photograph()
    square = cut(one, pyramid(one.pixels), (75, 85, 100), 100, 7)
    part = cut(one, pyramid(one.pixels), (75, 85, 100), 100, 7, size=(60, 80))
    assert np.abs(part.pixels.astype(int) - square.pixels[10:90, 20:80]).max() <= 1
    np.testing.assert_allclose(part.landmarks[0], square.landmarks[0] - (20, 10), atol=1e-4)
    assert (part.boxes[0] <= np.array([59.5, 79.5, 59.5, 79.5])).all()


@pytest.mark.parametrize(("shown", "ignored"), [(0.4, True), (0.6, False)])
def test_a_face_is_ignored_behind_something_that_hides_most_of_it(shown: float, ignored: bool) -> None:
    one = blocks((100, 100, 140, 150), (200, 100, 240, 150))
    crop = Crop(one.pixels, one.boxes, one.ignored, one.landmarks)
    rows = round(50 * (1 - shown))
    hidden = covered(crop, 90, 100, np.full((rows, 60, 3), 99, np.uint8))
    assert hidden.ignored.tolist() == [ignored, False]
    assert (hidden.pixels[100 : 100 + rows, 90:150] == 99).all()
    np.testing.assert_array_equal(hidden.boxes, crop.boxes)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_hiding_changes_one_rectangle_and_moves_nothing(seed: int) -> None:
    crop = crop_of(seed)
    hidden = hide(crop, np.random.default_rng(seed))
    np.testing.assert_array_equal(hidden.boxes, crop.boxes)
    np.testing.assert_array_equal(hidden.landmarks, crop.landmarks)
    assert (hidden.ignored >= crop.ignored).all()
    changed = (hidden.pixels != crop.pixels).any(2)
    if changed.any():
        ys, xs = np.nonzero(changed)
        area = (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
        faces = crop.boxes[~crop.ignored]
        largest = (faces[:, 2:] - faces[:, :2]).prod(1).max(initial=0) if len(faces) else 320 * 320
        assert area <= 0.6 * largest + 4 * 320


def test_hiding_happens_as_often_as_asked() -> None:
    one = photograph()
    levels = pyramid(one.pixels)

    def crops(hiding: float) -> list[Crop]:
        return [
            augment(one, levels, 96, np.random.default_rng(seed), chances=Chances(hiding=hiding))
            for seed in range(80)
        ]

    plain = crops(0.0)
    hidden = [
        not np.array_equal(of.pixels, other.pixels) for of, other in zip(crops(0.4), plain, strict=True)
    ]
    assert 15 < sum(hidden) < 50


def standing(ignored: bool, width: int, height: int) -> Photograph:
    """Light all over, with a face of half its height that everything can be measured by."""
    low = np.array([0.2 * width, 0.2 * height])
    box = np.concatenate([low, low + 0.5 * height])
    eyes = np.array([(0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.8), (0.65, 0.8)])
    points = low + eyes * 0.5 * height
    pixels = np.full((height, width, 3), 200, np.uint8)
    boxes, marks = np.float32(box)[None], np.float32(points)[None]
    return Photograph("x", pixels, 1.0, boxes, np.array([ignored]), marks)


@pytest.mark.parametrize(
    "ignored", [False, True]
)  # of an ignored face alone there are windows of scenes alone
@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400)])
def test_windows_zoom_out_as_often_and_as_far_as_said(ignored: bool, width: int, height: int) -> None:
    one, rng = standing(ignored, width, height), np.random.default_rng(0)
    windows = np.array([window(one, 320, rng) for _ in range(1000)])
    wide = windows[windows[:, 2] > 400]  # more than the longer side: all is smaller than in the picture
    share = len(wide) / len(windows)
    # Of scenes 0.3; of faces those below the height at which the window is as wide as the picture.
    tall = np.log(0.5 * height * 320 / 400 / SHORTEST) / np.log(0.95 * 320 / SHORTEST)
    assert share == pytest.approx(0.3 if ignored else 0.15 + tall / 2, abs=0.05)
    assert wide[:, 2].max() <= 1.4 * 400
    assert wide[:, 2].max() > 1.35 * 400
    low, high = wide[:, :2] - wide[:, 2:] / 2, wide[:, :2] + wide[:, 2:] / 2
    assert (low <= 1e-6).all()  # the whole picture is in it
    assert (high >= np.array([width, height]) - 1e-6).all()
    near = windows[windows[:, 2] < 300]  # narrower than the picture: nothing but picture
    low, high = near[:, :2] - near[:, 2:] / 2, near[:, :2] + near[:, 2:] / 2
    assert (low >= -1e-6).all()
    assert (high <= np.array([width, height]) + 1e-6).all()


def test_a_poor_camera_s_pictures_are_dark_shaken_or_hazy() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    every = [degrade(noise, np.random.default_rng(seed)) for seed in range(120)]
    dark = [of for of in every if of.mean() < 0.55 * noise.mean()]
    hazy = [
        of for of in every if of.std() < 0.65 * noise.std() and len(np.unique(of)) < 160 and of.min() > 15
    ]
    shaken = [of for of in every if abs(of.mean() - noise.mean()) < 6 and of.std() < 0.85 * noise.std()]
    assert min(map(len, (dark, hazy, shaken))) > 20
    assert all(of.dtype == np.uint8 and of.shape == noise.shape for of in every)


def test_the_teacher_is_asked_about_what_was_there_before_it_was_degraded() -> None:
    one = standing(False, 400, 300)
    levels = pyramid(one.pixels)

    def crops(chances: Chances) -> list[Crop]:
        return [augment(one, levels, 96, np.random.default_rng(seed), chances=chances) for seed in range(80)]

    plain, poor = crops(Chances()), crops(Chances(degrading=0.4))
    degraded = [of for of in poor if of.clear is not None]
    assert 15 < len(degraded) < 50
    assert all(of.clear is None for of in plain)
    for of, same in zip(poor, plain, strict=True):
        np.testing.assert_array_equal(of.pixels if of.clear is None else of.clear, same.pixels)
        np.testing.assert_array_equal(of.boxes, same.boxes)
    parts = [degraded[0], *plain[:3]]
    whole = mosaic(parts)
    assert whole.clear is not None
    np.testing.assert_array_equal(whole.clear[:96, :96], degraded[0].clear)
    np.testing.assert_array_equal(whole.clear[96:, 96:], plain[2].pixels)
    assert mosaic(plain[:4]).clear is None


def test_wide_turns_are_as_frequent_as_asked() -> None:
    one = standing(False, 400, 400)
    eyes = []
    for seed in range(300):
        crop = augment(
            one, pyramid(one.pixels), 96, np.random.default_rng(seed), chances=Chances(turning=0.3)
        )
        if len(crop.boxes):
            across = crop.landmarks[0, 1] - crop.landmarks[0, 0]
            eyes.append(abs(np.degrees(np.arctan2(across[1], across[0]))))
    assert 0.1 < np.mean(np.array(eyes) > 20) < 0.3  # 0.57 of the wide ones


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([(400, 300), (300, 400), (320, 320)]))
def test_zoomed_out_all_is_smaller_and_whole_and_black_around(seed: int, size: tuple[int, int]) -> None:
    width, height = size
    one, rng = standing(True, width, height), np.random.default_rng(seed)
    squares = (window(one, 320, rng) for _ in range(100))
    square = next(of for of in squares if of[2] > max(size))
    x, y, extent = square
    crop = cut(one, pyramid(one.pixels), square, 320)
    share = 320 / extent
    assert share < 320 / max(size)
    moved = np.array([x, y]) - extent / 320 * 159.5
    np.testing.assert_allclose(crop.boxes, (one.boxes - np.tile(moved, 2)) * share, atol=1e-3)
    np.testing.assert_allclose(crop.landmarks, (one.landmarks - moved) * share, atol=1e-3)
    assert ((crop.boxes >= -0.5) & (crop.boxes <= 319.5)).all()
    left, top = (-0.5 - moved) * share
    right, bottom = (np.array(size) - 0.5 - moved) * share
    ys, xs = np.mgrid[:320, :320]
    inside = (xs > left + 1) & (xs < right - 1) & (ys > top + 1) & (ys < bottom - 1)
    outside = (xs < left - 1) | (xs > right + 1) | (ys < top - 1) | (ys > bottom + 1)
    assert outside.any() or share * max(size) > 316  # a border of two pixels a side is all edge
    assert (crop.pixels[inside] == 200).all()
    assert (crop.pixels[outside] == 0).all()


def test_crops_are_zoomed_out_in_a_share_of_all() -> None:
    """As the training takes them: colour may lift the black, all of it alike."""
    one = standing(True, 400, 300)
    levels = pyramid(one.pixels)
    crops = [augment(one, levels, 96, np.random.default_rng(seed)) for seed in range(200)]
    tall = np.array([of.boxes[0, 3] - of.boxes[0, 1] for of in crops if len(of.boxes)])
    corners = [of.pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int) for of in crops]
    smaller = (tall < 150 * 96 / 400 - 0.1).sum() / len(crops)
    assert smaller == pytest.approx(0.3, abs=0.08)
    dark = np.mean([of.min() < of.max() - 20 for of in corners])
    assert dark > 0.2
