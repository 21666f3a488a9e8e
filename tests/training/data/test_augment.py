"""Augmentation moves a face a little, never beyond what it says, and depends on its generator alone."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from training.data.augment import Augmentation, augment
from training.data.drawing import aligned
from training.data.identities import SIDE

FACE = aligned(9, 0, SIDE)
CENTRE = FACE[4:116, 4:116]
NOTHING = dict.fromkeys(("flip", "affine", "blur", "low_resolution", "colour", "grey", "occlusion"), 0.0)
EVERYTHING = {
    **NOTHING,
    "flip": 0.5,
    "affine": 1,
    "blur": 0.5,
    "low_resolution": 0.5,
    "colour": 1,
    "occlusion": 1,
}


def many(count: int = 60, **options) -> list[np.ndarray]:
    chosen = Augmentation(**options)
    return [augment(FACE, np.random.default_rng(seed), chosen) for seed in range(count)]


def only(**options) -> dict[str, object]:
    return {**NOTHING, **options}


@pytest.mark.parametrize("options", [{}, NOTHING, EVERYTHING, only(colour=1, hue_degrees=40), only(flip=1)])
def test_a_crop_is_what_the_model_takes_and_the_source_is_left_alone(options: dict[str, float]) -> None:
    before = FACE.copy()
    for crop in many(**options):
        assert crop.shape == (112, 112, 3)
        assert crop.dtype == np.uint8
        assert crop.flags.c_contiguous
        assert not np.shares_memory(crop, FACE)
        crop[:] = 0
    assert np.array_equal(FACE, before)


def test_one_generator_gives_one_crop() -> None:
    assert np.array_equal(augment(FACE, np.random.default_rng(4)), augment(FACE, np.random.default_rng(4)))
    assert len({crop.tobytes() for crop in many()}) == 60


def test_with_every_probability_none_the_crop_is_the_middle() -> None:
    assert all(np.array_equal(crop, CENTRE) for crop in many(10, **NOTHING))


def test_strengths_of_none_change_nothing() -> None:
    still = {"rotation_degrees": 0, "scale": 0, "shift_pixels": 0, "contrast": 0, "brightness": 0}
    assert all(np.array_equal(crop, CENTRE) for crop in many(10, **only(affine=1, colour=1, **still)))


def test_flipped_twice_is_as_before() -> None:
    flipped = augment(FACE, np.random.default_rng(0), Augmentation(**only(flip=1)))
    assert np.array_equal(flipped, CENTRE[:, ::-1])
    again = augment(
        np.pad(flipped, ((4, 4), (4, 4), (0, 0))), np.random.default_rng(0), Augmentation(**only(flip=1))
    )
    assert np.array_equal(again, CENTRE)


def test_about_half_of_the_crops_are_mirrored() -> None:
    lit = np.zeros((SIDE, SIDE, 3), np.uint8)
    lit[:, : SIDE // 2] = 200
    left = [augment(lit, np.random.default_rng(seed)) for seed in range(200)]
    share = np.mean([crop[:, :40].mean() > crop[:, 72:].mean() for crop in left])
    assert 0.4 < share < 0.6


def test_on_average_the_face_stays_where_the_template_has_it() -> None:
    plain = CENTRE.astype(float)
    mean = np.mean([crop.astype(float) for crop in many(200)], 0)
    both = (plain + plain[:, ::-1]) / 2
    shifted = np.roll(both, 8, axis=0)
    assert np.abs(mean - both).mean() < np.abs(mean - shifted).mean()


@pytest.mark.parametrize("options", [{}, {"rotation_degrees": 10, "scale": 0.1}])
def test_a_face_is_never_sideways(options: dict[str, float]) -> None:
    """A gradient from top to bottom still runs from top to bottom: no quarter turn, no upside down."""
    gradient = np.repeat(np.linspace(0, 255, SIDE).astype(np.uint8)[:, None, None], SIDE, 1).repeat(3, 2)
    chosen = Augmentation(**only(flip=0.5, affine=1, **options))
    for seed in range(300):
        crop = augment(gradient, np.random.default_rng(seed), chosen)[16:96, 16:96, 0].astype(float)
        down, across = crop[-8:].mean() - crop[:8].mean(), crop[:, -8:].mean() - crop[:, :8].mean()
        assert down > 1.3 * abs(across)


def test_the_affine_change_has_the_asked_spread() -> None:
    """A dot 40 pixels right of the centre: it moves along x by shift and scale, along y by shift and turn."""
    dot = np.zeros((SIDE, SIDE, 3), np.uint8)
    dot[58:62, 98:102] = 250
    grid = np.arange(112) - 55.5
    chosen, places = Augmentation(**only(affine=1)), []
    for seed in range(400):
        weight = augment(dot, np.random.default_rng(seed), chosen)[..., 0].astype(float)
        places.append((weight.sum(0) @ grid / weight.sum(), weight.sum(1) @ grid / weight.sum()))
    mean, spread = np.mean(places, 0), np.std(places, 0)
    assert mean == pytest.approx((40, 0), abs=0.5)
    assert spread[0] == pytest.approx(np.hypot(1.5, 40 * 0.04), rel=0.15)
    assert spread[1] == pytest.approx(np.hypot(1.5, 40 * np.radians(3)), rel=0.15)


def test_some_crops_lose_their_colour_and_some_a_part() -> None:
    crops = many(200)
    grey = np.mean([(crop.max(2) == crop.min(2)).mean() > 0.8 for crop in crops])
    assert 0.04 < grey < 0.2


def test_grey_keeps_the_mean_of_the_channels() -> None:
    (crop,) = many(1, **only(grey=1))
    assert (crop.max(2) == crop.min(2)).all()
    assert np.abs(crop[..., 0] - CENTRE.mean(2)).max() < 1


def sharpness(picture: np.ndarray) -> float:
    return float(np.abs(np.diff(picture.astype(float), axis=0)).mean())


@pytest.mark.parametrize("kind", ["blur", "low_resolution"])
def test_blur_and_low_resolution_lose_detail_and_keep_the_light(kind: str) -> None:
    for crop in many(20, **only(**{kind: 1})):
        assert sharpness(crop) < sharpness(CENTRE)
        assert crop.mean() == pytest.approx(CENTRE.mean(), abs=1)


def test_brightness_and_contrast_stay_within_their_range() -> None:
    flat = np.full((SIDE, SIDE, 3), 100, np.uint8)
    chosen = Augmentation(**only(colour=1))
    seen = [int(augment(flat, np.random.default_rng(seed), chosen)[0, 0, 0]) for seed in range(300)]
    assert min(seen) >= 70 - 25 - 1
    assert max(seen) <= 130 + 25
    assert np.ptp(seen) > 80


def test_hue_turns_the_colour_and_leaves_grey_and_the_brightest_channel() -> None:
    chosen = Augmentation(**only(colour=1, contrast=0, brightness=0, hue_degrees=60))
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 200
    seen = np.stack([augment(red, np.random.default_rng(seed), chosen)[0, 0] for seed in range(100)]).astype(
        int
    )
    assert (np.abs(seen.max(1) - 200) <= 2).all()
    assert (seen[:, 0] >= 195).all()  # within 60° red stays the brightest
    assert seen[:, 1].max() > 100
    assert seen[:, 2].max() > 100
    grey = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert all((augment(grey, np.random.default_rng(seed), chosen) == 90).all() for seed in range(10))


def test_an_occlusion_is_one_rectangle_of_one_colour_within_its_size() -> None:
    for crop in many(40, **only(occlusion=1, occlusion_side=(20, 30))):
        changed = (crop != CENTRE).any(2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert np.ptp(rows) < 30
        assert np.ptp(columns) < 30
        assert len(np.unique(crop[changed], axis=0)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.1}, "less than or equal to 1"),
        ({"affine": -0.1}, "greater than or equal to 0"),
        ({"blur": 0.6, "low_resolution": 0.6}, "their sum is at most 1"),
        ({"occlusion_side": (50, 40)}, "occlusion_side: expected two ascending values from 1 to 111"),
        ({"occlusion_side": (50, 112)}, "occlusion_side"),
        ({"low_resolution_side": (0, 40)}, "low_resolution_side"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"rotation_degrees": 90}, "less than or equal to 10"),
        ({"rotate": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Augmentation(**options)
