"""Joint transforms of a photograph, its boxes and its landmarks: crop, flip, colour.

Whatever moves the pixels moves the coordinates by the same matrix, and a flip renames left and right. All chance
comes from the caller's generator: the same one gives the same crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bundle.decode import Floats
from training.data.widerface import Photograph

MIRRORED = [1, 0, 2, 4, 3]  # eyes and mouth corners change sides
SMALLEST = 9.0  # pixels of box height in a crop; below, nobody can tell a face, so the place is ignored
LARGEST_ZOOM = 3.0  # enlarging more than this only shows blocks


@dataclass(frozen=True, slots=True)
class Crop:
    """One square training picture."""

    pixels: npt.NDArray[np.uint8]  # (side, side, 3) RGB
    boxes: Floats  # (faces, 4) xyxy
    ignored: npt.NDArray[np.bool_]  # (faces,)
    landmarks: Floats  # (faces, 5, 2), NaN where unknown


def augment(
    photograph: Photograph, halves: list[npt.NDArray[np.uint8]], side: int, rng: np.random.Generator
) -> Crop:
    """A random crop of `side` pixels. `halves` is the photograph's pyramid: its pixels, then each half the size."""
    crop = cut(photograph, halves, window(photograph, side, rng), side, angle=rng.normal(0, 6))
    if rng.random() < 0.5:
        crop = flip(crop)
    return replace(crop, pixels=recolour(crop.pixels, rng))


def window(photograph: Photograph, side: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Centre x, y and extent (pixels of the photograph) of a square to cut.

    Half of the windows look at the whole scene, half at one face, whose height in the crop is drawn log-uniformly:
    near faces are rare in the photographs, and common before a door's camera.
    """
    height, width = photograph.pixels.shape[:2]
    faces = np.flatnonzero(~photograph.ignored)
    if len(faces) and rng.random() < 0.5:
        x1, y1, x2, y2 = photograph.boxes[rng.choice(faces)]
        wanted = np.exp(rng.uniform(np.log(14), np.log(0.95 * side)))
        extent = min(max((y2 - y1) * side / wanted, side / LARGEST_ZOOM), 1.6 * max(width, height))
        away = rng.uniform(-0.5, 0.5, 2) * max(0.0, extent - 0.8 * (y2 - y1))
        return (x1 + x2) / 2 + away[0], (y1 + y2) / 2 + away[1], extent
    extent = max(min(width, height) * rng.uniform(0.3, 1.0), side / LARGEST_ZOOM)
    if rng.random() < 0.3:  # zoom out: the whole picture with black around, as a letterbox has
        extent = max(width, height) * rng.uniform(1.0, 1.6)
    return _centre(width, extent, rng), _centre(height, extent, rng), extent


def _centre(length: int, extent: float, rng: np.random.Generator) -> float:
    low, high = sorted((extent / 2, length - extent / 2))
    return float(rng.uniform(low, high))


def cut(
    photograph: Photograph,
    halves: list[npt.NDArray[np.uint8]],
    square: tuple[float, float, float],
    side: int,
    angle: float = 0.0,
) -> Crop:
    """The square (centre x, y, extent) of the photograph, turned by `angle` degrees, as `side` × `side` pixels."""
    x, y, extent = square
    matrix: npt.NDArray[Any] = cv2.getRotationMatrix2D((x, y), angle, side / extent)
    matrix[:, 2] += (side - 1) / 2 - np.array([x, y])
    # Bilinear sampling skips pixels when it shrinks by more than two: start from the halved picture then.
    level = int(np.clip(np.log2(extent / side), 0, len(halves) - 1))
    pixels: Any = cv2.warpAffine(
        halves[level], _from_level(matrix, 2**level), (side, side), flags=cv2.INTER_LINEAR
    )
    boxes = _turned(photograph.boxes, matrix)
    points = photograph.landmarks @ matrix[:, :2].T + matrix[:, 2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle > 0) & (middle < side)).all(1)
    # A face whose centre is outside may still show an ear: neither face nor background.
    shows = ((boxes[:, 2:] > 0) & (boxes[:, :2] < side)).all(1)
    ignored = photograph.ignored | ~inside | (boxes[:, 3] - boxes[:, 1] < SMALLEST)
    clipped = boxes.clip(-0.5, side - 0.5)
    return Crop(pixels, clipped[shows].astype(np.float32), ignored[shows], points[shows].astype(np.float32))


def _from_level(matrix: npt.NDArray[np.float64], shrunk: int) -> npt.NDArray[np.float64]:
    """The same map, reading from a picture `shrunk` times smaller (pixel centres at integers)."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.full(2, (shrunk - 1) / 2)
    moved[:, :2] *= shrunk
    return moved


def _turned(boxes: Floats, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Boxes moved and scaled; a small turn moves the centre but leaves the sides upright."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return np.concatenate([middle - half, middle + half], 1)


def flip(crop: Crop) -> Crop:
    """Mirror left and right; twice is the identity."""
    last = crop.pixels.shape[1] - 1
    boxes = crop.boxes.copy()
    boxes[:, [0, 2]] = last - crop.boxes[:, [2, 0]]
    landmarks = crop.landmarks[:, MIRRORED].copy()
    landmarks[..., 0] = last - landmarks[..., 0]
    return Crop(np.asarray(cv2.flip(crop.pixels, 1), np.uint8), boxes, crop.ignored, landmarks)


def recolour(pixels: Any, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8: light, contrast, gamma and tint by one table a channel; at times grey, blurred, compressed."""
    ramp = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.3))
    tint = np.exp(rng.normal(0, 0.08, 3)) * np.exp(rng.normal(0, 0.25))
    table = ((ramp - 0.5) * tint + 0.5 + rng.normal(0, 0.1)) * 255
    pixels = cv2.LUT(pixels, table.clip(0, 255).astype(np.uint8).reshape(256, 1, 3))
    if rng.random() < 0.15:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.5, 1.5))
    if rng.random() < 0.1:
        quality = int(rng.integers(25, 80))
        pixels = cv2.imdecode(
            cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR
        )
    return pixels


def pyramid(pixels: npt.NDArray[np.uint8], smallest: int = 160) -> list[npt.NDArray[np.uint8]]:
    """The picture and its halves, down to `smallest` pixels of the shorter side."""
    levels = [pixels]
    while min(levels[-1].shape[:2]) >= 2 * smallest:
        height, width = (length // 2 for length in levels[-1].shape[:2])
        even = levels[-1][: 2 * height, : 2 * width]  # an odd last row would shift the halves
        levels.append(
            cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        )
    return levels
