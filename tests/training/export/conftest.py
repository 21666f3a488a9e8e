"""Models with settled statistics, as trained ones have, and their graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from training.detector.config import DetectorConfig
from training.detector.retinanet import RetinaNet
from training.detector.train import model_of
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.export.onnx import export_detector, export_embedder
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
