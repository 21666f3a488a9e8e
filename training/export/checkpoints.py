"""From a run's checkpoint to the model that is published: its slow average, in eval mode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from torch import nn

from training.config import RunConfig, wrong_values
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.detector.train import model_of
from training.embedder.backbones import backbone
from training.embedder.config import EmbedderConfig
from training.loop import checkpoint
from training.loop.lineage import LINEAGE, Lineage, lineage_of
from training.loop.records import AnyRecord, learnt_from, records_of

Model = TypeVar("Model")
Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Trained(Generic[Model, Config]):
    """A model in eval mode, the configuration and the number of steps that it was trained with, what it was begun from
    and what it learnt from."""

    model: Model
    config: Config
    step: int
    lineage: Lineage = ()
    records: tuple[AnyRecord, ...] = ()

    def provenance(self) -> dict[str, Any]:
        """As the manifest keeps it: what the model was trained with and learnt from."""
        return self.config.model_dump(mode="json") | {
            "steps": self.step,
            LINEAGE: [each.model_dump() for each in self.lineage],
            "records": [each.model_dump(mode="json") for each in self.records],
        }


def trained_embedder(path: Path) -> Trained[nn.Module, EmbedderConfig]:
    """Raises UnreadableCheckpoint for a damaged file or one of another model."""
    state = _state(path, "embedder")
    config = _config(path, EmbedderConfig, state)
    model = backbone(config.backbone, config.dimension)
    _restore(path, model, state)
    lineage, records = lineage_of(state, path), learnt_from(state, path)
    return Trained(model.eval(), config, int(state["step"]), lineage, records)


def trained_detector(path: Path) -> Trained[RetinaNet, DetectorConfig]:
    """Raises UnreadableCheckpoint for a damaged file or one of another model."""
    state = _state(path, "detector")
    config = _config(path, DetectorConfig, state)
    model = model_of(config)
    _restore(path, model, state)
    lineage, records = lineage_of(state, path), records_of(state, path)
    return Trained(model.eval(), config, int(state["step"]), lineage, records)


def _state(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise checkpoint.UnreadableCheckpoint(f"{path}: no such checkpoint; {_ways_out[kind]}")
    state = checkpoint.load(path, _remedy(kind))
    if state.get("kind") != kind or not {"config", "step"} <= state.keys():
        raise checkpoint.UnreadableCheckpoint(f"{path} is not a checkpoint of the {kind}; {_remedy(kind)}")
    return state


_ways_out = {
    "embedder": "train the embedder first",
    "detector": "train the detector first, or take a bundle's over: --detector models/default",
}


def _remedy(kind: str) -> str:
    return f"name another checkpoint of the {kind}, or train it anew"


def _config(path: Path, kind: type[Config], state: dict[str, Any]) -> Config:
    try:
        return kind.model_validate(state["config"])
    except ValidationError as error:
        raise checkpoint.UnreadableCheckpoint(
            f"{path} was made by another version: {wrong_values(error)}; {_remedy(state['kind'])}"
        ) from error


def _restore(path: Path, model: Any, state: dict[str, Any]) -> None:
    kind = state["kind"]
    checkpoint.restore(state, path, kind, {"average": model}, _remedy(kind))
