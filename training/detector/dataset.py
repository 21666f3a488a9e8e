"""What the detector's run reads: photographs kept decoded in memory, and the batch of any step.

A batch is a function of the seed and the step alone, so a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bundle.decode import anchors, encode
from training.data.detection_augment import Crop, augment, pyramid
from training.data.teacher_landmarks import teach
from training.data.widerface import Photograph, masks, wider, with_landmarks
from training.detector.config import DetectorConfig
from training.detector.matching import POSITIVE, match


@dataclass(frozen=True)
class Photographs:
    """Training photographs with their halved copies, decoded once: one core would decode half of its time."""

    every: list[Photograph]
    halves: list[list[np.ndarray]]

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


def load(datasets: Path, cache: Path, longest: int) -> Photographs:
    """The training pictures of WIDER FACE (without those held out) and the mask photographs, landmarks taught."""
    taught = teach(datasets, cache)
    photographs: list[Photograph] = []
    for one in tqdm(_sources(datasets, longest), desc="photographs", unit="picture", mininterval=5):
        photographs.append(with_landmarks(one, taught[one.name]))
    return keep(photographs)


def keep(photographs: list[Photograph]) -> Photographs:
    return Photographs(photographs, [pyramid(one.pixels) for one in photographs])


def _sources(datasets: Path, longest: int) -> Iterable[Photograph]:
    yield from wider(datasets / "wider", "train", longest)
    yield from masks(datasets / "masks", longest)


def batch_of(photographs: Photographs, step: int, config: DetectorConfig) -> Batch:
    """The crops of one step: epochs are shuffled passes over the photographs."""
    per_epoch = max(1, len(photographs) // config.batch)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((config.seed, epoch)).permutation(len(photographs))
    chosen = np.resize(order, max(len(order), config.batch))[
        place * config.batch : (place + 1) * config.batch
    ]
    rng = np.random.default_rng((config.seed, 1, step))
    return targets(
        [augment(photographs.every[i], photographs.halves[i], config.side, rng) for i in chosen], config
    )


def targets(crops: list[Crop], config: DetectorConfig) -> Batch:
    laid = anchors(config.side, config.side, config.anchors)
    labels, boxes, offsets, places = [], [], [], []
    for crop in crops:
        matches = match(laid, crop.boxes, crop.ignored, config.positive_iou, config.negative_iou)
        positive = np.flatnonzero(matches.label == POSITIVE)
        face = matches.face[positive]
        labels.append(matches.label)
        boxes.append(crop.boxes[face])
        places.append(laid[positive])
        offsets.append(encode(crop.boxes[face], crop.landmarks[face], laid[positive], config.anchors)[1])
    return Batch(
        torch.from_numpy(np.stack([crop.pixels for crop in crops])),
        torch.from_numpy(np.stack(labels)),
        *(torch.from_numpy(np.concatenate(of)) for of in (boxes, offsets, places)),
    )
