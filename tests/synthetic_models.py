"""Two tiny but real models in plain ONNX operators: one finds drawn faces, the other tells them apart.

The detector finds isolated frames by their moments; the embedder projects the pattern inside. Both depend on
constants alone: the same call writes the same bytes, so the synthetic bundle's embedding space never moves.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.align import CROP, TEMPLATE
from bundle.decode import AnchorLayout
from tests.drawn_faces import FRAME, cosines

LAYOUT = AnchorLayout()
DIMENSION = 128
# For each stride and size, cells whose sum must hold a face of that size and no other, and those that must
# be free of its frame (none where a cell is too coarse).
_WINDOWS = (((5, 0), (7, 1)), ((7, 1), (11, 3)), ((11, 3), (19, 5)))


class _Graph:
    """Nodes and constants in the order that they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def gate(self, value: str, limit: float, steepness: float) -> str:
        """1 well below the limit, 0 above it."""
        room = self.add("Sub", self.constant(limit), value)
        return self.add(
            "Clip", self.add("Mul", room, self.constant(steepness)), self.constant(0), self.constant(1)
        )

    def model(self, height: str | int, width: str | int, outputs: dict[str, list[str | int]]) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "synthetic",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", height, width, 3])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


@lru_cache(maxsize=1)
def detector_model() -> bytes:
    """The detector's ONNX file: image → score, box and landmark deltas of LAYOUT's anchors."""
    graph = _Graph()
    moments = _moments(graph)
    found = [
        _level(graph, moments, stride, sizes, windows)
        for stride, sizes, windows in zip(LAYOUT.strides, LAYOUT.sizes, _WINDOWS, strict=True)
    ]
    for output, parts in zip(("score", "box", "landmark"), zip(*found, strict=True), strict=True):
        graph.add("Concat", *parts, output=output, axis=1)
    return graph.model("h", "w", {"score": ["n", "a"], "box": ["n", "a", 4], "landmark": ["n", "a", 10]})


def _moments(graph: _Graph) -> str:
    """(n, 7, h, w): the frame's mask times 1, x, y, x², y², and x and y themselves."""
    pixels = graph.add("Cast", graph.add("Transpose", "image", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    mask = graph.add("Max", _magenta(graph, pixels), _dark_grey(graph, pixels))
    shape, zero, one = graph.add("Shape", mask), graph.constant(0, np.int64), graph.constant(1, np.int64)
    ramps = []
    for axis, spread in ((3, [0, 1, 2]), (2, [0, 1, 3])):
        length = graph.add("Gather", shape, graph.constant(axis, np.int64), axis=0)
        ramp = graph.add("Cast", graph.add("Range", zero, length, one), to=TensorProto.FLOAT)
        ramp = graph.add("Unsqueeze", ramp, graph.constant(spread, np.int64))
        ramps.append(graph.add("Add", graph.add("Mul", mask, graph.constant(0)), ramp))
    first = [graph.add("Mul", mask, ramp) for ramp in ramps]
    second = [graph.add("Mul", moment, ramp) for moment, ramp in zip(first, ramps, strict=True)]
    return graph.add("Concat", mask, *first, *second, *ramps, axis=1)


def _magenta(graph: _Graph, pixels: str) -> str:
    less_green = graph.constant(np.array([[1, -1, 0], [0, -1, 1]]).reshape(2, 3, 1, 1))
    excess = graph.add("ReduceMin", graph.add("Conv", pixels, less_green), axes=[1])
    return graph.gate(graph.add("Neg", excess), -24, 1 / 40)


def _dark_grey(graph: _Graph, pixels: str) -> str:
    """What the frame becomes in a picture without colour; not black, which is the canvas around the
    picture."""
    brightest, darkest = graph.add("ReduceMax", pixels, axes=[1]), graph.add("ReduceMin", pixels, axes=[1])
    colourless = graph.gate(graph.add("Sub", brightest, darkest), 10, 1 / 4)
    dark, not_black = graph.gate(brightest, 95, 1 / 25), graph.gate(graph.add("Neg", darkest), -12, 1 / 10)
    return graph.add("Mul", graph.add("Mul", dark, not_black), colourless)


def _level(
    graph: _Graph, moments: str, stride: int, sizes: tuple[float, ...], windows: tuple[tuple[int, int], ...]
) -> tuple[str, str, str]:
    """score (n, a), box (n, a, 4) and landmark (n, a, 10) of one stride."""
    cells = graph.add("AveragePool", moments, kernel_shape=[stride, stride], strides=[stride, stride])
    found = [
        _anchor(graph, cells, stride, of, window, hollow)
        for of, (window, hollow) in zip(sizes, windows, strict=True)
    ]
    outputs = []
    for parts, width in zip(zip(*found, strict=True), (1, 4, 10), strict=True):
        # (n, width, h, w) of each size → (n, h, w, sizes, width) → anchors in bundle.decode's order
        lasts = [graph.add("Transpose", part, perm=[0, 2, 3, 1]) for part in parts]
        stacked = [graph.add("Unsqueeze", last, graph.constant([3], np.int64)) for last in lasts]
        shape = [0, -1] if width == 1 else [0, -1, width]
        outputs.append(
            graph.add("Reshape", graph.add("Concat", *stacked, axis=3), graph.constant(shape, np.int64))
        )
    return outputs[0], outputs[1], outputs[2]


def _anchor(
    graph: _Graph, cells: str, stride: int, size: float, window: int, hollow: int
) -> tuple[str, str, str]:
    """Score (n, 1, h, w), box (n, 4, h, w) and landmark (n, 10, h, w) deltas of one anchor a cell."""
    sums, around = _windowed(graph, cells, window), _windowed(graph, cells, window + 2)
    mass, x, y, xx, yy = _split(graph, sums, 5)
    _, _, _, _, _, cell_x, cell_y = _split(graph, cells, 7)
    mass = graph.add("Add", mass, graph.constant(1e-7))
    middle = [graph.add("Div", of, mass) for of in (x, y)]
    spread = [
        graph.add(
            "Max", graph.add("Sub", graph.add("Div", of, mass), graph.add("Mul", at, at)), graph.constant(0.5)
        )
        for of, at in zip((xx, yy), middle, strict=True)
    ]
    both = graph.add("Add", *spread)
    # The mean square distance from the middle of a square frame is this share of its side's square.
    share = (1 - (1 - 2 * FRAME) ** 4) / (1 - (1 - 2 * FRAME) ** 2) / 6
    side = graph.add("Sqrt", graph.add("Mul", both, graph.constant(1 / share)))
    apart = [graph.add("Sub", at, cell) for at, cell in zip(middle, (cell_x, cell_y), strict=True)]
    gates = [graph.gate(graph.add("Abs", of), 0.7 * stride, 10 / stride) for of in apart]
    gates.append(_size_gate(graph, side, size))
    gates.append(_frame_gate(graph, mass, side, (window * stride) ** 2))
    gates.append(_alone_gate(graph, mass, _split(graph, around, 5)[0], ((window + 2) / window) ** 2))
    if hollow:
        gates.append(_hollow_gate(graph, mass, _split(graph, _windowed(graph, cells, hollow), 1)[0]))
    skew = graph.add("Div", graph.add("Abs", graph.add("Sub", *spread)), both)
    gates.append(graph.gate(skew, 0.25, 10))
    score = graph.constant(0.98)
    for gate in gates:
        score = graph.add("Mul", score, gate)
    return score, _box(graph, apart, side, size), _landmark(graph, apart, side, size)


def _windowed(graph: _Graph, cells: str, window: int) -> str:
    half = window // 2
    return graph.add(
        "AveragePool", cells, kernel_shape=[window, window], pads=[half] * 4, count_include_pad=1
    )


def _split(graph: _Graph, of: str, count: int) -> list[str]:
    return [
        graph.add("Slice", of, *(graph.constant([v], np.int64) for v in (channel, channel + 1, 1)))
        for channel in range(count)
    ]


def _size_gate(graph: _Graph, side: str, size: float) -> str:
    ratio = graph.add("Log", graph.add("Div", side, graph.constant(size)))
    return graph.gate(graph.add("Abs", ratio), 0.45, 10)


def _frame_gate(graph: _Graph, mass: str, side: str, window_area: float) -> str:
    """As much mask as a frame of this side has: neither a few specks nor a filled square."""
    area = 1 - (1 - 2 * FRAME) ** 2
    filled = graph.add(
        "Div", graph.add("Mul", mass, graph.constant(window_area / area)), graph.add("Mul", side, side)
    )
    return graph.gate(graph.add("Abs", graph.add("Sub", filled, graph.constant(1.1))), 0.6, 5)


def _alone_gate(graph: _Graph, mass: str, wider: str, growth: float) -> str:
    """No more mask just outside the window: the frame is whole and nothing else is near."""
    ratio = graph.add("Div", graph.add("Mul", wider, graph.constant(growth)), mass)
    return graph.gate(ratio, 1.1, 20)


def _hollow_gate(graph: _Graph, mass: str, inner: str) -> str:
    """Little of the mask near the middle, compared with the window's mean: not noise."""
    return graph.gate(graph.add("Div", inner, mass), 0.6, 5)


def _box(graph: _Graph, apart: list[str], side: str, size: float) -> str:
    near, far = LAYOUT.variances
    shape = (size * LAYOUT.aspect**0.5, size / LAYOUT.aspect**0.5)
    moves = [graph.add("Mul", of, graph.constant(1 / (near * s))) for of, s in zip(apart, shape, strict=True)]
    grows = [
        graph.add(
            "Mul", graph.add("Log", graph.add("Mul", side, graph.constant(1 / s))), graph.constant(1 / far)
        )
        for s in shape
    ]
    return graph.add("Concat", *moves, *grows, axis=1)


def _landmark(graph: _Graph, apart: list[str], side: str, size: float) -> str:
    """The crop shows exactly the square: its landmarks are the template's, scaled."""
    near = LAYOUT.variances[0]
    shape = (size * LAYOUT.aspect**0.5, size / LAYOUT.aspect**0.5)
    parts = []
    for point in TEMPLATE.astype(np.float64):
        for axis in (0, 1):
            offset = graph.add("Mul", side, graph.constant((point[axis] - (CROP - 1) / 2) / CROP))
            place = graph.add("Add", apart[axis], offset)
            parts.append(graph.add("Mul", place, graph.constant(1 / (near * shape[axis]))))
    return graph.add("Concat", *parts, axis=1)


@lru_cache(maxsize=4)
def embedder_model(dimension: int = DIMENSION) -> bytes:
    """The embedder's ONNX file: image → embedding. Sees only waves, neither the frame nor the light's
    level."""
    graph = _Graph()
    pixels = graph.add("Cast", graph.add("Transpose", "image", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    mixed = np.array([[1, 1, 1], [3, 0, -3]]).reshape(2, 3, 1, 1) / 150
    blocks = graph.add(
        "AveragePool", graph.add("Conv", pixels, graph.constant(mixed)), kernel_shape=[7, 7], strides=[7, 7]
    )
    inside = graph.add("Slice", blocks, *(graph.constant(v, np.int64) for v in ([2, 2], [14, 14], [2, 3])))
    level = graph.add("Sub", inside, graph.add("ReduceMean", inside, axes=[2, 3]))
    flat = graph.add("Reshape", level, graph.constant([0, -1], np.int64))
    vector = graph.add("MatMul", flat, graph.constant(_projection(dimension)))
    length = graph.add("ReduceL2", vector, axes=[1])
    graph.add("Div", vector, graph.add("Max", length, graph.constant(1e-6)), output="embedding")
    return graph.model(CROP, CROP, {"embedding": ["n", dimension]})


def _projection(dimension: int) -> npt.NDArray[np.float64]:
    """(2 · 12 · 12, dimension): onto the waves, spread over all numbers; lengths are kept where there is
    room."""
    along = cosines(16)[:, 2:14].astype(np.float64)
    basis = np.einsum("uy,vx->uvyx", along, along).reshape(-1, 144)[1:]
    basis = np.linalg.qr(basis.T - basis.T.mean(0))[0]
    both = np.kron(np.eye(2), basis)
    room = max(both.shape[1], dimension)
    # The cosine transform's rows are orthonormal; random signs take the order out of them.
    turns = np.cos(np.pi * np.outer(np.arange(1, both.shape[1] + 1), np.arange(room) + 0.5) / (room + 1))
    signs = np.random.default_rng(17).choice([-1.0, 1.0], (both.shape[1], 1))
    return both @ (turns * signs * (2 / room) ** 0.5)[:, :dimension]
