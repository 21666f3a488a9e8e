"""The graphs that are served, written from trained models: bytes in, normalisation inside, weights in the file.

What the graph does before the first convolution is the training's own `normalise`; never repeat that line here.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.detector.retinanet import RetinaNet, ServedDetector
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.embedder.train import normalise

OPSET = 18  # the newest that ONNX Runtime, OpenVINO and TensorRT of 2025 all read


class ServedEmbedder(nn.Module):
    """The graph that is exported: uint8 [n, 112, 112, 3] RGB → embedding float32 [n, d], unit length."""

    def __init__(self, model: MobileFaceNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(self.model(normalise(image)))


def export_embedder(model: MobileFaceNet, path: Path) -> ServedEmbedder:
    """Write `embedder.onnx`. Returns the module as exported, unfused, for the parity check."""
    served = ServedEmbedder(model).eval()
    example = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    _export(_fused(served), example, path, {"embedding": ("n", model.dimension)}, dynamic={0: "n"})
    return served


def export_detector(model: RetinaNet, path: Path) -> ServedDetector:
    """Write `detector.onnx`, whose n, h and w are free. Returns the module as exported, unfused."""
    served = ServedDetector(model).eval()
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    outputs = {"score": ("n", "a"), "box": ("n", "a", 4), "landmark": ("n", "a", 10)}
    _export(_fused(served), example, path, outputs, dynamic={0: "n", 1: "h", 2: "w"})
    return served


def _export(
    module: nn.Module,
    example: Tensor,
    path: Path,
    outputs: Mapping[str, tuple[str | int, ...]],  # name → shape, a name for each free dimension
    dynamic: dict[int, str],
) -> None:
    free = {
        name: {i: size for i, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in outputs.items()
    }
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracing exporter writes the same nodes as the newer one, in 0.3 s instead of 5 s and without chatter.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=["image"],
            output_names=list(outputs),
            dynamic_axes={"image": dynamic} | free,
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(path)
    for output in graph.graph.output:
        for dimension, size in zip(output.type.tensor_type.shape.dim, outputs[output.name], strict=True):
            dimension.Clear()
            if isinstance(size, str):
                dimension.dim_param = size
            else:
                dimension.dim_value = size
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def _fused(module: nn.Module) -> nn.Module:
    """A copy in which every batch normalisation that follows a convolution is folded into it."""
    module = copy.deepcopy(module).eval()
    for parent in module.modules():
        if isinstance(parent, nn.Sequential):
            for first, second in zip(list(parent), list(parent)[1:], strict=False):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    place = list(parent).index(first)
                    parent[place], parent[place + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
        elif isinstance(parent, MobileFaceNet):  # its last normalisation follows a flattening
            parent.embedding = fuse_conv_bn_eval(parent.embedding, parent.norm)
            parent.norm = nn.Identity()  # type: ignore[assignment]
    return module
