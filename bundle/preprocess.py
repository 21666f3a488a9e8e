"""From a picture to the detector's canvas and back; the one map both training's evaluation and the service use.

Coordinates everywhere have pixel centres at integers, as `cv2.warpAffine` has them, so that a resize by s moves a
point x to (x + 0.5)·s − 0.5. Change this in one place and every landmark is half a pixel off: there is a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # (height, width, 3) RGB
Size = tuple[int, int]  # (width, height), pixels

CANVASES: tuple[Size, ...] = ((640, 480), (480, 640))
MAX_UPSCALE = 1.0


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a picture of `width` × `height` pixels was laid at the top-left of a canvas."""

    scale: float  # canvas pixels per picture pixel, before rounding to whole pixels
    width: int
    height: int

    @property
    def content(self) -> Size:
        """Width and height of the picture on the canvas, in pixels, at least 1."""
        return max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))

    def to_picture(self, coordinates: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Canvas → picture. The last axis alternates x and y: points (…, 2) or boxes (…, 4) as xyxy."""
        return _resized(coordinates, self.content, (self.width, self.height))

    def to_canvas(self, coordinates: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Picture → canvas, the inverse of `to_picture`."""
        return _resized(coordinates, (self.width, self.height), self.content)


def letterbox(image: Picture, size: Size, max_upscale: float = MAX_UPSCALE) -> tuple[Picture, Letterbox]:
    """Scale `image` to fit `size` (width, height) and lay it at the top-left of a black canvas of that size."""
    _require_picture(image)
    height, width = image.shape[:2]
    placed = Letterbox(_scale(width, height, size, max_upscale), width, height)
    across, down = placed.content
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    if (across, down) == (width, height):
        canvas[:height, :width] = image
    else:
        # Averaging keeps small faces from aliasing away; it has no meaning when enlarging.
        how = cv2.INTER_AREA if placed.scale < 1 else cv2.INTER_LINEAR
        canvas[:down, :across] = cv2.resize(image, (across, down), interpolation=how)
    return canvas, placed


def enclosing(size: Size, multiple: int) -> Size:
    """The smallest canvas around `size` whose sides are whole multiples, at least one of them."""
    across, down = (max(1, -(-side // multiple)) * multiple for side in size)
    return across, down


def canvases_of(coarsest: int) -> tuple[Size, ...]:
    """What a detector whose coarsest stride that is sees: CANVASES, and for 64 and 128 640 × 512 and 512 × 640.

    Rounded up: a picture has at least as many pixels as on CANVASES, where a smaller canvas would lose small faces, and
    what is gained of a canvas stays black where the picture ends.
    """
    return tuple(enclosing(size, coarsest) for size in CANVASES)


def canvas_for(
    width: int, height: int, canvases: Sequence[Size] = CANVASES, max_upscale: float = MAX_UPSCALE
) -> Size:
    """The canvas (width, height) on which a picture keeps most of its size; the first of equals.

    A few fixed canvases, instead of one per aspect ratio, let pictures of different callers share a batch.
    """
    if not canvases:
        raise ValueError("no canvas to choose from")
    return max(canvases, key=lambda size: _scale(width, height, size, max_upscale))


def _scale(width: int, height: int, size: Size, max_upscale: float) -> float:
    if width < 1 or height < 1 or min(size) < 1:
        raise ValueError(f"sizes must be positive: picture {width} × {height}, canvas {size[0]} × {size[1]}")
    return min(size[0] / width, size[1] / height, max_upscale)


def _resized(coordinates: npt.NDArray[Any], before: Size, after: Size) -> npt.NDArray[np.float32]:
    values = np.asarray(coordinates, np.float64)
    if values.ndim < 1 or values.shape[-1] % 2:
        raise ValueError(f"the last axis must alternate x and y, got shape {values.shape}")
    ratio = np.resize(np.divide(after, before), values.shape[-1])
    moved: npt.NDArray[np.float32] = ((values + 0.5) * ratio - 0.5).astype(np.float32)
    return moved


def _require_picture(image: Picture) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 picture, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected shape (height, width, 3), got {image.shape}")
