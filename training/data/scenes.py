"""Drawn scenes: pictures with several people in them, whose boxes and five points are known because they were drawn.

A scene is a function of its arguments alone. See `drawing` for the people.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bundle.decode import Floats
from training.data.drawing import Picture, paste, portrait

STRANGERS = 400_000  # the numbers of people in scenes that name no one begin here


@dataclass(frozen=True)
class DrawnScene:
    """A picture with people in it. boxes: (faces, 4) xyxy; landmarks: (faces, 5, 2); pixel centres at integers."""

    pixels: Picture
    boxes: Floats
    landmarks: Floats
    people: tuple[int, ...]


def draw_scene(
    number: int, width: int = 320, height: int = 240, people: Iterable[int] | None = None
) -> DrawnScene:
    """Scene `number`, a function of its arguments alone; `people` name who is in it, else up to four strangers are."""
    rng = np.random.default_rng((20_081, number))
    if people is None:
        people = STRANGERS + rng.integers(0, 20_000, rng.integers(0, 5))
    named = tuple(int(i) for i in people)
    pixels = _backdrop(width, height, rng)
    boxes: list[npt.NDArray[np.float64]] = []
    landmarks: list[npt.NDArray[np.float64]] = []
    kept: list[int] = []
    for who in named:
        tall = float(np.exp(rng.uniform(np.log(28), np.log(min(width, height) * 0.75))))
        for _ in range(20):
            drawn = portrait(who, int(rng.integers(0, 1000)))
            matrix = _placed(drawn.box, tall, width, height, rng)
            box = _around(drawn.box, matrix)
            if not any(_touch(box, other) for other in boxes):
                pixels = paste(pixels, drawn, matrix)
                boxes.append(box)
                landmarks.append(drawn.landmarks @ matrix[:, :2].T + matrix[:, 2])
                kept.append(who)
                break
            tall = max(24.0, tall * 0.85)
    noisy = pixels + rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0, 6))
    return DrawnScene(
        np.clip(noisy, 0, 255).astype(np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(landmarks, np.float32).reshape(-1, 5, 2),
        tuple(kept),
    )


def _backdrop(width: int, height: int, rng: np.random.Generator) -> Picture:
    """A gradient with clutter of every colour, skin among them: round things alone are not faces."""
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.float32)
    picture = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    for _ in range(int(rng.integers(3, 14))):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        if rng.random() < 0.3:
            colour = (int(rng.integers(150, 245)), int(rng.integers(100, 200)), int(rng.integers(60, 170)))
        x, y, a, b = (int(v) for v in rng.integers(0, (width, height, width // 4, height // 4)))
        if rng.random() < 0.5:
            cv2.ellipse(
                picture, (x, y), (a + 2, b + 2), float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA
            )
        else:
            cv2.rectangle(picture, (x - a, y - b), (x + a, y + b), colour, -1)
    return picture


def _placed(
    box: Floats, tall: float, width: int, height: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(2, 3): the sprite turned a little, its box `tall` pixels, somewhere wholly inside the picture."""
    scale, angle = tall / float(box[3] - box[1]), rng.normal(0, 0.15)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    free = np.concatenate([turn, np.zeros((2, 1))], 1)
    x0, y0, x1, y1 = _around(box, free)
    free[:, 2] = (rng.uniform(-x0, max(-x0, width - 1 - x1)), rng.uniform(-y0, max(-y0, height - 1 - y1)))
    return free


def _around(box: Floats, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The upright box around the ellipse that `box` bounds, after `matrix`."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    centre = matrix[:, :2] @ middle + matrix[:, 2]
    extent = np.sqrt((matrix[:, :2] ** 2) @ half**2)
    return np.concatenate([centre - extent, centre + extent])


def _touch(box: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    return bool((np.maximum(box[:2], other[:2]) < np.minimum(box[2:], other[2:])).all())
