"""A backbone that learns drawn faces in a few milliseconds a step, and a configuration around it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from training.data.augment import Augmentation
from training.embedder.backbones import BACKBONES
from training.embedder.config import EmbedderConfig

STILL = Augmentation(flip=0, affine=0, blur=0, low_resolution=0, colour=0, grey=0, occlusion=0)
PK_FOUR = {"name": "pk", "people": 2, "pictures": 2}


class Tiny(nn.Module):
    """A face in 7 × 7 colours, and two matrices. `normalised` adds batch normalisation, whose statistics are state."""

    def __init__(self, dimension: int, *, normalised: bool = False) -> None:
        super().__init__()
        self.dimension = dimension
        self.colours = nn.Sequential(nn.AvgPool2d(16), nn.Flatten())
        self.hidden = nn.Linear(147, 24)
        self.slope = nn.PReLU(24)
        self.norm = nn.BatchNorm1d(24) if normalised else nn.Identity()
        self.embedding = nn.Linear(24, dimension)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.norm(self.slope(self.hidden(self.colours(x))))).float()


def know_tiny() -> None:
    """Make "tiny" and "tiny-normalised" known, in a process of its own; tests have the fixture."""
    BACKBONES.update(TINY)


TINY = {"tiny": Tiny, "tiny-normalised": partial(Tiny, normalised=True)}


def tiny(**changed: Any) -> EmbedderConfig:
    """Six steps of four faces for sixteen faces; no teacher."""
    return EmbedderConfig.model_validate(
        {
            "backbone": "tiny",
            "dimension": 16,
            "batch": 4,
            "epochs": 1.5,
            "precision": "fp32",
            "device": "cpu",
            "schedule": {"warmup": 2, "decay": 0.5},
            "head": {"weight": 1.0, "options": {"scale": 16.0, "margin": 0.2}},
            "distillation": {"weight": 0},
            "checkpoint_steps": 2,
            "evaluate_steps": 100,
            "compile": False,
            **changed,
        }
    )


class Colours:
    """A teacher: what a face is coloured like, turned into 16 numbers."""

    dimension = 16
    digest = "c0104125" * 8
    path = None

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
        self.asked += len(crops)
        mean = crops.reshape(len(crops), 4, 28, 4, 28, 3).mean((2, 4)).reshape(len(crops), -1) / 255 - 0.5
        turned = mean @ np.random.default_rng(0).normal(size=(48, self.dimension))
        return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)
