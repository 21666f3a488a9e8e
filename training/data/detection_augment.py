"""Joint transforms of a photograph, its boxes and its landmarks: crop, turn, flip, colour; if asked hiding, mosaic,
wide turns, and the dark, shaken and hazy pictures that a poor camera takes.

Whatever moves the pixels moves the coordinates by the same matrix, and a flip renames left and right. All chance
comes from the caller's generator: the same one gives the same crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import cv2
import numpy as np
import numpy.typing as npt

from bundle.decode import Floats
from training.data.jpeg_cache import HALVINGS, EncodedHalves, EncodedPixels
from training.data.photographs import Photograph
from training.data.raw_photographs import Picture

MIRRORED = [1, 0, 2, 4, 3]  # eyes and mouth corners change sides
SMALLEST = 7.0  # pixels of box height in a crop; below, nobody can tell a face, so the place is ignored
SHORTEST = (
    14.0  # pixels of a face that a crop is cut around; 10 left the drawn recipe 7 of 24 people right, 14 17
)
LARGEST_ZOOM = 3.0  # enlarging more than this only shows blocks
UPRIGHT, WIDE = 6.0, 35.0  # standard deviation of the turns, degrees: most heads are upright, few lie
HIDDEN = 0.5  # share of a box; behind more, nobody can tell a face


@dataclass(frozen=True, slots=True)
class Chances:
    """Probabilities of what is not done to every crop."""

    hiding: float = 0.0  # something is in front of a face
    turning: float = 0.0  # by WIDE instead of UPRIGHT
    degrading: float = 0.0  # dark, shaken or hazy


@dataclass(frozen=True, slots=True)
class Crop:
    """One training picture, square but for a part of a mosaic."""

    pixels: Picture  # (side, side, 3) RGB
    boxes: Floats  # (faces, 4) xyxy
    ignored: npt.NDArray[np.bool_]  # (faces,)
    landmarks: Floats  # (faces, 5, 2), NaN where unknown
    clear: Picture | None = None  # the same before `degrade`; None where nothing was degraded


def augment(
    photograph: Photograph,
    halves: Sequence[Picture],
    side: int,
    rng: np.random.Generator,
    *,
    chances: Chances | None = None,
    size: tuple[int, int] | None = None,
) -> Crop:
    """A random crop of `side` pixels. `halves` is the photograph's pyramid: its pixels, then each half the size.

    size: see `cut`. Raises BadData where a picture that stays in its file cannot be read any more.
    """
    of = chances or Chances()
    square = window(photograph, side, rng)
    angle = rng.normal(0, WIDE if of.turning and rng.random() < of.turning else UPRIGHT)
    crop = cut(photograph, halves, square, side, angle=angle, size=size)
    if rng.random() < 0.5:
        crop = flip(crop)
    crop = replace(crop, pixels=recolour(crop.pixels, rng))
    if of.hiding and rng.random() < of.hiding:
        crop = hide(crop, rng)
    if of.degrading and rng.random() < of.degrading:
        crop = replace(crop, pixels=degrade(crop.pixels, rng), clear=crop.pixels)
    return crop


def window(photograph: Photograph, side: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Centre x, y and extent (pixels of the photograph) of a square to cut.

    Half of the windows look at the whole scene, half at one face, whose height in the crop is drawn log-uniformly:
    near faces are rare in the photographs, and common before a door's camera. A window shows as much of the photograph
    as it can: a quarter of all pixels were black where it could look past the edge, and nothing is learnt from black.
    """
    height, width = photograph.pixels.shape[:2]
    faces = np.flatnonzero(~photograph.ignored)
    if len(faces) and rng.random() < 0.5:
        x1, y1, x2, y2 = photograph.boxes[rng.choice(faces)]
        wanted = np.exp(rng.uniform(np.log(SHORTEST), np.log(0.95 * side)))
        extent = min(max((y2 - y1) * side / wanted, side / LARGEST_ZOOM), 1.25 * max(width, height))
        away = rng.uniform(-0.5, 0.5, 2) * max(0.0, extent - 0.8 * (y2 - y1))
        x, y = (x1 + x2) / 2 + away[0], (y1 + y2) / 2 + away[1]
        return float(np.clip(x, *_within(width, extent))), float(np.clip(y, *_within(height, extent))), extent
    extent = max(min(width, height) * rng.uniform(0.3, 1.0), side / LARGEST_ZOOM)
    if rng.random() < 0.3:  # zoom out: the whole picture with black around, as a letterbox has
        extent = max(width, height) * rng.uniform(1.0, 1.4)
    x, y = rng.uniform(*_within(width, extent)), rng.uniform(*_within(height, extent))
    return float(x), float(y), extent


def _within(length: int, extent: float) -> tuple[float, float]:
    """The first and last middle of a window that shows as much of a length as it can."""
    low, high = sorted((extent / 2, length - extent / 2))
    return low, high


def cut(
    photograph: Photograph,
    halves: Sequence[Picture],
    square: tuple[float, float, float],
    side: int,
    angle: float = 0.0,
    size: tuple[int, int] | None = None,
) -> Crop:
    """The square (centre x, y, extent) of the photograph, turned by `angle` degrees, as `side` × `side` pixels.

    size: the width and height of its middle, where only that is wanted.
    """
    x, y, extent = square
    width, height = size or (side, side)
    edge = np.array([width, height])
    matrix: npt.NDArray[Any] = cv2.getRotationMatrix2D((x, y), angle, side / extent)
    matrix[:, 2] += (edge - 1) / 2 - np.array([x, y])
    # Bilinear sampling skips pixels when it shrinks by more than two: start from the halved picture then.
    level = int(np.clip(np.log2(extent / side), 0, len(halves) - 1))
    pixels: Any = cv2.warpAffine(
        halves[level], _from_level(matrix, 2**level), (width, height), flags=cv2.INTER_LINEAR
    )
    boxes = _turned(photograph.boxes, matrix, np.deg2rad(angle))
    points = photograph.landmarks @ matrix[:, :2].T + matrix[:, 2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle > 0) & (middle < edge)).all(1)
    # A face whose centre is outside may still show an ear: neither face nor background.
    shows = ((boxes[:, 2:] > 0) & (boxes[:, :2] < edge)).all(1)
    ignored = photograph.ignored | ~inside | (boxes[:, 3] - boxes[:, 1] < SMALLEST)
    clipped = boxes.clip(-0.5, np.tile(edge, 2) - 0.5)
    return Crop(pixels, clipped[shows].astype(np.float32), ignored[shows], points[shows].astype(np.float32))


def _from_level(matrix: npt.NDArray[np.float64], shrunk: int) -> npt.NDArray[np.float64]:
    """The same map, reading from a picture `shrunk` times smaller (pixel centres at integers)."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.full(2, (shrunk - 1) / 2)
    moved[:, :2] *= shrunk
    return moved


def _turned(boxes: Floats, matrix: npt.NDArray[np.float64], angle: float) -> npt.NDArray[np.float64]:
    """Boxes moved, scaled and turned: again upright, around the ellipse that filled them, as a head does."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    turned = np.hypot(half * np.cos(angle), half[:, ::-1] * np.sin(angle))
    half = np.where((half > 0).all(1, keepdims=True), turned, half)  # what has no area is not given one
    return np.concatenate([middle - half, middle + half], 1)


def flip(crop: Crop) -> Crop:
    """Mirror left and right; twice is the identity."""
    last = crop.pixels.shape[1] - 1
    boxes = crop.boxes.copy()
    boxes[:, [0, 2]] = last - crop.boxes[:, [2, 0]]
    landmarks = crop.landmarks[:, MIRRORED].copy()
    landmarks[..., 0] = last - landmarks[..., 0]
    return Crop(np.asarray(cv2.flip(crop.pixels, 1), np.uint8), boxes, crop.ignored, landmarks)


def mosaic(parts: Sequence[Crop]) -> Crop:
    """Four crops as one, in reading order: those of a row are equally high, those of a column equally wide."""
    height, width = parts[0].pixels.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float32)
    return Crop(
        _joined([one.pixels for one in parts]),
        np.concatenate([one.boxes + np.tile(corner, 2) for one, corner in zip(parts, corners, strict=True)]),
        np.concatenate([one.ignored for one in parts]),
        np.concatenate([one.landmarks + corner for one, corner in zip(parts, corners, strict=True)]),
        _joined([one.clear if one.clear is not None else one.pixels for one in parts])
        if any(one.clear is not None for one in parts)
        else None,
    )


def _joined(parts: Sequence[Picture]) -> Picture:
    return np.concatenate([np.concatenate(parts[row : row + 2], 1) for row in (0, 2)])


def hide(crop: Crop, rng: np.random.Generator) -> Crop:
    """Something plain or noisy in front of a part of one face, or of anything where there is none."""
    height, width = crop.pixels.shape[:2]
    faces = np.flatnonzero(~crop.ignored)
    face = crop.boxes[rng.choice(faces)] if len(faces) else np.array([0, 0, width, height]) - 0.5
    half = (face[2:] - face[:2]) * rng.uniform((0.25, 0.1), (0.6, 0.25))
    middle = rng.uniform(face[:2], face[2:])
    edges = np.round(np.concatenate([middle - half, middle + half])).astype(int)
    x1, y1, x2, y2 = edges.clip(0, [width, height, width, height]).tolist()
    noise = rng.normal(0, 40, (y2 - y1, x2 - x1, 3)) * (rng.random() < 0.5)
    return covered(crop, x1, y1, (rng.integers(0, 256, 3) + noise).clip(0, 255).astype(np.uint8))


def covered(crop: Crop, x1: int, y1: int, pattern: Picture) -> Crop:
    """The crop behind `pattern` (h, w, 3), whose first column and row are x1 and y1.

    A face of which that hides more than `HIDDEN` is ignored. Points stay where they are: as under a mask, one can tell.
    """
    x2, y2 = x1 + pattern.shape[1], y1 + pattern.shape[0]
    pixels = crop.pixels.copy()
    pixels[y1:y2, x1:x2] = pattern
    box = np.array([x1, y1, x2, y2]) - 0.5
    common = np.minimum(crop.boxes[:, 2:], box[2:]) - np.maximum(crop.boxes[:, :2], box[:2])
    area = (crop.boxes[:, 2:] - crop.boxes[:, :2]).prod(1)
    ignored = crop.ignored | (common.clip(0).prod(1) > HIDDEN * area)
    return replace(crop, pixels=pixels, ignored=ignored)


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


def degrade(pixels: Any, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8 as a poor camera takes it: in the dark, with the noise of the dark; shaken; or through haze."""
    kind = rng.integers(3)
    if kind == 0:
        dark = pixels * rng.uniform(0.12, 0.5) + rng.normal(0, rng.uniform(1, 8), pixels.shape)
        return dark.clip(0, 255).astype(np.uint8)
    if kind == 1:
        length, angle = int(rng.integers(3, 12)), rng.uniform(0, 180)
        turn = cv2.getRotationMatrix2D(((length - 1) / 2,) * 2, angle, 1.0)
        line = np.zeros((length, length), np.float32)
        line[(length - 1) // 2] = 1
        kernel = cv2.warpAffine(line, turn, (length, length))
        return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.uint8)
    level, contrast = rng.uniform(60, 200), rng.uniform(0.2, 0.6)
    table = (level + (np.arange(256) - level) * contrast).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table), np.uint8)


@overload
def pyramid(pixels: Picture, smallest: int = 160) -> list[Picture]: ...
@overload
def pyramid(pixels: EncodedPixels, smallest: int = 160) -> EncodedHalves: ...
def pyramid(pixels: Picture | EncodedPixels, smallest: int = 160) -> list[Picture] | EncodedHalves:
    """The picture and its halves, down to `smallest` pixels of the shorter side; of one that stays in its file, decoded
    when they are asked for, down to an eighth."""
    if isinstance(pixels, EncodedPixels):
        halvings = int(np.log2(max(1.0, min(pixels.shape[:2]) / smallest)))
        return EncodedHalves(pixels, 1 + min(halvings, HALVINGS))
    levels = [pixels]
    while min(levels[-1].shape[:2]) >= 2 * smallest:
        height, width = (length // 2 for length in levels[-1].shape[:2])
        even = levels[-1][: 2 * height, : 2 * width]  # an odd last row would shift the halves
        levels.append(
            cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        )
    return levels
