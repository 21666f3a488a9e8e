"""Pictures without anybody in them, on which every find is false: drawn, scikit-image's own, and any folder's.

WIDER FACE has a face in every picture. What others publish as "without faces" has to be asked for: it is only as free
of faces as somebody's look at it was thorough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.decode import Detections
from bundle.preprocess import Picture
from training.data.photographs import unboxed
from training.data.pictures import SUFFIXES, BadData
from training.data.scenes import draw_scene
from training.evaluation.scales import CANVAS

DRAWN = 40  # pictures of clutter, round things and skin's colours among it
# Everything that comes with scikit-image, without what shows people (astronaut, camera, coins with heads) or nothing.
OF_SCIKIT = (
    "brick",
    "chelsea",
    "clock",
    "coffee",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "microaneurysms",
    "moon",
    "page",
    "retina",
    "rocket",
    "text",
)
LONGEST = 1600  # pixels of a folder's pictures


@dataclass(frozen=True)
class FalseFinds:
    """On the pictures of one source: finds a picture with the threshold of one, and of a tenth of a, false positive a
    WIDER picture."""

    source: str
    pictures: int
    at_one: float
    at_tenth: float


def faceless(folder: Path | None = None) -> Iterator[tuple[str, Picture]]:
    """Where it comes from, and RGB (h, w, 3). Raises BadData for a folder without a readable picture.

    Without scikit-image, which only development installs, its pictures are not there.
    """
    # Before anything else is looked at for minutes.
    if folder is not None and not any(of.suffix.lower() in SUFFIXES for of in folder.rglob("*")):
        raise BadData(f"{folder}: no picture ({', '.join(sorted(SUFFIXES))}) in this folder")
    return _pictures(folder)


def _pictures(folder: Path | None) -> Iterator[tuple[str, Picture]]:
    yield from (("drawn", draw_scene(number, *CANVAS, people=()).pixels) for number in range(DRAWN))
    yield from (("scikit-image", of) for of in _of_scikit())
    if folder is not None:
        yield from ((folder.name, np.asarray(of.pixels)) for of in unboxed(folder, LONGEST))


def false_finds(
    sources: Sequence[str], found: Sequence[Detections], at_one: float, at_tenth: float
) -> list[FalseFinds]:
    """By source, in the order in which they first come. found: of each picture; at_one, at_tenth: thresholds."""
    rows = []
    for source in dict.fromkeys(sources):
        scores = [of.scores for name, of in zip(sources, found, strict=True) if name == source]
        rates = [sum(int((of >= least).sum()) for of in scores) / len(scores) for least in (at_one, at_tenth)]
        rows.append(FalseFinds(source, len(scores), *rates))
    return rows


def _of_scikit() -> Iterator[Picture]:
    try:
        from skimage import data
    except ImportError:
        return
    for name in OF_SCIKIT:
        picture = np.asarray(getattr(data, name)())
        coloured = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
        yield np.ascontiguousarray(coloured, np.uint8)
