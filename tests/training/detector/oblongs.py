"""The smallest pictures that a detector can learn from: a bright oblong in noise, which stands for a face."""

from __future__ import annotations

import numpy as np

from training.data.photographs import Photograph
from training.detector.config import DetectorConfig

SMALL = DetectorConfig(
    backbone={"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},  # type: ignore[arg-type]
    pyramid=8,
    sides=(64,),
    batch=4,
    epochs=3,
    precision="fp32",  # bf16 of such tiny layers is slower
    schedule={"warmup": 2, "decay": 0.3},  # type: ignore[arg-type]
    checkpoint_steps=2,
    evaluate_epochs=100,
    compile=False,
)


def oblongs(count: int) -> list[Photograph]:
    """Pictures of 128 × 96 with one oblong of 32 × 40 each and its five points."""
    rng = np.random.default_rng(0)
    drawn = []
    for index in range(count):
        pixels = rng.integers(0, 80, (96, 128, 3), np.uint8)
        x, y = rng.integers(5, 60), rng.integers(5, 40)
        pixels[y : y + 40, x : x + 32] = 220
        box = np.array([[x, y, x + 32, y + 40]], np.float32) - 0.5
        points = np.array(
            [[[8 + x, 10 + y], [24 + x, 10 + y], [16 + x, 20 + y], [10 + x, 30 + y], [22 + x, 30 + y]]]
        )
        drawn.append(
            Photograph(f"drawn/{index}", pixels, 1.0, box, np.array([False]), points.astype(np.float32))
        )
    return drawn
