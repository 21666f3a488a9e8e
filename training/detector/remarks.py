"""What is worth knowing before the first step."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from training.data.photographs import Photograph
from training.detector.config import DenseTeaching, DetectorConfig
from training.detector.dataset import Photographs
from training.detector.selection import GATED
from training.detector.student import Student
from training.loop.distributed import World
from training.loop.memory import free_memory, training_memory


def remarks(
    config: DetectorConfig,
    student: Student,
    photographs: Photographs,
    selection: Sequence[Photograph],
    total: int,
    world: World,
) -> list[str]:
    """What the run learns from, what it will need, and what will not work out."""
    said = [str(of) for of in photographs.records]
    if student.step >= total:
        said.append(f"{student.step} steps are done already, the configuration asks for {total}")
    if not any(_pointed(one) for one in photographs.every) and not config.teacher.asked:
        said.append(
            "no face has known points and there is no dense teacher: the five points are not learnt, and nobody can be "
            "aligned by them; have them marked (python -m training mark-faces)"
        )
    if not any((~one.ignored).any() for one in selection):
        said.append(
            f"{len(selection)} pictures are held out for selection, without a face: {GATED} says nothing"
        )
    return [*said, needs(config, student, world)]


def switched_off(config: DetectorConfig) -> list[str]:
    """What to say where the configuration asks for a dense teacher in so many words, and there is none."""
    if config.teacher == DenseTeaching():
        return []
    return [
        "no dense teacher: the configuration's part [teacher] is switched off, the labels alone are learnt"
    ]


def needs(config: DetectorConfig, student: Student, world: World) -> str:
    """The memory that a step takes, or advice where that much is not free."""
    largest = max(config.sides)
    needed = training_memory(
        copy.deepcopy(student.average),
        torch.zeros(1, 3, largest, largest, device=world.device),
        config.micro_batch or config.batch,
        identities=0,
        dimension=0,
        states=config.optimiser.states,
        activation_bytes=4 if config.precision == "fp32" else 2,
    )
    free = free_memory(world.device)
    return (free is not None and needed.advice(free)) or f"memory: about {needed}"


def _pointed(one: Photograph) -> bool:
    """Whether some face of it, not ignored, has known points."""
    return bool((np.isfinite(one.landmarks).all((1, 2)) & ~one.ignored).any())
