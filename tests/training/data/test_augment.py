"""Augmentation moves a face a little, never beyond what it says, and depends on its generator alone."""

from __future__ import annotations

import numpy as np

from training.data.augment import augment
from training.data.drawing import aligned
from training.data.identities import SIDE

FACE = aligned(9, 0, SIDE)


def many(count: int = 60) -> list[np.ndarray]:
    return [augment(FACE, np.random.default_rng(seed)) for seed in range(count)]


def test_a_crop_is_what_the_model_takes() -> None:
    for crop in many():
        assert crop.shape == (112, 112, 3)
        assert crop.dtype == np.uint8
        assert crop.flags.c_contiguous


def test_one_generator_gives_one_crop() -> None:
    assert np.array_equal(augment(FACE, np.random.default_rng(4)), augment(FACE, np.random.default_rng(4)))
    assert len({crop.tobytes() for crop in many()}) == 60


def test_the_source_is_left_alone() -> None:
    before = FACE.copy()
    many()
    assert np.array_equal(FACE, before)


def test_on_average_the_face_stays_where_the_template_has_it() -> None:
    plain = FACE[4:116, 4:116].astype(float)
    mean = np.mean([crop.astype(float) for crop in many(200)], 0)
    both = (plain + plain[:, ::-1]) / 2
    shifted = np.roll(both, 8, axis=0)
    assert np.abs(mean - both).mean() < np.abs(mean - shifted).mean()


def test_about_half_of_the_crops_are_mirrored() -> None:
    lit = np.zeros((SIDE, SIDE, 3), np.uint8)
    lit[:, : SIDE // 2] = 200
    left = [augment(lit, np.random.default_rng(seed)) for seed in range(200)]
    share = np.mean([crop[:, :40].mean() > crop[:, 72:].mean() for crop in left])
    assert 0.4 < share < 0.6


def test_some_crops_lose_their_colour_and_some_a_part() -> None:
    crops = many(200)
    grey = np.mean([(crop.max(2) == crop.min(2)).mean() > 0.8 for crop in crops])
    assert 0.04 < grey < 0.2
