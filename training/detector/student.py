"""What a checkpoint holds: the model, its slow average, the optimiser and the place in the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.optim import Optimizer

from training.detector.backbones import backbone
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.loop import checkpoint
from training.loop.distributed import ALONE, World, broadcast
from training.loop.precision import Precision

ARCHITECTURE = ("backbone", "pyramid", "head", "context", "anchors")  # what a checkpoint has to agree in


@dataclass
class Student:
    """One run's state."""

    model: RetinaNet
    average: RetinaNet
    optimiser: Optimizer
    precision: Precision
    step: int = 0

    def state(self, config: DetectorConfig) -> dict[str, Any]:
        """Tensors, numbers and strings alone."""
        return {
            "kind": "detector",
            "config": config.model_dump(mode="json"),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "precision": self.precision.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def restore(self, source: Path, config: DetectorConfig) -> None:
        """Go on from `source`. Raises UnreadableCheckpoint for a damaged one and for one of another model."""
        state = checkpoint.load(source)
        checkpoint.restore(state, source, "detector", {})
        _same_architecture(state.get("config"), source, config)
        parts: dict[str, checkpoint.Stateful] = {
            "model": self.model,
            "average": self.average,
            "optimiser": self.optimiser,
            "precision": self.precision,
        }
        checkpoint.restore(state, source, "detector", parts)
        checkpoint.restore_rng(state["rng"])
        self.step = int(state["step"])


def _same_architecture(made_with: Any, source: Path, config: DetectorConfig) -> None:
    try:
        before = DetectorConfig.model_validate(made_with)
    except ValidationError as error:
        raise checkpoint.UnreadableCheckpoint(f"{source} was made by another version: {error}") from error
    for name in ARCHITECTURE:
        made, asked = getattr(before, name), getattr(config, name)
        if made != asked:
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is of another model: it was trained with {name} ({made}), the configuration says ({asked}); "
                "use another --run"
            )


def model_of(config: DetectorConfig) -> RetinaNet:
    """The network that a configuration describes, with random weights."""
    return RetinaNet(
        backbone(config.backbone.name, **config.backbone.options),
        config.pyramid,
        config.anchors.strides,
        tuple(len(of) for of in config.anchors.sizes),
        config.head,
        config.context,
    )


def build(config: DetectorConfig, world: World = ALONE) -> Student:
    """A student at step 0, alike on every rank. Raises BadConfig for what the configuration cannot mean."""
    torch.manual_seed(config.seed)
    model = model_of(config).to(world.device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = model_of(config).to(world.device)
    broadcast(model, world)
    average.load_state_dict(model.state_dict())
    return Student(
        model, average.eval(), config.optimiser.of(model), Precision(config.precision, world.device)
    )
