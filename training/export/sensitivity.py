"""Which layers int8 hurts: each is quantised alone, and the embeddings are compared with the float graph's.

What the table shows is for `int8_exclude` in training/configs/gates.toml: layers that stay in float.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from bundle.folder import open_bundle
from training.config import REPOSITORY, BadConfig, datasets
from training.data.identities import Faces, load_faces
from training.export.parity import Agreement, agreement
from training.export.prelu import NothingToRewrite, rewrite_prelu
from training.export.quantize import QUANTIZED, crops_to_calibrate, layers, require_layers, to_int8
from training.export.sessions import ServedGraph

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

_TAKES = 2  # inputs of a layer that are quantised: what comes in, and its weights


@dataclass(frozen=True)
class Layer:
    """What the embedding keeps when this layer alone is in int8; `weights` is how many it has."""

    name: str
    weights: int
    agreement: Agreement


def sensitivity(
    source: Path, calibrate: np.ndarray, compare: np.ndarray, names: Sequence[str] | None = None
) -> list[Layer]:
    """Layers of an embedder's graph, the most sensitive first.

    calibrate, compare: uint8 [n, 112, 112, 3] RGB. names: of the layers to look at, all by default. Raises
    BadCalibrationData, and BadConfig for a layer that is not there.
    """
    wanted = layers(source) if names is None else names
    require_layers(source, wanted)
    expected = ServedGraph(source).embed(compare)
    with tempfile.TemporaryDirectory() as folder:
        whole, single = Path(folder) / "int8.onnx", Path(folder) / "single.onnx"
        to_int8(source, whole, calibrate, exclude=set(layers(source)) - set(wanted))
        found = []
        for name in wanted:
            weights = only(source, whole, name, single)
            found.append(Layer(name, weights, agreement(expected, ServedGraph(single).embed(compare))))
    return sorted(found, key=lambda layer: layer.agreement.cosine_mean)


def only(source: Path, quantised: Path, name: str, target: Path) -> int:
    """Write `source` with the layer `name` as it is in `quantised`. Returns the number of the layer's weights."""
    model, donor = onnx.load(source), onnx.load(quantised)
    makers = {output: node for node in donor.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in donor.graph.initializer}
    layer = next(node for node in model.graph.node if node.name == name and node.op_type in QUANTIZED)
    given = next(node for node in donor.graph.node if node.name == name)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == layer.input[1])
    pairs: list[onnx.NodeProto] = []
    for at in range(_TAKES):
        layer.input[at] = given.input[at]
        pairs += _chain(given.input[at], makers)
    kept = {tensor.name for tensor in model.graph.initializer}
    needed = [of for node in pairs for of in node.input if of in constants and of not in kept]
    model.graph.initializer.extend(constants[of] for of in dict.fromkeys(needed))
    place = next(at for at, node in enumerate(model.graph.node) if node.name == name)
    nodes = [*model.graph.node[:place], *pairs, *model.graph.node[place:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    count = int(np.prod(weights.dims))
    if not any(weights.name in node.input for node in nodes):
        model.graph.initializer.remove(weights)
    onnx.save(model, target)
    return count


def report(graph: Path, faces: Faces, pictures: int = 64, compare: int = 64, most: int = 20) -> str:
    """The table for a person: the `most` sensitive layers of an embedder's graph, on faces of the validation split.

    The graph is the canonical one; its PReLU is rewritten first, as in the ladder.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rewritten.onnx"
        try:
            rewrite_prelu(graph, source)
        except NothingToRewrite:
            source = graph
        calibrate = crops_to_calibrate(faces, pictures)
        found = sensitivity(source, calibrate, crops_to_calibrate(faces, compare, seed=1))
    return table(found[:most])


def table(found: Sequence[Layer]) -> str:
    """Markdown."""
    lines = ["| layer | weights | cosine mean | 1st percentile | least |", "|" + " --- |" * 5]
    for of in found:
        near = of.agreement
        lines.append(
            f"| {of.name} | {of.weights:,} | {near.cosine_mean:.6f} | {near.cosine_p1:.6f} | {near.cosine_least:.6f} |"
        )
    return "\n".join(lines)


def _chain(name: str, makers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The pair of nodes that makes `name`, in order: it is a weight's DequantizeLinear, or follows a QuantizeLinear."""
    dequantise = makers[name]
    before = makers.get(dequantise.input[0])
    return [before, dequantise] if before is not None else [dequantise]


def add_sensitivity_verb(verbs: Verbs) -> None:
    """The verb `sensitivity`."""
    text = "which layers of an embedder lose most in int8, each quantised alone (half a minute)"
    verb = verbs.add_parser("sensitivity", help=text, description=text)
    verb.set_defaults(act=_sensitivity)
    verb.add_argument("--bundle", type=Path, default=REPOSITORY / "models" / "default", help="whose embedder")
    verb.add_argument(
        "--faces", type=Path, help="a set whose `validation` is looked at (default: the data sets')"
    )
    verb.add_argument("--most", type=int, default=20, help="layers to list (default: %(default)s)")


def _sensitivity(asked: argparse.Namespace) -> None:
    data = datasets()
    faces = asked.faces or (data / "faces" if data else None)
    if faces is None:
        raise BadConfig("no data sets found: set FACET_DATASETS, or give --faces")
    bundle = open_bundle(asked.bundle)
    graph = bundle.file(bundle.manifest.embedder.file)
    print(report(graph, load_faces(faces, "validation"), most=asked.most))
