"""The ONNX files that speed is measured on: a published bundle's, else untrained ones of the same architecture.

Speed does not depend on what the weights are, as long as activations stay in a sane range; accuracy does, so nothing
about accuracy is ever claimed from an untrained graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_BUNDLE = REPOSITORY / "models" / "default"


def embedder_graph(folder: Path) -> tuple[Path, str]:
    """`embedder.onnx` of the default bundle, else an untrained one written into `folder`; and which of the two."""
    published = DEFAULT_BUNDLE / "embedder.onnx"
    if published.is_file():
        return published, "models/default"
    return untrained_embedder(folder / "embedder.onnx"), "untrained MobileFaceNet"


def untrained_embedder(path: Path, dimension: int = 128) -> Path:
    """Write a MobileFaceNet with random weights and settled batch normalisation, as the service would be given it."""
    import torch

    from training.embedder.backbones.mobilefacenet import MobileFaceNet
    from training.export.onnx import export_embedder

    torch.manual_seed(0)
    model = MobileFaceNet(dimension)
    settle(model, torch.randn(16, 3, 112, 112))
    export_embedder(model.eval(), path)
    return path


def settle(model: object, example: object) -> None:
    """Set every batch normalisation's statistics to those of `example`; without it activations explode or vanish."""
    import torch
    from torch import nn

    assert isinstance(model, nn.Module)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average of what passes
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(example)


def crops(count: int, size: int = 112) -> np.ndarray:
    """Smooth random pictures, uint8 [count, size, size, 3]: a JPEG-like spectrum, no person."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return np.stack([cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC) for picture in coarse])
