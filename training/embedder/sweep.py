"""The learning rate by experiment, on a student of its own."""

from __future__ import annotations

from pathlib import Path

from training.data.identities import Faces
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import Teacher
from training.embedder.objective import batch_of
from training.embedder.sampling import sampler_of
from training.embedder.train import prepare, train_step
from training.loop.distributed import ALONE, World
from training.loop.finder import sweep


def find_rate(
    config: EmbedderConfig,
    run: Path,
    faces: Faces,
    teacher: Teacher | None = None,
    world: World = ALONE,
    steps: int = 100,
) -> float:
    """Sweep the learning rate on a student of its own; writes learning-rate.png into `run`. Returns the suggestion."""
    training, sampler = prepare(config, run, faces, teacher, world), sampler_of(config, faces, world)
    training.student.model.train()

    def step(rate: float) -> float:
        at = training.student.step
        batch = batch_of(faces, sampler.batch(at), at, world.rank, config)
        return train_step(training, batch, rate)[0]["loss"]

    return sweep(step, run / "learning-rate.png", world, steps)
