"""The smallest dense teacher: a graph that answers as SCRFD does, and always the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_scrfd(path: Path) -> Path:
    """Says of every anchor: score 0.25, two strides to each edge of the box, points on the anchor's centre."""
    nodes: list[Any] = []
    outputs, constants = [], []
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node(
                "AveragePool", ["picture"], [f"mean{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        for name, width, value in (("score", 1, 0.25), ("box", 4, 2.0), ("points", 10, 0.0)):
            kernel = np.zeros((2 * width, 3, 1, 1), np.float32)
            bias = np.full(2 * width, value, np.float32)
            constants += [
                numpy_helper.from_array(kernel, f"k{name}{stride}"),
                numpy_helper.from_array(bias, f"b{name}{stride}"),
                numpy_helper.from_array(np.array([-1, width]), f"s{name}{stride}"),
            ]
            last = f"{name}{stride}"
            nodes += [
                helper.make_node("Conv", [f"mean{stride}", f"k{last}", f"b{last}"], [f"c{last}"]),
                helper.make_node("Transpose", [f"c{last}"], [f"t{last}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t{last}", f"s{last}"], [last]),
            ]
            outputs.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", width]))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 640, 640])
    model = helper.make_model(
        helper.make_graph(nodes, "teacher", [picture], outputs, constants),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path
