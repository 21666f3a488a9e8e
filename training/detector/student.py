"""What a checkpoint holds: the model, its slow average, the optimiser, the place in the data, and what it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.optim import Optimizer

from training.config import wrong_values
from training.detector.backbones import backbone
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.loop import checkpoint
from training.loop.distributed import ALONE, World, broadcast
from training.loop.lineage import LINEAGE, Lineage, begun_from, in_words, lineage_of
from training.loop.optimiser import restore_optimiser
from training.loop.precision import Precision
from training.loop.records import PHOTOGRAPHS, Records, records_of, united

ARCHITECTURE = ("backbone", "pyramid", "head", "context", "anchors")  # what a checkpoint has to agree in


@dataclass
class Student:
    """One run's state."""

    model: RetinaNet
    average: RetinaNet
    optimiser: Optimizer
    precision: Precision
    step: int = 0
    lineage: Lineage = ()
    records: Records = ()

    def state(self, config: DetectorConfig) -> dict[str, Any]:
        """Tensors, numbers and strings alone."""
        return {
            "kind": "detector",
            "config": config.model_dump(mode="json"),
            "step": self.step,
            LINEAGE: [of.model_dump() for of in self.lineage],
            PHOTOGRAPHS: [of.model_dump() for of in self.records],
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "precision": self.precision.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def restore(self, source: Path, config: DetectorConfig) -> None:
        """Go on from `source`. Hyperparameters stay those of this run.

        Raises UnreadableCheckpoint for a damaged file, for one of another model or optimiser, and for one that was
        shortened to be begun from.
        """
        state = checkpoint.load(source)
        checkpoint.restore(state, source, "detector", {})
        _same_architecture(made_with(state, source), source, config)
        if missing := {"step", "optimiser", "rng"} - state.keys():
            raise checkpoint.UnreadableCheckpoint(
                f"{source} holds no {', '.join(sorted(missing))}: a new --run can --begin-from it, but none can go on"
            )
        parts: dict[str, checkpoint.Stateful] = {"model": self.model, "average": self.average}
        checkpoint.restore(state, source, "detector", {**parts, "precision": self.precision})
        restore_optimiser(self.optimiser, state, source, "detector")
        checkpoint.restore_rng(state["rng"])
        self.lineage, self.records = lineage_of(state, source), records_of(state, source)
        self.step = int(state["step"])

    def begin_from(self, source: Path, config: DetectorConfig) -> str:
        """Take another run's averaged weights wherever name and shape agree; still step 0.

        For finer training and for a changed architecture. `lineage` and `records` tell it from then on. Returns what
        was taken, in words. Raises UnreadableCheckpoint where less than half of the backbone agrees.
        """
        if not source.is_file():
            raise checkpoint.UnreadableCheckpoint(f"{source}: no such checkpoint; begin from another run")
        state = checkpoint.load(source, remedy="begin from another run")
        if state.get("kind") != "detector" or not {"config", "step", "average"} <= state.keys():
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is not a detector's checkpoint of this version: begin from another run"
            )
        before, own = made_with(state, source), self.model.state_dict()
        taken = {
            name: of for name, of in state["average"].items() if name in own and own[name].shape == of.shape
        }
        ours, theirs = (sum(name.startswith("backbone.") for name in of) for of in (own, taken))
        if 2 * theirs < ours:
            raise checkpoint.UnreadableCheckpoint(
                f"{source} shares {theirs} of {ours} tensors with this backbone: that is {before.backbone}, this "
                f"{config.backbone}; begin from another run"
            )
        lineage = begun_from({**state, "config": {"backbone": str(before.backbone)}}, source)
        records = united(records_of(state, source), self.records)
        for model in (self.model, self.average):
            model.load_state_dict({**own, **taken})
        self.lineage, self.records = lineage, records
        other = (
            "" if before.anchors == config.anchors else "; its anchors were others, the heads learn ours anew"
        )
        return f"begins with {len(taken)} of {len(own)} tensors of {source}: {in_words(lineage)}{other}"


def made_with(state: dict[str, Any], source: Path) -> DetectorConfig:
    """The configuration in a checkpoint, of whatever version. Raises UnreadableCheckpoint."""
    try:
        return DetectorConfig.model_validate(state.get("config"))
    except ValidationError as error:
        raise checkpoint.UnreadableCheckpoint(
            f"{source} was made by another version: {wrong_values(error)}; use another --run"
        ) from error


def _same_architecture(before: DetectorConfig, source: Path, config: DetectorConfig) -> None:
    for name in ARCHITECTURE:
        made, asked = getattr(before, name), getattr(config, name)
        if made != asked:
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is of another model: it was trained with {name} {made!r}, the configuration says {asked!r}; "
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
