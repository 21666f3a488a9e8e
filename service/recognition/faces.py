"""A face, and what a picture was found to hold.

Coordinates are pixels of the upright picture; boxes are clipped to it. Faces are listed largest first, so that the
first one is "the largest face" everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.recognition.quality import Quality

Which = Literal["largest", "all"]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: its left top corner and its sides, pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.x + self.width, self.y + self.height


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face. `embedding` is float32 (d,), of unit length, or None where none was asked for."""

    box: Box
    landmarks: Points  # eyes, nose, mouth corners; the picture's left first
    score: float
    quality: Quality
    embedding: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Of the upright picture, pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What one picture holds. `digest` is that of its pixels where it was asked for."""

    image: ImageSize
    faces: tuple[Face, ...]
    timings_ms: Mapping[str, float]
    digest: str | None = None


def clipped(corners: npt.NDArray[Any], width: int, height: int) -> Box | None:
    """`corners` (4,) xyxy as a box inside a picture of that size; None where nothing of it is inside."""
    left, right = (min(max(float(x), 0.0), float(width)) for x in corners[0::2])
    top, bottom = (min(max(float(y), 0.0), float(height)) for y in corners[1::2])
    if right <= left or bottom <= top:
        return None
    return Box(left, top, right - left, bottom - top)
