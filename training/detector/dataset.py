"""What the detector's run reads: photographs, and the batch of any step.

A batch is a function of the seed, the step and the rank alone, so a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bundle.decode import AnchorLayout, anchors, encode
from training.data.crops import draw
from training.data.detection_augment import Chances, Crop, pyramid
from training.data.photographs import Photograph
from training.data.raw_photographs import Picture
from training.detector.config import DetectorConfig
from training.detector.matching import POSITIVE, Matches, atss, match
from training.loop.records import Records

TENSORS = ("pixels", "label", "boxes", "offsets", "anchors")


@dataclass(frozen=True)
class Photographs:
    """Training photographs with their halved copies: one core would shrink half of its time. Decoded in memory, or
    decoded from a file when a crop asks (see data/jpeg_cache.py)."""

    every: Sequence[Photograph]
    halves: Sequence[Sequence[Picture]]
    records: Records = ()  # of the sets that they come from

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
    clear: Tensor | None = None  # as pixels, before they were degraded; None where none was

    @property
    def asked(self) -> np.ndarray:
        """uint8 [b, side, side, 3]: what a dense teacher is asked about. It answers for the clear picture, and the
        student has to find the same in the degraded one, as the labels say (arXiv 1911.04252)."""
        return (self.pixels if self.clear is None else self.clear).numpy()

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


def keep(photographs: list[Photograph], records: Records = ()) -> Photographs:
    """With their halves: all decoded in memory, or of photographs that stay in a file none."""
    return Photographs(photographs, [pyramid(one.pixels) for one in photographs], records)


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
        chances=Chances(asked.hiding, asked.turning, asked.degrading),
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
    clear: np.ndarray | None = None


def targets(crop: Crop, config: DetectorConfig) -> Row:
    """Raises BadData for a face without area."""
    side, layout = crop.pixels.shape[0], config.anchors
    laid = anchors(side, side, layout)
    matches = _matched(laid, crop, config)
    positive = np.flatnonzero(matches.label == POSITIVE)
    face = matches.face[positive]
    boxes, places = crop.boxes[face], laid[positive]
    offsets = encode(boxes, crop.landmarks[face], places, layout)[1]
    return Row(crop.pixels, matches.label, boxes, offsets, places, crop.clear)


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
    clear = [row.pixels if row.clear is None else row.clear for row in rows]
    return Batch(
        torch.from_numpy(np.stack([row.pixels for row in rows])),
        torch.from_numpy(np.stack([row.label for row in rows])),
        torch.from_numpy(np.concatenate([row.boxes for row in rows])),
        torch.from_numpy(np.concatenate([row.offsets for row in rows])),
        torch.from_numpy(np.concatenate([row.anchors for row in rows])),
        unread,
        torch.from_numpy(np.stack(clear)) if any(row.clear is not None for row in rows) else None,
    )
