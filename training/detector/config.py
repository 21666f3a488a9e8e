"""The detector's run, as a typed configuration."""

from __future__ import annotations

from pydantic import Field

from bundle.decode import AnchorLayout
from training.config import RunConfig


class DetectorConfig(RunConfig):
    """Defaults are the recipe of the default bundle; a TOML file overrides what it names."""

    widths: tuple[int, int, int, int] = (16, 48, 80, 112)
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)
    pyramid: int = Field(48, ge=8, multiple_of=4)
    anchors: AnchorLayout = AnchorLayout()
    side: int = Field(320, ge=64, multiple_of=32)  # of a training crop, pixels
    batch: int = Field(32, ge=1)
    epochs: float = Field(100, gt=0)
    decay_share: float = Field(0.3, ge=0, le=1)  # of `epochs`, at the end
    warmup_steps: int = Field(300, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    positive_iou: float = Field(0.35, gt=0, lt=1)
    negative_iou: float = Field(0.28, gt=0, lt=1)
    box_weight: float = Field(2.0, ge=0)
    landmark_weight: float = Field(0.5, ge=0)
    max_gradient_norm: float = Field(10.0, gt=0)
    longest: int = Field(800, ge=64)  # of a cached training picture, pixels
    checkpoint_minutes: float = Field(3.0, gt=0)
    evaluate_epochs: float = Field(10.0, gt=0)
    seed: int = 7
    threads: int = Field(1, ge=1)
    compile: bool = True
