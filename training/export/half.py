"""Half precision: arithmetic from the first layer with weights to the last in float16, the rest in float32.

Bytes in, float32 out, as before: the normalisation of pixels and the division by an embedding's length stay in
float32, where ten bits of fraction would show.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LARGEST = float(np.finfo(np.float16).max)
_FLOAT32_ALWAYS = {"Resize": (1, 2)}  # inputs that the operator itself wants in float32: region and scales


class NotForHalf(Exception):
    """The graph has no layer with weights, or a weight beyond float16's range."""


def to_half(source: Path, target: Path) -> int:
    """Write `source` to `target` in half precision. Returns how many tensors were halved; raises NotForHalf."""
    model = onnx.load(source)
    graph = model.graph
    _lift_constants(graph)
    body = _body(graph)
    if not body:
        raise NotForHalf(f"{source.name} has no layer with weights")
    halved = _Halved(model, body)
    nodes = [new for node in graph.node for new in halved.nodes(node)] + halved.casts_back(
        [of.name for of in graph.output]
    )
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(halved.constants.values())
    used = {name for node in nodes for name in node.input}
    for tensor in [of for of in graph.initializer if of.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    return len(halved.constants)


def _lift_constants(graph: GraphProto) -> None:
    """Constant nodes become initialisers, so that there is one kind of constant to convert."""
    for node in [of for of in graph.node if of.op_type == "Constant" and of.attribute[0].name == "value"]:
        tensor = node.attribute[0].t
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _body(graph: GraphProto) -> set[str]:
    """The outputs of nodes that follow a layer with weights and are needed by one, those layers included."""
    after: set[str] = set()
    for node in graph.node:  # in the order of their needs, as ONNX demands
        if node.op_type in WEIGHTED or after & set(node.input):
            after |= set(node.output)
    needed: set[str] = set()
    body: set[str] = set()
    for node in reversed(graph.node):
        weighted = node.op_type in WEIGHTED
        if weighted or needed & set(node.output):
            needed |= set(node.input)
            if weighted or after & set(node.output):
                body |= set(node.output)
    return body


class _Halved:
    """Nodes and constants rewritten as they come: a tensor of the body, and its copy of a constant, is `name_half`."""

    def __init__(self, model: onnx.ModelProto, body: set[str]) -> None:
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = [*inferred.input, *inferred.value_info, *inferred.output]
        self._given = {of.name: of for of in model.graph.initializer}
        self._float = {of.name for of in values if of.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._float |= {name for name, of in self._given.items() if of.data_type == TensorProto.FLOAT}
        self._body = body
        self._cast: set[str] = set()  # tensors that stand in both precisions
        self.constants: dict[str, TensorProto] = {}

    def nodes(self, node: NodeProto) -> list[NodeProto]:
        """What stands in the node's place: casts that it needs first, then the node itself."""
        if node.output[0] not in self._body:
            return [*self.casts_back(node.input), node]
        fixed = _FLOAT32_ALWAYS.get(node.op_type, ())
        casts = self.casts_back([name for at, name in enumerate(node.input) if at in fixed])
        for at, name in enumerate(node.input):
            if name in self._float and at not in fixed:
                casts += self._enter(name)
                node.input[at] = f"{name}_half"
        for at, name in enumerate(node.output):
            if name in self._float:
                node.output[at] = f"{name}_half"
                if node.op_type == "Cast":
                    node.attribute[0].i = TensorProto.FLOAT16
        return [*casts, node]

    def casts_back(self, names: Iterable[str]) -> list[NodeProto]:
        """To float32, for those of `names` that are computed in the body and were not cast yet."""
        leaving = [name for name in dict.fromkeys(names) if name in self._body & self._float - self._cast]
        self._cast |= set(leaving)
        return [helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT) for name in leaving]

    def _enter(self, name: str) -> list[NodeProto]:
        if name in self._given:
            self.constants.setdefault(name, self._constant(name))
        elif name not in self._body | self._cast:
            self._cast.add(name)
            return [helper.make_node("Cast", [name], [f"{name}_half"], to=TensorProto.FLOAT16)]
        return []

    def _constant(self, name: str) -> TensorProto:
        values = numpy_helper.to_array(self._given[name])
        largest = float(np.abs(values).max(initial=0))
        if not largest <= LARGEST:
            raise NotForHalf(f"{name} holds {largest:.3g}, and float16 ends at {LARGEST:g}")
        return numpy_helper.from_array(values.astype(np.float16), f"{name}_half")
