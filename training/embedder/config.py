"""The embedder's run, as a typed configuration."""

from __future__ import annotations

from pydantic import Field

from training.config import RunConfig


class EmbedderConfig(RunConfig):
    """Defaults are the recipe of the default bundle; a TOML file overrides what it names."""

    dimension: int = Field(128, ge=16, le=1024)
    batch: int = Field(64, ge=2)
    epochs: float = Field(12, gt=0)
    decay_epochs: float = Field(3, ge=0)  # at the end of `epochs`; the plateau before it can be prolonged
    warmup_steps: int = Field(200, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    arcface_weight: float = Field(0.5, ge=0)
    arcface_scale: float = Field(32.0, gt=0)
    arcface_margin: float = Field(0.3, ge=0, lt=1.5)
    distillation_weight: float = Field(20.0, ge=0)
    max_gradient_norm: float = Field(20.0, gt=0)
    checkpoint_steps: int = Field(100, ge=1)
    evaluate_steps: int = Field(540, ge=1)
    seed: int = 7
    threads: int = Field(1, ge=1)
    compile: bool = True
