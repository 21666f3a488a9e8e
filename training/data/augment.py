"""Augmentation of aligned faces: what a door's camera and an imperfect landmark do to a crop.

A face stays upright: aligned faces are never sideways where they are served.
"""

from __future__ import annotations

from typing import Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from training.config import RunConfig
from training.data.pictures import BORDER, SIDE, TEMPLATE_SIDE

CROP = TEMPLATE_SIDE
_CENTRE = (SIDE - 1) / 2


class Augmentation(RunConfig):
    """How often each change happens (a probability) and how strong it is; by default those of the default bundle."""

    flip: float = Field(0.5, ge=0, le=1)
    affine: float = Field(1.0, ge=0, le=1)
    rotation_degrees: float = Field(3.0, ge=0, le=10)  # standard deviation
    scale: float = Field(0.04, ge=0, le=0.3)  # standard deviation of its logarithm
    shift_pixels: float = Field(1.5, ge=0, le=10)  # standard deviation, of the 112 × 112 crop
    blur: float = Field(0.1, ge=0, le=1)  # a face is blurred or of low resolution, not both
    blur_sigma: tuple[float, float] = (0.5, 2.0)  # pixels
    low_resolution: float = Field(0.1, ge=0, le=1)  # scaled down and up again
    low_resolution_side: tuple[int, int] = (24, 79)  # pixels
    colour: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.3, ge=0, lt=1)  # levels times 1 ± this
    brightness: float = Field(25.0, ge=0, le=255)  # levels ± this
    hue_degrees: float = Field(0.0, ge=0, le=90)  # ± this, on the colour circle
    grey: float = Field(0.1, ge=0, le=1)
    occlusion: float = Field(0.1, ge=0, le=1)  # by one rectangle of one colour
    occlusion_side: tuple[int, int] = (16, 55)  # pixels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.blur + self.low_resolution > 1:
            raise ValueError("blur and low_resolution exclude each other: their sum is at most 1")
        for name, least, most in _RANGES:
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name}: expected two ascending values from {least} to {most}")
        return self


_RANGES = (("blur_sigma", 0.1, 20), ("low_resolution_side", 4, CROP), ("occlusion_side", 1, CROP - 1))
DEFAULT = Augmentation()


def augment(picture: np.ndarray, rng: np.random.Generator, options: Augmentation = DEFAULT) -> np.ndarray:
    """uint8 [120, 120, 3] RGB → uint8 [112, 112, 3]: geometry, then blur or low resolution, colour, occlusion.

    A function of the picture, the generator and the options; the picture is left alone. With every probability 0 it is
    the centre crop.
    """
    face = (
        _jitter(picture, rng, options)
        if _happens(options.affine, rng)
        else picture[BORDER:-BORDER, BORDER:-BORDER]
    )
    if _happens(options.flip, rng):
        face = face[:, ::-1]
    if _happens(options.blur + options.low_resolution, rng):
        face = _degrade(face, rng, options)
    if _happens(options.colour, rng):
        face = _colour(face, rng, options)
    if _happens(options.grey, rng):
        face = np.repeat(face.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    if _happens(options.occlusion, rng):
        face = _occlude(face, rng, options)
    return np.ascontiguousarray(face)


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """What is certain needs no draw."""
    return probability >= 1 or (probability > 0 and rng.random() < probability)


def _jitter(picture: np.ndarray, rng: np.random.Generator, options: Augmentation) -> np.ndarray:
    """A small similarity around the template: the spread of landmarks, not a new pose."""
    angle, scale = rng.normal(0, options.rotation_degrees), float(np.exp(rng.normal(0, options.scale)))
    matrix = np.asarray(cv2.getRotationMatrix2D((_CENTRE, _CENTRE), angle, scale), np.float64)
    matrix[:, 2] += rng.normal(0, options.shift_pixels, 2) - BORDER
    return cv2.warpAffine(picture, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR)


def _degrade(face: np.ndarray, rng: np.random.Generator, options: Augmentation) -> np.ndarray:
    if rng.random() * (options.blur + options.low_resolution) < options.blur:
        return cv2.GaussianBlur(face, (0, 0), rng.uniform(*options.blur_sigma))
    side = int(rng.integers(*options.low_resolution_side, endpoint=True))
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (CROP, CROP), interpolation=cv2.INTER_LINEAR)


def _colour(face: np.ndarray, rng: np.random.Generator, options: Augmentation) -> np.ndarray:
    gain = rng.uniform(1 - options.contrast, 1 + options.contrast)
    offset = rng.uniform(-options.brightness, options.brightness)
    face = np.clip(face * gain + offset, 0, 255).astype(np.uint8)
    if not options.hue_degrees:
        return face
    hue = cv2.cvtColor(face, cv2.COLOR_RGB2HSV_FULL)
    turn = rng.uniform(-options.hue_degrees, options.hue_degrees) * 256 / 360
    hue[..., 0] += np.uint8(round(turn) % 256)  # the circle closes at 256
    return cv2.cvtColor(hue, cv2.COLOR_HSV2RGB_FULL)


def _occlude(face: np.ndarray, rng: np.random.Generator, options: Augmentation) -> np.ndarray:
    face = face.copy()
    height, width = rng.integers(*options.occlusion_side, 2, endpoint=True)
    top, left = rng.integers(0, CROP - height), rng.integers(0, CROP - width)
    face[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return face
