"""PReLU written as a·x + (1 − a)·ReLU(x): the same function in operators that ONNX Runtime keeps in its fast layout.

A graph with native PReLU is reordered around every one of them on a CPU. The rewrite is a variant of the graph it was
made from, never a replacement: the embedding space belongs to the original file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


class NothingToRewrite(Exception):
    """The graph holds no PReLU with a constant slope."""


def rewrite_prelu(source: Path, target: Path) -> int:
    """Write `source` to `target` with every PReLU rewritten. Returns how many; raises NothingToRewrite."""
    model = onnx.load(source)
    graph = model.graph
    slopes = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    rewritten = 0
    for node in graph.node:
        if node.op_type == "PRelu" and node.input[1] in slopes:
            complement, four = _rewritten(node, slopes[node.input[1]], rewritten)
            graph.initializer.append(complement)
            nodes.extend(four)
            rewritten += 1
        else:
            nodes.append(node)
    if not rewritten:
        raise NothingToRewrite(f"{source.name} holds no PReLU with a constant slope")
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    return rewritten


def _rewritten(node: NodeProto, slope: TensorProto, index: int) -> tuple[TensorProto, list[NodeProto]]:
    value, answer = node.input[0], node.output[0]
    stem = f"prelu_{index}"
    complement = numpy_helper.from_array(
        (1 - numpy_helper.to_array(slope).astype(np.float64)).astype(np.float32), f"{stem}_complement"
    )
    return complement, [
        helper.make_node("Mul", [value, slope.name], [f"{stem}_straight"]),
        helper.make_node("Relu", [value], [f"{stem}_relu"]),
        helper.make_node("Mul", [f"{stem}_relu", complement.name], [f"{stem}_bent"]),
        helper.make_node("Add", [f"{stem}_straight", f"{stem}_bent"], [answer], name=f"{stem}_{node.name}"),
    ]
