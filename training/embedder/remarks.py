"""What is worth knowing before the first step."""

from __future__ import annotations

import numpy as np
import torch

from training.data.identities import Faces
from training.embedder.config import EmbedderConfig
from training.embedder.margins import least_scale
from training.embedder.objective import believed
from training.embedder.student import Student
from training.embedder.validation import MOST, compared
from training.loop.diagnosis import rate_advice
from training.loop.distributed import World
from training.loop.memory import free_memory, training_memory

SURE = 0.9  # the probability that a perfect embedding shall be able to have for its own identity


def remarks(
    config: EmbedderConfig, student: Student, faces: Faces, validation: Faces, total: int, world: World
) -> list[str]:
    """What takes no part in the training, what it will need, and what will not work out."""
    usual = rate_advice(config.optimiser.name, config.optimiser.learning_rate, config.batch * world.size)
    said = [
        f"{student.step} steps are done already, the configuration asks for {total}"
        if student.step >= total
        else None,
        *_left_out(config, faces, validation),
        _scale_advice(config, faces.identities),
        student.precision.advice,
        _memory(config, student, faces, world),
        usual,
    ]
    return [line for line in said if line]


def _left_out(config: EmbedderConfig, faces: Faces, validation: Faces) -> list[str]:
    clean, rows = believed(faces, config), compared(validation)
    single = int((np.bincount(faces.label[clean]) == 1).sum())
    said = []
    if not clean.all():
        said.append(
            f"{(~clean).sum()} of {len(faces)} faces are unlike their own person (similarity below "
            f"{config.head.least_similarity:g}): identity losses leave them out"
        )
    if config.sampling.name == "pk" and single:
        said.append(f"{single} people have a single picture: they take no part in P × K batches")
    if len(validation) > MOST:
        people = len(np.unique(validation.identity[rows]))
        said.append(
            f"validation compares {MOST:,} of {len(validation):,} faces, always the same of {people:,} people drawn by "
            "chance: the pairs of all would fill the memory"
        )
    return said


def _scale_advice(config: EmbedderConfig, identities: int) -> str | None:
    scale, least = float(config.head.options["scale"]), least_scale(identities, SURE)
    if not config.head.weight or scale >= least:
        return None
    return (
        f"head.options.scale {scale:g} is too small for {identities:,} identities: below {least:.1f} even a perfect "
        f"embedding is given less than {SURE:.0%} for its own; raise it"
    )


def _memory(config: EmbedderConfig, student: Student, faces: Faces, world: World) -> str:
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
    return (free is not None and needed.advice(free)) or f"memory: about {needed}"
