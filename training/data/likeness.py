"""Pictures that look alike: a difference hash, to keep evaluation pictures out of training whatever their source."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 16
NEAR = 32  # of 256 bits: another scale or compression of one picture stays below, two pictures do not


def difference_hash(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """bool [256]: whether each cell of a grey 17 × 16 thumbnail is brighter than its left neighbour."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (np.diff(small, axis=1) > 0).ravel()


def alike(
    pictures: Iterable[tuple[str, npt.NDArray[np.uint8]]], others: Iterable[tuple[str, npt.NDArray[np.uint8]]]
) -> list[tuple[str, str]]:
    """Names of pictures (name, RGB) that look like one of the others, each with the nearest."""
    hashed = {name: difference_hash(picture) for name, picture in others}
    if not hashed:
        return []
    names, table = list(hashed), np.stack(list(hashed.values()))
    found = []
    for name, picture in pictures:
        distance = (table != difference_hash(picture)).sum(1)
        nearest = int(distance.argmin())
        if distance[nearest] <= NEAR:
            found.append((name, names[nearest]))
    return found
