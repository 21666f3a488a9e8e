"""Photographs with boxed faces, the one record that the detector's training and evaluation take; and photographs that
nobody boxed, for what a dense teacher has to say about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data.pictures import SUFFIXES, BadData
from training.data.raw_photographs import Picture, read_photograph

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Photograph:
    """One picture and every face that somebody boxed in it; `pixels` may be smaller than annotated (see `scale`).

    Without boxes, all of it is background: somebody looked and saw no face. Of a set that does not fit in memory,
    `pixels` is an `EncodedPixels`: it has a shape, and `np.asarray` decodes it.
    """

    name: str
    pixels: Picture  # (h, w, 3) RGB
    scale: float  # pixels kept per annotated pixel
    boxes: Floats  # (faces, 4) xyxy in `pixels`, whose centres are integers
    ignored: npt.NDArray[np.bool_]  # (faces,) flagged invalid or degenerate: neither face nor background
    landmarks: Floats  # (faces, 5, 2) in `pixels`; NaN where unknown


def with_landmarks(photograph: Photograph, taught: Floats) -> Photograph:
    """The photograph with points (faces, 5, 2) given in annotated pixels, NaN where the teacher did not agree."""
    if taught.shape != (len(photograph.boxes), 5, 2):
        raise ValueError(
            f"{photograph.name}: {len(photograph.boxes)} faces, landmarks of shape {taught.shape}"
        )
    return replace(photograph, landmarks=(taught + 0.5) * np.float32(photograph.scale) - np.float32(0.5))


def shrunk(pixels: Picture, longest: int | None) -> tuple[Picture, float]:
    """The picture, scaled down where a side is longer than `longest` pixels; pixels kept per pixel."""
    if longest is None or max(pixels.shape[:2]) <= longest:
        return pixels, 1.0
    scale = longest / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def unboxed(root: Path, longest: int, at_least: int = 96) -> Iterator[Photograph]:
    """Every picture below `root`, scaled down to `longest` pixels; the whole of it is ignored by the labels' losses.

    Unreadable and tiny pictures are left out and counted aloud. Raises BadData if nothing is left.
    """
    files = sorted(of for of in root.rglob("*") if of.suffix.lower() in SUFFIXES)
    given, bad = 0, []
    for file in tqdm(files, desc=f"photographs, {root.name}", unit="picture", mininterval=5):
        try:
            pixels = read_photograph(file.read_bytes())
        except (BadData, OSError):
            bad.append(file.name)
            continue
        if min(pixels.shape[:2]) < at_least:
            bad.append(file.name)
            continue
        pixels, _ = shrunk(pixels, longest)
        given += 1
        height, width = pixels.shape[:2]
        everything = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32)
        yield Photograph(
            name=f"{root.name}/{file.relative_to(root)}",
            pixels=pixels,
            scale=1.0,
            boxes=everything,
            ignored=np.array([True]),
            landmarks=np.full((1, 5, 2), np.nan, np.float32),
        )
    if bad:
        tqdm.write(f"{root}: {len(bad)} unreadable or tiny pictures left out, the first: {bad[0]}")
    if not given:
        raise BadData(
            f"{root}: no readable picture ({', '.join(sorted(SUFFIXES))}) of at least {at_least} pixels"
        )
