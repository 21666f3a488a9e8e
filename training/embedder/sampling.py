"""Which faces a step takes, as the configuration asks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.identities import Faces
from training.data.sampling import PK, Balanced, Sampler, Shuffled
from training.embedder.config import EmbedderConfig
from training.embedder.objective import believed
from training.loop.distributed import World


def sampler_of(config: EmbedderConfig, faces: Faces, world: World) -> Sampler:
    """The configuration's sampler. Triplets are made of faces whose labels are probably right, for each is a claim."""
    asked, place = config.sampling, (config.seed, world.rank, world.size)
    if asked.name == "pk":
        rows = np.flatnonzero(believed(faces, config))
        return Among(rows, PK(faces.label[rows], asked.people, asked.pictures, *place))
    if asked.name == "balanced":
        return Balanced(faces.label, config.batch, *place, balance=asked.balance)
    return Shuffled(len(faces), config.batch, *place)


@dataclass(frozen=True)
class Among:
    """A sampler of some rows of a set."""

    rows: np.ndarray
    sampler: Sampler

    @property
    def batches_per_epoch(self) -> int:
        return self.sampler.batches_per_epoch

    def batch(self, step: int) -> np.ndarray:
        return self.rows[self.sampler.batch(step)]
