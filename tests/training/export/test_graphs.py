"""What is exported carries its sentinel and its variants; an embedder whose sentinel could not tell is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from bundle.sentinel import WrongAnswer, check
from tests.training.export.conftest import SLIM
from training.data.identities import Faces
from training.export import ladder
from training.export.checkpoints import Trained
from training.export.detector_forms import DetectorBudget
from training.export.embedder_forms import EmbedderBudget
from training.export.graphs import Graphs, export_graphs, variants_of
from training.export.ladder import CANONICAL, EXACT, Ladder
from training.export.parity import ParityFailed
from training.export.sessions import ServedGraph

BUDGETS = EmbedderBudget(fmr=1e-2, int8_pictures=4), DetectorBudget(int8_pictures=4)


def exported(model: nn.Module, detector, faces: Faces, photographs: Path, folder: Path) -> Graphs:
    trained = Trained(model, None, 1), Trained(detector, SLIM, 1)
    told = {CANONICAL: 10.0, EXACT: 4.0, "fp16": 5.0, "int8": 6.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "milliseconds", lambda calls: {kind: told[kind] for kind in calls})
        return export_graphs(*trained, faces, photographs, folder / "graphs", folder / "cache", *BUDGETS)


@pytest.fixture(scope="module")
def graphs(
    tiny, settled_detector, many_faces: Faces, drawn_sets, tmp_path_factory: pytest.TempPathFactory
) -> Graphs:
    folder = tmp_path_factory.mktemp("exported")
    return exported(tiny.module.model, settled_detector, many_faces, drawn_sets.root / "wider", folder)


def test_the_bundle_gets_the_canonical_graphs_and_what_is_faster(graphs: Graphs) -> None:
    assert list(graphs.files) == ["embedder.onnx", "detector.onnx", "embedder.prelu-rewrite.onnx"]
    assert graphs.served.path.name == "embedder.prelu-rewrite.onnx"
    assert graphs.served_detector.path == graphs.detector.path
    (variant,) = graphs.variants
    assert variant.derived_from == graphs.embedder.digest
    assert variant.cost["milliseconds_a_face_before"] == 10.0
    assert set(graphs.parity) == set(graphs.files)
    assert all(isinstance(value, float) for of in graphs.parity.values() for value in of.values())
    assert graphs.embedder_spec.dimension == 16


def test_every_published_form_passes_the_sentinel_and_a_swapped_graph_does_not(
    graphs: Graphs, tmp_path: Path
) -> None:
    for graph in (graphs.embedder, graphs.served):
        assert check(graphs.sentinel, lambda crops, graph=graph: graph.run(crops)[0]) > 0.9999
    turned = ServedGraph(swapped(graphs.served.path, tmp_path / "swapped.onnx"))
    with pytest.raises(WrongAnswer, match="red and blue are swapped"):
        check(graphs.sentinel, lambda crops: turned.run(crops)[0])


def swapped(source: Path, target: Path) -> Path:
    """The graph as a preprocessing in BGR would have it."""
    model = onnx.load(source)
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name == "image":
                node.input[at] = "blue_first"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "places"))
    model.graph.node.insert(0, helper.make_node("Gather", ["image", "places"], ["blue_first"], axis=3))
    onnx.save(model, target)
    return target


def test_a_detector_s_form_that_its_ladder_lets_through_is_served_and_in_the_bundle(
    graphs: Graphs,
) -> None:
    canonical, half, *rest = graphs.detector_ladder.rungs
    through = replace(half, published=True, milliseconds=2.0)
    served = ServedGraph(graphs.detector.path.with_name(half.file))
    let = Ladder((canonical, through, *rest), served)
    variants = (*graphs.variants, *variants_of("detector", graphs.detector, let))
    other = replace(graphs, detector_ladder=let, variants=variants)
    assert list(other.files)[-1] == "detector.fp16.onnx"
    variant = other.variants[-1]
    assert (variant.of, variant.kind, variant.derived_from) == ("detector", "fp16", graphs.detector.digest)
    assert variant.cost["milliseconds_a_picture"] == 2.0
    assert set(other.parity) == set(other.files)


def test_an_embedder_that_is_blind_to_colour_is_not_exported(
    tiny, settled_detector, many_faces: Faces, drawn_sets, tmp_path: Path
) -> None:
    class Grey(nn.Module):
        dimension = 16

        def __init__(self) -> None:
            super().__init__()
            self.of = tiny.module.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.of(x.mean(1, keepdim=True).expand(-1, 3, -1, -1))

    with pytest.raises(ParityFailed, match=r"embedder\.onnx: swapped channels change nothing"):
        exported(Grey(), settled_detector, many_faces, drawn_sets.root / "wider", tmp_path)
