"""Pictures of people who do not exist, drawn for the service's tests; tests/synthetic_models.py finds and
tells them apart.

A drawn face is a square: a dark magenta frame around a smooth pattern of brightness and colour that is the
identity. The same arguments draw the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # (height, width, 3) RGB
Box = tuple[float, float, float, float]  # x, y, width, height, pixels

FRAME = 0.1  # of the side
MARKER = (110, 10, 110)
BACKGROUND = (205, 200, 190)
FREQUENCIES = 6


def draw_person(identity: int, variation: int = 0, size: int = 160) -> Picture:
    """uint8 (h, w, 3) RGB: one face of `size` pixels, whose place, size, light and looks vary with
    `variation`.

    Variation 0 is the plain one: in the middle, exactly `size`.
    """
    random = np.random.default_rng([7, identity, variation])
    side = size if variation == 0 else max(12, round(size * random.uniform(0.85, 1.15)))
    height = width = round(2.2 * size)
    free = height - side
    left, top = (free // 2, free // 2) if variation == 0 else random.integers(free // 4, 3 * free // 4 + 1, 2)
    picture = _background(width, height)
    picture[top : top + side, left : left + side] = draw_face(identity, variation, side)
    return _lit(picture, identity, variation)


def draw_scene(people: Sequence[int | tuple[int, int]], size: int = 96, columns: int = 3) -> Picture:
    """uint8 (h, w, 3) RGB: several faces, each an identity or (identity, variation), in rows of `columns`."""
    return place_people(people, size, columns)[0]


def place_people(
    people: Sequence[int | tuple[int, int]], size: int = 96, columns: int = 3
) -> tuple[Picture, list[Box]]:
    """`draw_scene`, and the box (x, y, width, height) of each face, in the order given."""
    rows, pitch = max(1, -(-len(people) // columns)), round(2.4 * size)
    picture = _background(pitch * columns, pitch * rows)
    boxes: list[Box] = []
    for place, person in enumerate(people):
        identity, variation = (person, 0) if isinstance(person, int) else person
        left = (place % columns) * pitch + (pitch - size) // 2
        top = (place // columns) * pitch + (pitch - size) // 2
        picture[top : top + size, left : left + size] = draw_face(identity, variation, size)
        boxes.append((left, top, size, size))
    return picture, boxes


def blank(width: int = 320, height: int = 240) -> Picture:
    """A picture without a face."""
    return _background(width, height)


def draw_face(identity: int, variation: int, side: int) -> Picture:
    """uint8 (side, side, 3): the face alone, frame included."""
    pattern = patterns(np.array([[identity, variation]]), side)[0]
    frame = max(1, round(FRAME * side))
    face = np.empty((side, side, 3), np.uint8)
    face[:] = MARKER
    face[frame:-frame, frame:-frame] = pattern[frame:-frame, frame:-frame]
    return face


def patterns(people: npt.NDArray[Any], side: int) -> Picture:
    """(n, side, side, 3) for (n, 2) identities and variations: R, G, B = l + c, l, l − c, so never
    magenta."""
    coefficients = np.stack([_coefficients(int(identity), int(variation)) for identity, variation in people])
    along = cosines(side)
    fields = np.tanh(1.5 * (along.T @ coefficients @ along))
    light, colour = fields.swapaxes(0, 1)
    level = 175 + 50 * light
    return np.stack([level + 25 * colour, level, level - 25 * colour], -1).round().astype(np.uint8)


def _coefficients(identity: int, variation: int) -> npt.NDArray[np.float32]:
    """(2, f, f) float32: how much of each product of two cosines, the constant one left out, together of
    length 1: the identity's, moved a little by the variation."""
    plain = np.random.default_rng([3, identity]).normal(size=(2, FREQUENCIES, FREQUENCIES))
    if variation:
        plain = plain + 0.25 * np.random.default_rng([5, identity, variation]).normal(size=plain.shape)
    plain[:, 0, 0] = 0
    return (plain / np.linalg.norm(plain, axis=(1, 2), keepdims=True)).astype(np.float32)


@lru_cache(maxsize=64)
def cosines(side: int) -> npt.NDArray[np.float32]:
    """(f, side): cosines of 0 … f − 1 half turns over the face, of mean square 1."""
    at = (np.arange(side) + 0.5) / side
    along = [
        np.cos(np.pi * half_turns * at) * (2**0.5 if half_turns else 1) for half_turns in range(FREQUENCIES)
    ]
    return np.stack(along).astype(np.float32)


def _background(width: int, height: int) -> Picture:
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = BACKGROUND
    return picture


def _lit(picture: Picture, identity: int, variation: int) -> Picture:
    if variation == 0:
        return picture
    random = np.random.default_rng([11, identity, variation])
    noisy = picture * random.uniform(0.85, 1.1) + random.normal(0, 3, picture.shape)
    return noisy.clip(0, 255).astype(np.uint8)
