"""What the detector's run reads: photographs, and the batch of any step.

A batch is a function of the seed, the step and the rank alone, so a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bundle.decode import AnchorLayout, anchors, encode
from training.data.annotations.sources import open_photographs
from training.data.crops import draw
from training.data.detection_augment import Crop, pyramid
from training.data.jpeg_cache import cached
from training.data.photographs import Photograph, unboxed, with_landmarks
from training.data.raw_photographs import Picture
from training.data.teacher_landmarks import teach
from training.data.widerface import held_out, masks, wider
from training.detector.config import DetectorConfig
from training.detector.matching import POSITIVE, Matches, atss, match

TENSORS = ("pixels", "label", "boxes", "offsets", "anchors")


@dataclass(frozen=True)
class Photographs:
    """Training photographs with their halved copies: one core would shrink half of its time. Decoded in memory, or
    decoded from one file when a crop asks (see data/jpeg_cache.py)."""

    every: Sequence[Photograph]
    halves: Sequence[Sequence[Picture]]

    def __len__(self) -> int:
        return len(self.every)


@dataclass(frozen=True)
class Batch:
    """Crops and what their anchors should say; rows of the targets are the positive anchors of all crops, in order."""

    pixels: Tensor  # uint8 [b, side, side, 3]
    label: Tensor  # int8 [b, a]: 1 face, 0 background, -1 silent
    boxes: Tensor  # float [p, 4] xyxy, pixels
    offsets: Tensor  # float [p, 10], encoded; NaN where unknown
    anchors: Tensor  # float [p, 4]
    unread: tuple[str, ...] = ()  # why photographs of this step were replaced by others

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice) -> Batch:
        first = int((self.label[: part.start] == 1).sum())
        label = self.label[part]
        rows = slice(first, first + int((label == 1).sum()))
        return Batch(self.pixels[part], label, self.boxes[rows], self.offsets[rows], self.anchors[rows])

    def to(self, device: torch.device) -> Batch:
        moved = {name: getattr(self, name).to(device) for name in TENSORS}
        return Batch(**moved, unread=self.unread)


def load(
    datasets: Path, cache: Path, longest: int, folders: Sequence[Path] = (), *, encoded: bool = False
) -> Photographs:
    """The training pictures of WIDER FACE (without those held out) and the mask photographs, landmarks taught; and
    the pictures of `folders`, which nobody boxed.

    encoded: keep them as JPEG in one file beside `cache`, for machines whose memory does not hold them decoded.
    """

    def read() -> Iterator[Photograph]:
        taught = teach(datasets, cache)
        own = chain(wider(datasets / "wider", "train", longest), masks(datasets / "masks", longest))
        yield from (with_landmarks(one, taught[one.name]) for one in own)
        for folder in folders:
            yield from unboxed(folder, longest)

    return _kept(read, cache.parent, (datasets, *folders), longest, encoded)


def load_sets(
    sets: Sequence[Path], cache: Path, longest: int, folders: Sequence[Path] = (), *, encoded: bool = False
) -> tuple[Photographs, list[Photograph]]:
    """The boxed photographs of `sets`, in any format (see data/annotations), and the pictures of `folders`; and the
    tenth of the boxed ones, by name, that is held out for selection."""

    def read(chosen: bool) -> Iterator[Photograph]:
        boxed = chain.from_iterable(open_photographs(of, longest=longest) for of in sets)
        return (one for one in boxed if held_out(one.name) == chosen)

    def training() -> Iterator[Photograph]:
        return chain(read(False), *(unboxed(folder, longest) for folder in folders))

    return _kept(training, cache, (*sets, *folders), longest, encoded), list(read(True))


def keep(photographs: list[Photograph]) -> Photographs:
    """With their halves: all decoded in memory, or of photographs that stay in a file none."""
    return Photographs(photographs, [pyramid(one.pixels) for one in photographs])


def _kept(
    read: Callable[[], Iterator[Photograph]], cache: Path, sets: Sequence[Path], longest: int, encoded: bool
) -> Photographs:
    def shown() -> Iterator[Photograph]:
        return iter(tqdm(read(), desc="photographs", unit="picture", mininterval=5))

    if not encoded:
        return keep(list(shown()))
    named = hashlib.sha256(repr([longest, *(str(of.resolve()) for of in sets)]).encode()).hexdigest()[:12]
    return keep(cached(cache / f"photographs-{named}.jpegs", shown))


def batch_of(
    photographs: Photographs, index: np.ndarray, step: int, rank: int, config: DetectorConfig
) -> Batch:
    """Crops of the photographs at `index`, drawn by a generator of the step and rank alone.

    A photograph that cannot be read is replaced by another, and said in `unread`. Raises BadData where none can be, and
    for a face without area.
    """
    asked = config.augmentation
    drawn = draw(
        photographs.every,
        photographs.halves,
        index,
        side_of(step, config),
        np.random.default_rng((config.seed, 1, step, rank)),
        mosaics=asked.mosaics,
        hiding=asked.hiding,
    )
    return gathered([targets(crop, config) for crop in drawn.crops], drawn.unread)


def side_of(step: int, config: DetectorConfig) -> int:
    """The crops' side at a step: one for all ranks."""
    return int(np.random.default_rng((config.seed, 2, step)).choice(config.sides))


@dataclass(frozen=True)
class Row:
    """One crop and its targets, as in a batch."""

    pixels: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    offsets: np.ndarray
    anchors: np.ndarray


def targets(crop: Crop, config: DetectorConfig) -> Row:
    """Raises BadData for a face without area."""
    side, layout = crop.pixels.shape[0], config.anchors
    laid = anchors(side, side, layout)
    matches = _matched(laid, crop, config)
    positive = np.flatnonzero(matches.label == POSITIVE)
    face = matches.face[positive]
    boxes, places = crop.boxes[face], laid[positive]
    return Row(
        crop.pixels, matches.label, boxes, encode(boxes, crop.landmarks[face], places, layout)[1], places
    )


def _matched(laid: np.ndarray, crop: Crop, config: DetectorConfig) -> Matches:
    asked = config.assignment
    if asked.name == "iou":
        return match(laid, crop.boxes, crop.ignored, asked.positive_iou, asked.negative_iou)
    levels = levels_of(crop.pixels.shape[0], config.anchors)
    return atss(laid, crop.boxes, crop.ignored, levels, asked.nearest)


def levels_of(side: int, layout: AnchorLayout) -> list[tuple[int, int]]:
    """(cells, anchors a cell) of each level of a square picture."""
    return [
        ((side // stride) ** 2, len(sizes))
        for stride, sizes in zip(layout.strides, layout.sizes, strict=True)
    ]


def gathered(rows: list[Row], unread: tuple[str, ...] = ()) -> Batch:
    return Batch(
        torch.from_numpy(np.stack([row.pixels for row in rows])),
        torch.from_numpy(np.stack([row.label for row in rows])),
        torch.from_numpy(np.concatenate([row.boxes for row in rows])),
        torch.from_numpy(np.concatenate([row.offsets for row in rows])),
        torch.from_numpy(np.concatenate([row.anchors for row in rows])),
        unread,
    )
