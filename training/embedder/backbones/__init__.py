"""One architecture a file. In: float [n, 3, 112, 112]; out: float32 [n, dimension], not unit length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from training.config import BadConfig
from training.embedder.backbones.iresnet import BLOCKS, IResNet
from training.embedder.backbones.mobilefacenet import MobileFaceNet, mbf, quick

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "mobilefacenet": MobileFaceNet,
    "mobilefacenet_quick": quick,
    "mbf": mbf,
    **{f"iresnet{depth}": partial(IResNet, depth=depth) for depth in BLOCKS},
}


def backbone(name: str, dimension: int) -> nn.Module:
    """A network with random weights and the attribute `dimension`. Raises BadConfig for an unknown name."""
    if name not in BACKBONES:
        raise BadConfig(f"backbone {name!r} is unknown; known are {', '.join(BACKBONES)}")
    return BACKBONES[name](dimension)
