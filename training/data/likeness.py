"""Pictures that look alike: a difference hash, to keep evaluation pictures out of training whatever their source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 16
NEAR = 32  # of 256 bits: another scale or compression of one picture stays below, two pictures do not
_ROWS = 2048  # of the distances that are in memory at a time

Bits = npt.NDArray[np.bool_]


def difference_hash(picture: npt.NDArray[np.uint8]) -> Bits:
    """bool [256]: whether each cell of a grey 17 × 16 thumbnail is brighter than its left neighbour."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (np.diff(small, axis=1) > 0).ravel()


@dataclass(frozen=True, eq=False)
class Looks:
    """What pictures look like. bits: bool [n, 256], the difference hash of each."""

    names: tuple[str, ...]
    bits: Bits

    @staticmethod
    def of(pictures: Iterable[tuple[str, npt.NDArray[np.uint8]]]) -> Looks:
        """pictures: (name, RGB), one in memory at a time."""
        hashed = [(name, difference_hash(picture)) for name, picture in pictures]
        bits = np.array([of for _, of in hashed], bool).reshape(-1, SIDE * SIDE)
        return Looks(tuple(name for name, _ in hashed), bits)

    def nearest(self, picture: npt.NDArray[np.uint8]) -> str | None:
        """The name of the picture that this one looks like, if there is any."""
        if not self.names:
            return None
        distance = (self.bits != difference_hash(picture)).sum(1)
        nearest = int(distance.argmin())
        return self.names[nearest] if distance[nearest] <= NEAR else None


def alike(
    pictures: Iterable[tuple[str, npt.NDArray[np.uint8]]], others: Iterable[tuple[str, npt.NDArray[np.uint8]]]
) -> list[tuple[str, str]]:
    """Names of pictures (name, RGB) that look like one of the others, each with the nearest."""
    looks = Looks.of(others)
    near = ((name, looks.nearest(picture)) for name, picture in pictures)
    return [(name, other) for name, other in near if other is not None]


def near_pairs(hashes: Bits, others: Bits | None = None) -> Iterator[tuple[int, int]]:
    """(row, row) of every two pictures that look alike, one of each set, or both of the one set and in order.

    hashes: bool [n, 256], others: bool [m, 256].
    """
    second = (hashes if others is None else others).astype(np.float32)
    for start in range(0, len(hashes), _ROWS):
        first = hashes[start : start + _ROWS].astype(np.float32)
        # The bits that differ: those of either less twice those of both; whole numbers, exact in float32.
        distance = first.sum(1)[:, None] + second.sum(1) - 2 * first @ second.T
        for i, j in np.argwhere(distance <= NEAR).tolist():
            if others is not None or start + i < j:
                yield start + i, j
