"""Feature hints (Romero et al. 2015, arXiv 1412.6550): the reference's layers teach the student's, one by one.

The reference embedder has the block structure of MobileFaceNet (another activation, another stem), so the output
of each of its blocks is a target for ours. In the first steps each block is fed what the reference feeds its own
(`forced`): eighteen shallow problems, solved in minutes. Then the student runs through by itself (`followed`) and
the hints hold its layers on course while the embedding is learnt.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from training.config import BadConfig
from training.embedder.backbones.autocast import without_autocast
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import reference_input
from training.loop.imitation import channel_scales, distance

_ADDED = "/features/features.{}/Add_output_0"
_PROJECTED = "/features/features.{}/conv/conv.2/Conv_output_0"
LAYERS = (
    *((_PROJECTED if block in (0, 5, 12) else _ADDED).format(block) for block in range(15)),
    "/conv2/conv2.2/Clip_output_0",
)


class Hints:
    """The reference's layers, asked of the same augmented crops that the student sees.

    `scale`: float [channels] a layer, over some plain faces. `dtype` of the features: the precision of the student.
    """

    def __init__(
        self, reference: Path, plain: np.ndarray, threads: int = 1, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.dtype = dtype
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        graph = onnx.load(reference)
        for layer in LAYERS:
            graph.graph.output.append(onnx.helper.make_tensor_value_info(layer, onnx.TensorProto.FLOAT, None))
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.scale = channel_scales(self.features(plain))

    def features(self, crops: np.ndarray) -> list[Tensor]:
        """uint8 [n, 112, 112, 3] RGB → `dtype` [n, c, h, w] for each of LAYERS, channels last."""
        answers = [self._session.run(LAYERS, {"input0": reference_input(crop[None])}) for crop in crops]
        return [
            torch.from_numpy(np.concatenate(of)).to(self.dtype).contiguous(memory_format=torch.channels_last)
            for of in zip(*answers, strict=True)
        ]


class Ways:
    """The student's ways through by step: layer by layer, beside the hints, alone; each compiled where asked.

    Raises BadConfig where there is nothing to compile with.
    """

    def __init__(self, model: nn.Module, hints: Hints | None, config: EmbedderConfig) -> None:
        device = next(model.parameters()).device
        scale = [of.to(device) for of in hints.scale] if hints else []

        def layer_by_layer(picture: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
            outputs, embedding = forced(model, picture, features)
            return distance(outputs, features, scale), embedding

        def beside(picture: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
            outputs, embedding = followed(model, picture)
            return distance(outputs, features, scale), embedding

        def compiled(way: Callable[..., Any]) -> Callable[..., Any]:
            # a kernel for each size of a micro-batch, two at most: else it hangs on the sizes before which kernel a
            # size is given, and a resumed run differs in the last bits
            return torch.compile(way, dynamic=False) if config.compile else way

        if config.compile:
            find_compiler()
        self._hints, self._steps = hints, config.distillation
        self._alone, self._forced, self._followed = (
            compiled(model),
            compiled(layer_by_layer),
            compiled(beside),
        )

    def __call__(self, picture: Tensor, crops: np.ndarray, step: int) -> tuple[Tensor | None, Tensor]:
        """(the distance to the teacher's layers or None, the embedding [n, d]). picture: the crops, normalised."""
        if self._hints is None or step >= self._steps.hint_steps:
            return None, self._alone(picture)
        features = [of.to(picture.device) for of in self._hints.features(crops)]
        way = self._forced if step < self._steps.forced_steps else self._followed
        hint, embedding = way(picture, features)
        return hint, embedding


def forced(model: Any, picture: Tensor, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """A MobileFaceNet's (outputs of each layer from the reference's input of it, embedding [n, d] from its last)."""
    blocks = list(model.blocks)
    outputs = [blocks[0](model.stem(picture))]
    outputs += [block(of) for block, of in zip(blocks[1:], features, strict=False)]
    outputs.append(model.head[0](features[len(blocks) - 1]))
    return outputs, _embed(model, features[-1])


def followed(model: Any, picture: Tensor) -> tuple[list[Tensor], Tensor]:
    """A MobileFaceNet's (outputs of each layer on its own way, embedding [n, d])."""
    x, outputs = model.stem(picture), []
    for block in (*model.blocks, model.head[0]):
        x = block(x)
        outputs.append(x)
    return outputs, _embed(model, x)


def _embed(model: Any, x: Tensor) -> Tensor:
    x = model.embedding(model.head[1](x)).flatten(1)
    with without_autocast(x):
        return model.norm(x.float())


def find_compiler() -> None:
    """Raises BadConfig where torch.compile would not find a C++ compiler."""
    compiler = (os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")).split()[0]
    if shutil.which(compiler) is None:
        raise BadConfig(
            f"compile = true needs a C++ compiler, and {compiler} is not installed: install it, or set "
            "compile = false, which is slower"
        )
