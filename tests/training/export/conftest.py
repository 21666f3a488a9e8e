"""Models with settled statistics, as trained ones have, and their graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.data.drawing import aligned
from training.data.identities import SIDE, Faces
from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet, normalise
from training.detector.train import model_of
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.export.onnx import export_detector, export_embedder
from training.export.parity import golden_scenes
from training.export.sessions import ServedGraph

SLIM = DetectorConfig(widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), pyramid=16)


def settle(model: nn.Module, side: int, passes: int = 3) -> nn.Module:
    """Batch statistics of some noise, and slopes that are not all alike: random ones overflow or hide a mistake."""
    torch.manual_seed(4)
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.3, 0.6)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the plain mean over all passes
        for _ in range(passes):
            model(torch.randn(4, 3, side, side) + torch.randn(4, 3, 1, 1))
    return model.eval()


def settled_on_scenes(config: DetectorConfig, gain: float = 2.0, bias: float = -1.0) -> RetinaNet:
    """Of random weights, with the statistics of the golden scenes, some of whose scores are sure: with those of other
    pictures scores are all 0 or 1, and suppression chooses among equals."""
    torch.manual_seed(3)
    model = model_of(config)
    for module in model.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        model(normalise(torch.from_numpy(golden_scenes(256, 256))))
        for output in model.outputs:
            output.weight.mul_(gain)
            output.bias.view(-1, 15)[:, 0] = bias
    return model.eval()


class TinyEmbedder(nn.Module):
    """An embedder's parts in a few layers, that ends in a matrix and a normalisation, as the larger backbones do."""

    def __init__(self, dimension: int = 16) -> None:
        super().__init__()
        self.dimension = dimension
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4, 2, bias=False),
            nn.BatchNorm2d(8),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.PReLU(8),
            nn.Conv2d(8, 12, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.AvgPool2d(7),
            nn.Flatten(),
        )
        self.embedding = nn.Linear(48, dimension)
        self.norm = nn.BatchNorm1d(dimension)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.embedding(self.body(x)))


@dataclass(frozen=True)
class Pair:
    """A module as exported and its graph."""

    module: nn.Module
    graph: ServedGraph


@pytest.fixture(scope="session")
def settled_embedder() -> MobileFaceNet:
    torch.manual_seed(3)
    return settle(MobileFaceNet(32), 112)


@pytest.fixture(scope="session")
def settled_detector() -> RetinaNet:
    torch.manual_seed(3)
    return settle(model_of(SLIM), 64)


@pytest.fixture(scope="session")
def embedder(settled_embedder: MobileFaceNet, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    path: Path = tmp_path_factory.mktemp("embedder") / "embedder.onnx"
    return Pair(export_embedder(settled_embedder, path), ServedGraph(path))


@pytest.fixture(scope="session")
def detector(settled_detector: RetinaNet, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    path: Path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    return Pair(export_detector(settled_detector, path), ServedGraph(path))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.manual_seed(5)
    model = settle(TinyEmbedder(), 112)
    path: Path = tmp_path_factory.mktemp("tiny") / "embedder.onnx"
    return Pair(export_embedder(model, path), ServedGraph(path))


@pytest.fixture(scope="session")
def many_faces() -> Faces:
    """Twelve people with four pictures each: enough for FMR 1e-2."""
    identity = np.repeat(np.arange(12), 4)
    return Faces(
        pictures=np.stack([aligned(int(who), n, SIDE) for n, who in enumerate(identity)]),
        identity=identity + 50,
        label=identity,
        family=np.full(48, ""),
        similarity=np.ones(48, np.float32),
        source=np.full(48, "drawn"),
    )
