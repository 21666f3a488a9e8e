"""Drawn people: face-like pictures whose identity, landmarks and boxes are known because they were drawn.

Everything is a function of its numbers alone. A change of the drawing changes the golden inputs and the synthetic
sets, nothing that was published from real data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from bundle.align import TEMPLATE, similarity
from bundle.decode import Floats

Picture = npt.NDArray[np.uint8]  # (h, w, 3) RGB

ZOOM = 2  # sprite pixels per template pixel
ORIGIN = 34.0  # template pixels left of and above the 112 × 112 crop that a sprite holds too
SPRITE = round((112 + 2 * ORIGIN) * ZOOM)
_SHIFT = 4  # fractional bits of cv2's drawing coordinates


@dataclass(frozen=True)
class Portrait:
    """A head in sprite pixels: colour and how opaque it is, where its five points are, and its box.

    rgba: uint8 (SPRITE, SPRITE, 4); landmarks: float32 (5, 2); box: float32 (4,) xyxy, forehead to chin, ear to ear.
    """

    rgba: npt.NDArray[np.uint8]
    landmarks: Floats
    box: Floats


@lru_cache(maxsize=64)
def portrait(identity: int, variation: int) -> Portrait:
    """The picture `variation` of person `identity`; another variation smiles, looks or is lit otherwise."""
    who = np.random.default_rng((20_071, identity))
    now = np.random.default_rng((20_072, identity, variation))
    skin = np.array([(236, 200, 176), (224, 172, 140), (190, 132, 96), (126, 84, 60), (88, 58, 44)])[
        who.integers(5)
    ]
    skin = np.clip(skin + who.normal(0, 10, 3), 20, 250)
    hair, shirt = who.uniform(10, 210, 3) * (0.4, 0.35, 0.3) + who.uniform(0, 60), who.uniform(20, 235, 3)
    points = TEMPLATE + who.normal(0, 1.6, (5, 2)) + now.normal(0, 0.5, (5, 2))
    pen = _Pen()
    half, tall, middle = who.uniform(34, 44), who.uniform(47, 57), (56 + who.normal(0, 1), 66.0)
    pen.ellipse(middle[0], 146, who.uniform(46, 62), 34, shirt)
    pen.ellipse(middle[0], 116, half * 0.5, 34, skin * 0.85)
    pen.ellipse(
        middle[0],
        middle[1] - who.uniform(8, 18),
        half * who.uniform(1.05, 1.3),
        tall * who.uniform(1, 1.2),
        hair,
    )
    for side in (-1, 1):
        pen.ellipse(middle[0] + side * half, 66, 5, 9, skin * 0.9)
    pen.ellipse(*middle, half, tall, skin)
    if who.random() < 0.35:  # a fringe
        pen.ellipse(
            middle[0] + who.uniform(-14, 14),
            middle[1] - tall * 0.86,
            half * 0.8,
            tall * who.uniform(0.16, 0.3),
            hair,
        )
    if who.random() < 0.3:
        pen.ellipse(
            middle[0], points[3:, 1].mean() + 8, half * who.uniform(0.5, 0.7), who.uniform(13, 19), hair * 0.8
        )
    _features(pen, points, skin, hair, who, now)
    light = _light(pen.rgba, now)
    box = np.array([middle[0] - half, middle[1] - tall, middle[0] + half, middle[1] + tall])
    return Portrait(light, _sprite(points), _sprite(box.reshape(2, 2)).reshape(4))


def aligned(identity: int, variation: int, side: int = 112) -> Picture:
    """The crop (side, side, 3) that five slightly wrong landmarks lead to, the template in its middle."""
    rng = np.random.default_rng((20_073, identity, variation))
    drawn = portrait(identity, variation)
    matrix = similarity(drawn.landmarks + rng.normal(0, 0.9 * ZOOM, (5, 2)))
    matrix[:, 2] += (side - 112) / 2
    backdrop = np.empty((side, side, 3), np.uint8)
    backdrop[:] = rng.integers(0, 256, 3)
    picture = paste(backdrop, drawn, matrix)
    if rng.random() < 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 1.5)), np.uint8)
    noisy = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0, 8))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def paste(picture: Picture, drawn: Portrait, matrix: npt.NDArray[np.float64]) -> Picture:
    """`picture` with the portrait laid over it through `matrix` (2, 3), sprite pixels → picture pixels."""
    height, width = picture.shape[:2]
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    rgba = drawn.rgba
    if scale < 0.5:  # average before the warp skips pixels
        smaller = max(0.1, scale)
        rgba = np.asarray(
            cv2.resize(rgba, None, fx=smaller, fy=smaller, interpolation=cv2.INTER_AREA), np.uint8
        )
        factor = rgba.shape[0] / SPRITE
        # sprite = (small + 0.5) / factor − 0.5, composed before `matrix`
        turn = matrix[:, :2] / factor
        matrix = np.concatenate(
            [turn, (matrix[:, 2] + matrix[:, :2] @ np.full(2, 0.5 / factor - 0.5))[:, None]], 1
        )
    warped = cv2.warpAffine(rgba, matrix, (width, height), flags=cv2.INTER_LINEAR)
    opaque = warped[..., 3:].astype(np.float32) / 255
    return (warped[..., :3] * opaque + picture * (1 - opaque) + 0.5).astype(np.uint8)


def _features(
    pen: _Pen,
    points: npt.NDArray[np.float64],
    skin: npt.NDArray[np.float64],
    hair: npt.NDArray[np.float64],
    who: np.random.Generator,
    now: np.random.Generator,
) -> None:
    iris, size, open_eye = who.uniform(20, 170, 3), who.uniform(5.5, 9), now.uniform(0.75, 1.1)
    thick, raised, tilt = who.uniform(1.2, 4.2), who.uniform(9, 14), who.uniform(-0.25, 0.25)
    gaze = now.uniform(-1.5, 1.5)
    for side, (x, y) in zip((-1, 1), points[:2], strict=True):
        pen.ellipse(x, y, size, size * 0.55 * open_eye, np.array([245, 245, 240]))
        pen.ellipse(x + gaze, y, size * 0.45, size * 0.5 * open_eye, iris)
        pen.ellipse(x + gaze, y, size * 0.2, size * 0.22, np.array([10, 10, 10]))
        pen.line(
            (x - size, y - raised - side * tilt * size),
            (x + size, y - raised + side * tilt * size),
            thick,
            hair * 0.7,
        )
    nose, bridge = points[2], points[:2].mean(0)
    begin = (float(bridge[0] + who.uniform(-3, 3)), float(bridge[1] + 6))
    pen.line(begin, tuple(nose), who.uniform(1, 2.5), skin * 0.78)
    pen.ellipse(nose[0], nose[1], who.uniform(4, 8), who.uniform(2.5, 4.5), skin * 0.72)
    mouth, lips = points[3:].mean(0), np.clip(skin * (0.85, 0.5, 0.5) + who.normal(0, 15, 3), 0, 255)
    wide, full = abs(points[4, 0] - points[3, 0]) / 2, who.uniform(2, 5.5)
    pen.ellipse(mouth[0], mouth[1], wide, full, lips)
    pen.ellipse(mouth[0], mouth[1], wide * 0.85, full * now.uniform(0.05, 0.7), np.array([70, 20, 25]))
    if who.random() < 0.25:  # glasses
        rim, frame = who.uniform(10, 13), who.uniform(0, 120, 3)
        for x, y in points[:2]:
            pen.ring(x, y, rim, rim * who.uniform(0.7, 0.95), frame)
        pen.line(tuple(points[0] + (rim, 0)), tuple(points[1] - (rim, 0)), 1.5, frame)
    for _ in range(who.integers(0, 4)):  # moles
        pen.ellipse(who.uniform(32, 80), who.uniform(60, 104), 1.3, 1.3, skin * 0.45)


def _light(rgba: npt.NDArray[np.uint8], now: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Another strength, tint and direction of light; the outline stays."""
    along = np.linspace(-1, 1, SPRITE, dtype=np.float32)
    slope = now.uniform(-0.25, 0.25, 2)
    gain = now.uniform(0.75, 1.2) * (1 + slope[0] * along[None, :, None] + slope[1] * along[:, None, None])
    gain = (gain * now.uniform(0.94, 1.06, 3)).astype(np.float32)
    rgba[..., :3] = np.minimum(rgba[..., :3] * gain, 255).astype(np.uint8)
    return rgba


def _sprite(points: npt.NDArray[np.float64]) -> Floats:
    """Template pixels → sprite pixels; centres at integers in both."""
    return ((points + ORIGIN + 0.5) * ZOOM - 0.5).astype(np.float32)


class _Pen:
    """Draws in template pixels on a transparent sprite, with fractions of a pixel."""

    def __init__(self) -> None:
        self.rgba: npt.NDArray[np.uint8] = np.zeros((SPRITE, SPRITE, 4), np.uint8)

    def ellipse(
        self, x: float, y: float, half_width: float, half_height: float, colour: npt.NDArray[np.float64]
    ) -> None:
        self._ellipse(x, y, half_width, half_height, colour, -1)

    def ring(
        self, x: float, y: float, half_width: float, half_height: float, colour: npt.NDArray[np.float64]
    ) -> None:
        self._ellipse(x, y, half_width, half_height, colour, 2 * ZOOM)

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        width: float,
        colour: npt.NDArray[np.float64],
    ) -> None:
        cv2.line(
            self.rgba,
            self._fixed(*start),
            self._fixed(*end),
            self._colour(colour),
            max(1, round(width * ZOOM)),
            cv2.LINE_AA,
            _SHIFT,
        )

    def _ellipse(
        self, x: float, y: float, a: float, b: float, colour: npt.NDArray[np.float64], thickness: int
    ) -> None:
        axes = (round(a * ZOOM * 2**_SHIFT), round(b * ZOOM * 2**_SHIFT))
        cv2.ellipse(
            self.rgba,
            self._fixed(x, y),
            axes,
            0,
            0,
            360,
            self._colour(colour),
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )

    @staticmethod
    def _fixed(x: float, y: float) -> tuple[int, int]:
        across, down = _sprite(np.array([x, y]))
        return round(float(across) * 2**_SHIFT), round(float(down) * 2**_SHIFT)

    @staticmethod
    def _colour(colour: npt.NDArray[np.float64]) -> tuple[int, int, int, int]:
        red, green, blue = (int(c) for c in np.clip(colour, 0, 255))
        return red, green, blue, 255
