"""Alignment is exact on known transforms, and large faces do not alias."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.align import CROP, TEMPLATE, align, similarity

turns = st.floats(-np.pi, np.pi)
scales = st.floats(0.05, 40)
shifts = st.floats(-3000, 3000)


def moved(turn: float, scale: float, x: float, y: float) -> np.ndarray:
    """(2, 3): a similarity from the template to a picture."""
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[cos, -sin, x], [sin, cos, y]])


def apply(move: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ move[:, :2].T + move[:, 2]


@given(turns, scales, shifts, shifts)
def test_a_known_similarity_is_recovered(turn: float, scale: float, x: float, y: float) -> None:
    move = moved(turn, scale, x, y)
    back = similarity(apply(move, TEMPLATE.astype(np.float64)))
    whole = np.vstack([back, [0, 0, 1]]) @ np.vstack([move, [0, 0, 1]])
    np.testing.assert_allclose(whole, np.eye(3), atol=1e-6 * (1 + (abs(x) + abs(y)) / scale))


@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=5, max_size=5), turns, scales)
def test_no_other_similarity_is_nearer_to_the_template(
    noise: list[tuple[float, float]], turn: float, scale: float
) -> None:
    points = apply(moved(turn, scale, 5, -7), TEMPLATE + np.array(noise))
    best = similarity(points)
    error = ((apply(best, points) - TEMPLATE) ** 2).sum()
    middle = points.mean(0)
    for step in ([1e-3, 0, 0, 0], [0, 1e-3, 0, 0], [0, 0, 1e-2, 0], [0, 0, 0, 1e-2]):
        for sign in (1, -1):
            grow, rotate, right, down = np.array(step) * sign
            other = best.copy()
            nudge = np.array([[1 + grow, -rotate], [rotate, 1 + grow]])
            other[:, :2] = nudge @ best[:, :2]
            # about the points' middle, so that growing and turning are not also a shift
            other[:, 2] = apply(best, middle) - other[:, :2] @ middle + [right, down]
            assert ((apply(other, points) - TEMPLATE) ** 2).sum() >= error


def test_a_mirrored_face_is_never_answered_with_a_reflection() -> None:
    mirrored = TEMPLATE * [-1, 1] + [CROP, 0]
    assert np.linalg.det(similarity(mirrored)[:, :2]) > 0


@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), 40.0),
        np.full((5, 2), 1e6) + np.linspace(0, 1e-3, 10).reshape(5, 2),
        np.where(np.eye(5, 2) > 0, np.nan, TEMPLATE),
        np.where(np.eye(5, 2) > 0, np.inf, TEMPLATE),
        TEMPLATE[:4],
        TEMPLATE.reshape(-1),
    ],
    ids=["one point", "nearly one point", "nan", "infinite", "four points", "flat"],
)
def test_degenerate_points_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"landmark|points"):
        similarity(points)


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), np.zeros((0, 9, 3), np.uint8)]
)
def test_what_is_not_an_rgb_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 picture"):
        align(image, TEMPLATE)


def test_an_aligned_picture_is_its_own_crop() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (CROP, CROP, 3), np.uint8)
    assert np.abs(align(picture, TEMPLATE).astype(int) - picture).max() <= 1


@given(st.floats(-0.6, 0.6), st.floats(0.3, 9.0), st.floats(-30, 30), st.floats(-30, 30))
def test_every_pixel_comes_from_its_place_at_any_scale(turn: float, scale: float, x: float, y: float) -> None:
    """A ramp is the same after averaging and after interpolation, so only a misplaced pixel can change it."""
    side = 1400
    middle = (side - 1) / 2
    ramp = np.add.outer(np.arange(side) * 0.06, np.arange(side) * 0.1).round().astype(np.uint8)
    move = moved(turn, scale, 0, 0)
    move[:, 2] = middle + np.array([x, y]) - move[:, :2] @ np.full(2, (CROP - 1) / 2)
    crop = align(np.repeat(ramp[:, :, None], 3, 2), apply(move, TEMPLATE.astype(np.float64)))
    grid = np.stack(np.meshgrid(np.arange(CROP), np.arange(CROP)), -1).reshape(-1, 2).astype(float)
    from_x, from_y = apply(move, grid).T
    inside = (np.minimum(from_x, from_y) > 12) & (np.maximum(from_x, from_y) < side - 12)
    expected = from_x * 0.1 + from_y * 0.06
    difference = np.abs(crop[..., 0].reshape(-1) - expected)[inside]
    assert difference.size > 0.5 * CROP**2
    assert (
        difference.max() <= 1.5
    )  # half a level each for the ramp's and the crop's rounding, and 1/32 pixel steps


@pytest.mark.parametrize("factor", [2, 3, 5, 8])
def test_a_large_face_is_averaged_not_sampled(factor: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (CROP * factor, CROP * factor, 3), np.uint8)
    points = (TEMPLATE.astype(np.float64) + 0.5) * factor - 0.5
    ideal = cv2.resize(noise, (CROP, CROP), interpolation=cv2.INTER_AREA)
    sampled = cv2.warpAffine(noise, similarity(points), (CROP, CROP), flags=cv2.INTER_LINEAR)

    def error(crop: np.ndarray) -> float:
        return float(np.sqrt(((crop.astype(float) - ideal) ** 2).mean()))

    assert error(align(noise, points)) < 1
    # an even factor falls between pixels, where bilinear sampling already averages two by two
    assert error(sampled) > (10 if factor > 2 else -1)


def test_outside_the_picture_is_black_and_the_border_pixel_is_not_smeared() -> None:
    for factor in (1, 4):
        white = np.full((56 * factor, 112 * factor, 3), 255, np.uint8)
        crop = align(white, (TEMPLATE.astype(np.float64) + 0.5) * factor - 0.5)
        assert (crop[:55, 1:-1] == 255).all()
        assert (crop[57:] == 0).all()


def test_a_face_wholly_outside_the_picture_is_black() -> None:
    crop = align(np.full((50, 50, 3), 255, np.uint8), TEMPLATE * 8.0 + 5000)
    assert crop.shape == (CROP, CROP, 3)
    assert not crop.any()


def test_the_picture_given_is_left_as_it_was() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (600, 600, 3), np.uint8)
    before = picture.copy()
    align(picture, TEMPLATE * 5.0)
    np.testing.assert_array_equal(picture, before)
