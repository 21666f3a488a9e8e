"""The graphs that are served, written from trained models: bytes in, normalisation inside, weights in the file.

What the graph does before the first convolution is the training's own `normalise`; never repeat that line here.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from training.detector.retinanet import RetinaNet, ServedDetector
from training.embedder.distillation import normalise

OPSET = 18  # the newest that ONNX Runtime, OpenVINO and TensorRT of 2025 all read


class ServedEmbedder(nn.Module):
    """The graph that is exported: uint8 [n, 112, 112, 3] RGB → embedding float32 [n, d], unit length."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(self.model(normalise(image)))


def export_embedder(model: nn.Module, path: Path) -> ServedEmbedder:
    """Write `embedder.onnx` of any backbone. Returns the module as exported, unfused, for the parity check."""
    served = ServedEmbedder(model).eval()
    example = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    with torch.inference_mode():
        dimension = int(served(example).shape[1])
    _export(_fused(served), example, path, {"embedding": ("n", dimension)}, dynamic={0: "n"})
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
    _cast_first(graph.graph)
    _name_constants(graph.graph)
    for output in graph.graph.output:
        for dimension, size in zip(output.type.tensor_type.shape.dim, outputs[output.name], strict=True):
            dimension.Clear()
            if isinstance(size, str):
                dimension.dim_param = size
            else:
                dimension.dim_value = size
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def _cast_first(graph: onnx.GraphProto) -> None:
    """Bytes become floats before anything else happens to them: TensorRT takes uint8 into a Cast alone."""
    nodes = list(graph.node)
    for transpose, cast in itertools.pairwise(nodes):
        if (transpose.op_type, cast.op_type) == ("Transpose", "Cast") and cast.input[0] == transpose.output[
            0
        ]:
            given, between, answer = transpose.input[0], transpose.output[0], cast.output[0]
            at = nodes.index(transpose)
            cast.input[0], cast.output[0], transpose.input[0], transpose.output[0] = (
                given,
                between,
                between,
                answer,
            )
            nodes[at], nodes[at + 1] = cast, transpose
            break
    del graph.node[:]
    graph.node.extend(nodes)


def _name_constants(graph: onnx.GraphProto) -> None:
    """Equal constants are exported once, and the others as an Identity of it: every layer names the constant itself,
    for that is where later steps look."""
    constants = {tensor.name for tensor in graph.initializer}
    same = {
        of.output[0]: of.input[0]
        for of in graph.node
        if of.op_type == "Identity" and of.input[0] in constants
    }
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = same.get(name, name)
    nodes = [node for node in graph.node if node.output[0] not in same]
    del graph.node[:]
    graph.node.extend(nodes)


def _fused(module: nn.Module) -> nn.Module:
    """A copy in which every batch normalisation that follows a convolution or a matrix is folded into it."""
    module = copy.deepcopy(module).eval()
    for parent in module.modules():
        if isinstance(parent, nn.Sequential):
            for place, (first, second) in enumerate(itertools.pairwise(list(parent))):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    parent[place], parent[place + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    if isinstance(module, ServedEmbedder):  # a backbone's last normalisation may follow a flattening
        _fold_last(module.model)
    return module


def _fold_last(backbone: nn.Module) -> None:
    last, norm = getattr(backbone, "embedding", None), getattr(backbone, "norm", None)
    if not isinstance(norm, nn.BatchNorm1d):
        return
    if isinstance(last, nn.Conv2d):
        backbone.embedding, backbone.norm = fuse_conv_bn_eval(last, norm), nn.Identity()
    elif isinstance(last, nn.Linear):
        backbone.embedding, backbone.norm = fuse_linear_bn_eval(last, norm), nn.Identity()
