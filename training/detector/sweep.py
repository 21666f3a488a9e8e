"""The learning rate by experiment, on a student of its own."""

from __future__ import annotations

from pathlib import Path

from training.data.sampling import Shuffled
from training.detector.config import DetectorConfig
from training.detector.dataset import Photographs, batch_of
from training.detector.teacher import Teacher
from training.detector.train import first_crops, prepare, train_step
from training.loop.distributed import ALONE, World
from training.loop.finder import sweep


def find_rate(
    config: DetectorConfig,
    run: Path,
    photographs: Photographs,
    teacher: Teacher | None = None,
    world: World = ALONE,
    steps: int = 100,
) -> float:
    """Sweep the learning rate on a student of its own; writes learning-rate.png into `run`. Returns the suggestion."""
    if teacher is None:
        config = config.alone()
    sampler = Shuffled(len(photographs), config.batch, config.seed, world.rank, world.size)
    training = prepare(config, first_crops(photographs, config) if teacher else None, teacher, world)
    training.student.model.train()

    def step(rate: float) -> float:
        at = training.student.step
        batch = batch_of(photographs, sampler.batch(at), at, world.rank, config)
        return train_step(training, batch, rate)[0]["loss"]

    return sweep(step, run / "learning-rate.png", world, steps)
