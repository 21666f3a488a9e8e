"""The crops of one training step, past pictures that cannot be read.

Whether a picture can be read is part of the data: the same generator and the same files give the same crops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from training.data.annotations.intake import TOLERATED
from training.data.detection_augment import Chances, Crop, augment, mosaic
from training.data.photographs import Photograph
from training.data.pictures import BadData
from training.data.raw_photographs import Picture

MIDDLE = 0.3, 0.7  # of a mosaic's side, where its four parts meet


class TooManyUnread(BadData):
    """More pictures than chance explains became unreadable in the course of a run."""


@dataclass(frozen=True)
class Drawn:
    """crops: one for each photograph asked for; unread: why others than those were taken, one line each."""

    crops: list[Crop]
    unread: tuple[str, ...]


def draw(
    photographs: Sequence[Photograph],
    halves: Sequence[Sequence[Picture]],
    chosen: Iterable[int],
    side: int,
    rng: np.random.Generator,
    *,
    mosaics: float = 0.0,
    chances: Chances | None = None,
) -> Drawn:
    """A random crop of `side` pixels of each chosen photograph; of the next one where its picture is unreadable.

    halves: the `pyramid` of each; mosaics: probability that three others, drawn at random, share the crop; chances: of
    what may be done to each part. Raises BadData where no photograph can be read.
    """
    unread: dict[int, str] = {}

    def crop(first: int, side: int, size: tuple[int, int] | None = None) -> Crop:
        for step in range(len(photographs)):
            row = (first + step) % len(photographs)
            if row in unread:
                continue
            try:
                return augment(photographs[row], halves[row], side, rng, chances=chances, size=size)
            except BadData as error:
                unread[row] = str(error)
        raise BadData(f"no photograph can be read any more, the first: {next(iter(unread.values()), 'none')}")

    def shared(first: int) -> Crop:
        x, y = (round(side * share) for share in rng.uniform(*MIDDLE, 2))
        sizes = (x, y), (side - x, y), (x, side - y), (side - x, side - y)
        rows = first, *rng.integers(0, len(photographs), 3).tolist()
        return mosaic([crop(row, max(size), size) for row, size in zip(rows, sizes, strict=True)])

    crops = [shared(i) if mosaics and rng.random() < mosaics else crop(i, side) for i in map(int, chosen)]
    return Drawn(crops, tuple(unread.values()))


@dataclass
class Unread:
    """What a run over `photographs` pictures could not read so far, each printed once."""

    photographs: int
    reasons: dict[str, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def note(self, found: Iterable[str]) -> None:
        """Raises TooManyUnread beyond the share `TOLERATED` of all pictures: then something else is wrong."""
        for reason in found:
            if reason not in self.reasons:
                self.reasons[reason] = None
                tqdm.write(f"left out: {reason}")
        if len(self) > max(1.0, TOLERATED * self.photographs):
            first = next(iter(self.reasons))
            raise TooManyUnread(
                f"{len(self)} of {self.photographs} photographs became unreadable, the first: {first}"
            )
