"""Aligned faces for tests of formats: one colour each, so that a picture tells which one it is after any encoding."""

from __future__ import annotations

import cv2
import numpy as np


def plain(level: int, side: int = 112) -> np.ndarray:
    """uint8 (side, side, 3): red `level`, green 255 − `level`, blue 0."""
    return np.full((side, side, 3), (level, 255 - level, 0), np.uint8)


def encoded(level: int, side: int = 112, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, plain(level, side)[..., ::-1])[1].tobytes()


def levels(pictures: np.ndarray) -> list[int]:
    """The `level` of each of the pictures (n, h, w, 3)."""
    return [int(picture[60, 60, 0]) for picture in pictures]
