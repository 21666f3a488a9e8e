"""What is worth knowing before the first step."""

from __future__ import annotations

import numpy as np
import torch

from training.data.identities import Faces
from training.embedder.config import EmbedderConfig
from training.embedder.objective import believed
from training.embedder.student import Student
from training.loop.diagnosis import rate_advice
from training.loop.distributed import World
from training.loop.memory import free_memory, training_memory


def remarks(config: EmbedderConfig, student: Student, faces: Faces, total: int, world: World) -> list[str]:
    """What takes no part in the training, what it will need, and what will not work out."""
    clean = believed(faces, config)
    single = int((np.bincount(faces.label[clean]) == 1).sum())
    said = []
    if student.step >= total:
        said.append(f"{student.step} steps are done already, the configuration asks for {total}")
    if not clean.all():
        said.append(
            f"{(~clean).sum()} of {len(faces)} faces are unlike their own person (similarity below "
            f"{config.head.least_similarity:g}): identity losses leave them out"
        )
    if config.sampling.name == "pk" and single:
        said.append(f"{single} people have a single picture: they take no part in P × K batches")
    needed = training_memory(
        student.average,
        torch.zeros(1, 3, 112, 112, device=world.device),
        min(config.batch, config.micro_batch or config.batch),
        identities=faces.identities,
        dimension=config.dimension,
        states=config.optimiser.states,
        sample_rate=config.head.sample_rate,
        shards=world.size,
        activation_bytes=4 if config.precision == "fp32" else 2,
    )
    free = free_memory(world.device)
    said.append((free is not None and needed.advice(free)) or f"memory: about {needed}")
    usual = rate_advice(config.optimiser.name, config.optimiser.learning_rate, config.batch * world.size)
    return [*said, usual] if usual else said
