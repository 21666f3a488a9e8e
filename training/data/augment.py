"""Augmentation of aligned faces: what a door's camera and an imperfect landmark do to a crop."""

from __future__ import annotations

import cv2
import numpy as np

from training.data.identities import SIDE

CROP = 112
_CENTRE = (SIDE - 1) / 2


def augment(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [120, 120, 3] RGB → uint8 [112, 112, 3]: geometry, then blur or low resolution, colour, occlusion."""
    face = _jitter(picture, rng)
    if rng.random() < 0.5:
        face = face[:, ::-1]
    if rng.random() < 0.2:
        face = _degrade(face, rng)
    if rng.random() < 0.4:
        face = np.clip(face * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25), 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        face = np.repeat(face.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    if rng.random() < 0.1:
        face = _occlude(face, rng)
    return np.ascontiguousarray(face)


def _jitter(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small similarity around the template: the spread of landmarks, not a new pose."""
    angle, scale = rng.normal(0, 3.0), float(np.exp(rng.normal(0, 0.04)))
    matrix = np.asarray(cv2.getRotationMatrix2D((_CENTRE, _CENTRE), angle, scale), np.float64)
    matrix[:, 2] += rng.normal(0, 1.5, 2) - (SIDE - CROP) / 2
    return cv2.warpAffine(picture, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR)


def _degrade(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        return cv2.GaussianBlur(face, (0, 0), rng.uniform(0.5, 2.0))
    side = int(rng.integers(24, 80))
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (CROP, CROP), interpolation=cv2.INTER_LINEAR)


def _occlude(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    face = face.copy()
    height, width = rng.integers(16, 56, 2)
    top, left = rng.integers(0, CROP - height), rng.integers(0, CROP - width)
    face[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return face
