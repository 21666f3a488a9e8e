"""From a run's checkpoint to the model that is published: its slow average, in eval mode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from torch import nn

from training.config import RunConfig
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.detector.train import model_of
from training.embedder.backbones import backbone
from training.embedder.config import EmbedderConfig
from training.loop import checkpoint

Model = TypeVar("Model")
Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Trained(Generic[Model, Config]):
    """A model in eval mode, the configuration and the number of steps that it was trained with."""

    model: Model
    config: Config
    step: int


def trained_embedder(path: Path) -> Trained[nn.Module, EmbedderConfig]:
    """Raises UnreadableCheckpoint for a damaged file or one of another model."""
    state = _state(path, "embedder")
    config = _config(path, EmbedderConfig, state)
    model = backbone(config.backbone, config.dimension)
    _restore(path, model, state)
    return Trained(model.eval(), config, int(state["step"]))


def trained_detector(path: Path) -> Trained[RetinaNet, DetectorConfig]:
    """Raises UnreadableCheckpoint for a damaged file or one of another model."""
    state = _state(path, "detector")
    config = _config(path, DetectorConfig, state)
    model = model_of(config)
    _restore(path, model, state)
    return Trained(model.eval(), config, int(state["step"]))


def _state(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise checkpoint.UnreadableCheckpoint(f"{path}: no such checkpoint; train the {kind} first")
    state = checkpoint.load(path)
    if state.get("kind") != kind:
        raise checkpoint.UnreadableCheckpoint(f"{path} is not a checkpoint of the {kind}")
    return state


def _config(path: Path, kind: type[Config], state: dict[str, Any]) -> Config:
    try:
        return kind.model_validate(state["config"])
    except ValidationError as error:
        raise checkpoint.UnreadableCheckpoint(f"{path} was made by another version: {error}") from error


def _restore(path: Path, model: Any, state: dict[str, Any]) -> None:
    try:
        model.load_state_dict(state["average"])
    except (RuntimeError, KeyError) as error:
        raise checkpoint.UnreadableCheckpoint(f"{path} is of another model: {error}") from error
