"""One architecture a file. In: float [n, 3, h, w]; out: the features of strides 4, 8, 16 and 32."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from training.config import BadConfig
from training.detector.backbones.mobilenet import mobilenet
from training.detector.backbones.resnet import resnet18, resnet34, resnet50
from training.detector.backbones.slim_resnet import slim_resnet
from training.detector.backbones.stages import Stages

BACKBONES: dict[str, Callable[..., Stages]] = {
    "resnet": slim_resnet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "mobilenet": mobilenet,
}


def backbone(name: str, **options: Any) -> Stages:
    """A network with random weights, its `strides` and their `channels`. Options: `widths`, `depths` and `stem` of
    "resnet", `width` (the share of the published channels) of "resnet18", "resnet34" and "mobilenet". Raises BadConfig
    for a name or an option that is unknown."""
    taken = options_of(name)
    for option in options:
        if option not in taken:
            raise BadConfig(f"backbone {name!r} takes no `{option}`, only {', '.join(taken) or 'its name'}")
    return BACKBONES[name](**options)


def options_of(name: str) -> tuple[str, ...]:
    """The options that a backbone takes. Raises BadConfig for an unknown name."""
    if name not in BACKBONES:
        raise BadConfig(f"backbone {name!r} is unknown; known are {', '.join(BACKBONES)}")
    return tuple(inspect.signature(BACKBONES[name]).parameters)
