"""A dense teacher: what an SCRFD graph says at every anchor, and the layers below (arXiv 2105.04714).

Its anchors stand as ours do (strides 8, 16 and 32, two a cell, row by row), so each of its answers is a soft target
for the anchor of the same index, on any photograph, boxed by somebody or not. Never shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from bundle.decode import AnchorLayout
from bundle.folder import digest_of
from training.config import BadConfig
from training.data.identities import BadData
from training.detector.retinanet import RetinaNet
from training.loop.imitation import channel_scales, distance

STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell


@dataclass(frozen=True)
class Answers:
    """Of one batch of crops; pixels of the crop, whose centres are integers."""

    scores: Tensor  # float [n, a], 0–1
    boxes: Tensor  # float [n, a, 4] xyxy
    points: Tensor  # float [n, a, 10]
    # bfloat16 [n, c, h, w] of strides 8, 16 and 32, channels last; empty without `layers`
    features: list[Tensor]

    def __getitem__(self, part: slice) -> Answers:
        return Answers(
            self.scores[part], self.boxes[part], self.points[part], [of[part] for of in self.features]
        )

    def to(self, device: torch.device) -> Answers:
        scores, boxes, points = (of.to(device) for of in (self.scores, self.boxes, self.points))
        return Answers(scores, boxes, points, [of.to(device) for of in self.features])


class Teacher:
    """`layers`: the names of the graph's tensors that our backbone's three outputs imitate, or none.

    It computes in bfloat16 where the processor has it: half the time of a crop (8.2 ms against 15.5 ms on one core at
    320 × 320), which is a third of a step; scores differ by 0.002 and boxes by a thousandth of their size.
    Raises BadData for a file that is no SCRFD graph with five points, or has no such layers.
    """

    def __init__(self, path: Path, layers: tuple[str, ...] = (), threads: int = 1) -> None:
        graph = _any_size(path, layers)
        self.layers, self.name = layers, f"{path.name} sha256:{digest_of(path)}"
        self._units = [1.0] * len(layers)
        self._core, self._threads = openvino.Core(), threads
        self._compiled: dict[int, Any] = {}  # by the crops' side: a static shape is faster
        try:  # a graph of something else answers other shapes, or not at all
            self._model = self._core.read_model(graph)
            self.ask(np.zeros((1, 64, 64, 3), np.uint8))
        except Exception as error:  # the runtime raises kinds of its own
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BadData(f"{path}: no SCRFD graph with five points: {why}") from error

    def scales(self, crops: np.ndarray) -> list[Tensor]:
        """`channel_scales` of the layers over some crops, uint8 [n, side, side, 3] RGB.

        From here on a layer's features come in units of their root mean square over these crops: a trained graph's may
        be a tenth of what our layers begin with (0.07 at stride 32 of SCRFD-2.5G), and an optimiser whose steps have
        one length for all weights takes a thousand of them to come down.
        """
        self._units = [1.0] * len(self.layers)
        lengths = [float(of.float().square().mean().sqrt()) for of in self.ask(crops).features]
        self._units = [1 / max(of, 1e-6) for of in lengths]
        return channel_scales(self.ask(crops).features) if self.layers else []

    def ask(self, crops: np.ndarray) -> Answers:
        """crops: uint8 [n, side, side, 3] RGB; side a multiple of 32."""
        rows = [self._one(crop) for crop in crops]
        scores, boxes, points = (
            torch.from_numpy(np.stack(of)) for of in zip(*(row[:3] for row in rows), strict=True)
        )
        features = [
            torch.from_numpy(np.concatenate(of) * np.float32(unit))
            .to(torch.bfloat16)
            .contiguous(memory_format=torch.channels_last)
            for *of, unit in zip(*(row[3] for row in rows), self._units, strict=True)
        ]
        return Answers(scores, boxes, points, features)

    def _one(self, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        request = self._of_side(crop.shape[0])
        request.infer({0: np.ascontiguousarray(crop)[None]}, share_inputs=True)
        # The request's own memory is written again by the next crop.
        answers = [np.array(of.data) for of in request.output_tensors]
        heads = answers[: len(answers) - len(self.layers)]
        # the finest stride first
        scores, distances, offsets = (
            sorted((of.reshape(-1, width) for of in heads if of.shape[-1] == width), key=len, reverse=True)
            for width in (1, 4, 10)
        )
        if {len(scores), len(distances), len(offsets), len(heads) // 3} != {len(STRIDES)}:
            raise BadData(f"it answers {', '.join(str(of.shape) for of in heads)}")
        boxes, points = [], []
        for stride, box, point in zip(STRIDES, distances, offsets, strict=True):
            centre = _centres(crop.shape[0], crop.shape[1], stride)
            if len(centre) != len(box):
                raise BadData(f"it answers {len(box)} anchors of stride {stride}, expected {len(centre)}")
            # Its boxes end at x + w in units of whole pixels; ours begin half a pixel before the first centre.
            corners = [centre - box[:, :2] * stride, centre + box[:, 2:] * stride]
            boxes.append(np.concatenate(corners, 1) - np.float32(0.5))
            points.append((point.reshape(-1, 5, 2) * stride + centre[:, None]).reshape(-1, 10))
        features = answers[len(heads) :]
        return np.concatenate(scores)[:, 0], np.concatenate(boxes), np.concatenate(points), features

    def _of_side(self, side: int) -> Any:
        """A request for crops uint8 [1, side, side, 3] RGB."""
        if side not in self._compiled:
            model = self._model.clone()
            model.reshape({0: [1, 3, side, side]})
            steps = openvino.preprocess.PrePostProcessor(model)
            steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
            steps.input().model().set_layout(openvino.Layout("NCHW"))
            steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(127.5).scale(128.0)
            hints = {"INFERENCE_NUM_THREADS": self._threads, "NUM_STREAMS": 1}
            self._compiled[side] = self._core.compile_model(
                steps.build(), "CPU", hints
            ).create_infer_request()
        return self._compiled[side]


def refuse_other_anchors(layout: AnchorLayout) -> None:
    """Raises BadConfig for anchors that no dense teacher's answers belong to."""
    if layout.strides != STRIDES or any(len(of) != ANCHORS for of in layout.sizes):
        told = ", ".join(f"{len(of)} of {at}" for at, of in zip(layout.strides, layout.sizes, strict=True))
        raise BadConfig(
            f"a dense teacher has two anchors a cell of strides 8, 16 and 32, the configuration {told}"
        )


@lru_cache(maxsize=64)
def _centres(height: int, width: int, stride: int) -> np.ndarray:
    """float32 [cells · anchors, 2]: where the teacher counts each anchor's distances from."""
    ys, xs = np.mgrid[0 : height // stride, 0 : width // stride]
    return np.repeat(np.stack([xs, ys], -1).reshape(-1, 2) * stride, ANCHORS, 0).astype(np.float32)


def _any_size(path: Path, layers: tuple[str, ...]) -> bytes:
    """The graph for crops of any size (it is published for one), its `layers` among its outputs."""
    if not path.is_file():
        raise BadData(f"{path}: no such teacher; a dense teacher is an SCRFD graph (ONNX)")
    try:
        graph = onnx.load(path)
    except DecodeError as error:
        raise BadData(f"{path}: not an ONNX graph") from error
    if len(graph.graph.input) != 1 or len(graph.graph.input[0].type.tensor_type.shape.dim) != 4:
        raise BadData(f"{path}: no SCRFD graph: a picture is not its only input")
    for axis, name in ((2, "height"), (3, "width")):
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in graph.graph.output:
        output.type.tensor_type.ClearField("shape")
    known = {of for node in graph.graph.node for of in node.output}
    for layer in layers:
        if layer not in known:
            raise BadData(f"{path} has no tensor {layer!r}: teacher.layers names what the backbone imitates")
        graph.graph.output.append(onnx.helper.make_tensor_value_info(layer, onnx.TensorProto.FLOAT, None))
    return bytes(graph.SerializeToString())


class Ways:
    """The model's ways through by step: stage by stage, beside the teacher's layers, alone; each compiled where asked.

    `scales` are the teacher's of its layers, or empty. Raises BadConfig where our stages are of other widths.
    """

    def __init__(
        self, model: RetinaNet, scales: list[Tensor], hint_steps: int, forced_steps: int, *, compiled: bool
    ) -> None:
        widths = [len(of) for of in scales]
        if hint_steps and scales and widths != list(model.backbone.channels[1:]):
            raise BadConfig(
                f"the teacher's layers have {widths} channels, our stages {list(model.backbone.channels[1:])}: hints "
                "need equal ones; set the backbone's widths, or hint_steps = 0"
            )

        def stage_by_stage(picture: Tensor, features: list[Tensor]) -> tuple[Tensor, Any]:
            made, outputs = forced(model, picture, features)
            return distance(made, features, scales), outputs

        def beside(picture: Tensor, features: list[Tensor]) -> tuple[Tensor, Any]:
            made, outputs = followed(model, picture)
            return distance(made, features, scales), outputs

        def compile(way: Callable[..., Any]) -> Callable[..., Any]:
            return (
                torch.compile(way, dynamic=False) if compiled else way
            )  # as in the embedder's: the same bits again

        self._alone, self._forced, self._followed = compile(model), compile(stage_by_stage), compile(beside)
        self._hint_steps, self._forced_steps = hint_steps, forced_steps

    def __call__(self, picture: Tensor, answers: Answers | None, step: int) -> tuple[Tensor | None, Any]:
        """(the distance to the teacher's layers or None, the model's outputs)."""
        if answers is None or not answers.features or step >= self._hint_steps:
            return None, self._alone(picture)
        way = self._forced if step < self._forced_steps else self._followed
        return way(picture, answers.features)


def forced(model: RetinaNet, picture: Tensor, features: list[Tensor]) -> tuple[list[Tensor], Any]:
    """(the three strides' features, each from the teacher's below; the outputs from the teacher's features)."""
    early, *late = model.backbone.stages
    inputs = [early(model.backbone.stem(picture)), *features[:2]]
    outputs = [stage(of) for stage, of in zip(late, inputs, strict=True)]
    return outputs, model.answers(features)


def followed(model: RetinaNet, picture: Tensor) -> tuple[list[Tensor], Any]:
    """(the three strides' features on the student's own way, its outputs)."""
    outputs = model.features(picture)
    return outputs, model.answers(outputs)
