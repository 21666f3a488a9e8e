"""PReLU written as a·x + (1 − a)·ReLU(x): the same function in operators that ONNX Runtime keeps in its fast layout.

A graph with native PReLU is reordered around every one of them on a CPU. Where a convolution alone feeds it, 1 − a
moves into the convolution's weights: what comes out is x' = (1 − a)·x, and the PReLU of x is a / (1 − a)·x' + ReLU(x'),
one pass over the picture less. The rewrite is a variant of the graph it was made from, never a replacement: the
embedding space belongs to the original file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

LEAST_BEND = 1e-3  # of 1 − a; a slope nearer to 1, or above, is not divided by


class NothingToRewrite(Exception):
    """The graph holds no PReLU with a constant slope."""


def rewrite_prelu(source: Path, target: Path) -> int:
    """Write `source` to `target` with every PReLU rewritten. Returns how many; raises NothingToRewrite."""
    model = onnx.load(source)
    graph = model.graph
    rewriter = _Rewriter(graph)
    nodes = [new for node in graph.node for new in rewriter.nodes(node)]
    if not rewriter.count:
        raise NothingToRewrite(f"{source.name} holds no PReLU with a constant slope")
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [of for of in graph.initializer if of.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    return rewriter.count


class _Rewriter:
    """Nodes as they come; new constants go into the graph."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        taken = [name for node in graph.node for name in node.input] + [of.name for of in graph.output]
        self._once = {name for name in taken if taken.count(name) == 1}
        self.count = 0

    def nodes(self, node: NodeProto) -> list[NodeProto]:
        """What stands in the node's place."""
        if node.op_type != "PRelu" or node.input[1] not in self._constants:
            return [node]
        value, answer, stem = node.input[0], node.output[0], f"prelu_{self.count}"
        self.count += 1
        slope = numpy_helper.to_array(self._constants[node.input[1]]).astype(np.float64)
        bend = 1 - slope
        if self._scaled(value, bend, stem):
            slope, rest, bent = slope / bend, [], f"{stem}_relu"
        else:
            bent = f"{stem}_bent"
            rest = [helper.make_node("Mul", [f"{stem}_relu", self._constant(f"{stem}_bend", bend)], [bent])]
        return [
            helper.make_node("Relu", [value], [f"{stem}_relu"]),
            *rest,
            helper.make_node("Mul", [value, self._constant(f"{stem}_slope", slope)], [f"{stem}_straight"]),
            helper.make_node("Add", [f"{stem}_straight", bent], [answer], name=f"{stem}_{node.name}"),
        ]

    def _scaled(self, value: str, bend: np.ndarray, stem: str) -> bool:
        """Have the convolution that makes `value` make `bend` times as much, if nobody else takes it. Says whether."""
        conv = self._makers.get(value)
        if conv is None or conv.op_type != "Conv" or value not in self._once or bend.min() < LEAST_BEND:
            return False
        names = conv.input[1:]  # weights and, where it has them, biases
        if not set(names) <= set(self._constants) or bend.size not in (1, self._constants[names[0]].dims[0]):
            return False
        for at, name in enumerate(names, 1):
            values = numpy_helper.to_array(self._constants[name]).astype(np.float64)
            scale = bend.reshape(-1, *[1] * (values.ndim - 1))
            conv.input[at] = self._constant(f"{stem}_conv_{at}", values * scale)
        return True

    def _constant(self, name: str, values: np.ndarray) -> str:
        self._graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name
