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

from bundle.decode import AnchorLayout
from bundle.manifest import DetectorSpec
from bundle.sentinel import WrongAnswer, check
from bundle.views import shapes
from tests.training.export.conftest import SLIM, settled_on_scenes
from training.data.identities import Faces
from training.data.widerface import wider
from training.detector.config import DetectorConfig
from training.detector.selection import canvas_of
from training.export import ladder
from training.export.checkpoints import Trained
from training.export.detection import measure_detection
from training.export.detector_forms import DetectorBudget, DetectorForms
from training.export.embedder_forms import EmbedderBudget
from training.export.graphs import Graphs, export_graphs, spec_of, variants_of
from training.export.ladder import CANONICAL, EXACT, Ladder
from training.export.measure import operating_point
from training.export.onnx import export_detector
from training.export.parity import ParityFailed
from training.export.sessions import ServedGraph

BUDGETS = EmbedderBudget(fmr=1e-2, int8_pictures=4), DetectorBudget(int8_pictures=4)


def exported(
    model: nn.Module, detector, faces: Faces, photographs: Path, folder: Path, config: DetectorConfig = SLIM
) -> Graphs:
    trained = Trained(model, None, 1), Trained(detector, config, 1)
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


def with_levels(*strides: int) -> DetectorConfig:
    sizes = tuple((4.0 * of,) for of in strides)
    return SLIM.model_copy(
        update={"anchors": AnchorLayout(strides=strides, sizes=sizes), "sides": (max(strides),)}
    )


COARSE = [with_levels(4, 8, 16, 32, 64), with_levels(8, 16, 32, 64, 128)]


@pytest.mark.parametrize("config", [SLIM, with_levels(4, 8), *COARSE], ids=lambda of: str(of.anchors.strides))
def test_a_bundle_s_canvases_are_those_that_the_run_was_judged_on(config: DetectorConfig) -> None:
    spec = spec_of(config)
    assert spec.canvases[0] == canvas_of(config)
    assert spec.anchors == config.anchors
    assert not any(side % max(config.anchors.strides) for size in shapes(spec) for side in size)
    if max(config.anchors.strides) <= 32:
        assert spec.canvases == DetectorSpec().canvases


@pytest.mark.parametrize("config", COARSE, ids=lambda of: str(of.anchors.strides))
def test_a_detector_with_coarse_levels_is_exported_and_checked(
    config: DetectorConfig, drawn_sets, tmp_path: Path
) -> None:
    spec = spec_of(config)
    served = export_detector(settled_on_scenes(config), tmp_path / spec.file)
    graph = ServedGraph(tmp_path / spec.file)
    forms = DetectorForms(served, graph, spec, drawn_sets.root / "wider", tmp_path)
    assert forms.against_model().compared_on > 10
    assert not forms.faults(graph)


@pytest.mark.slow
@pytest.mark.parametrize("config", COARSE, ids=lambda of: str(of.anchors.strides))
def test_a_detector_with_coarse_levels_goes_all_the_way_to_its_figures(
    config: DetectorConfig, tiny, many_faces: Faces, drawn_sets, tmp_path: Path
) -> None:
    photographs = drawn_sets.root / "wider"
    model = settled_on_scenes(config)
    graphs = exported(tiny.module.model, model, many_faces, photographs, tmp_path, config)
    assert graphs.detector_spec == spec_of(config)
    spec = operating_point(graphs.detector, graphs.detector_spec, drawn_sets.root, tmp_path / "cache")
    found = measure_detection(graphs.detector, spec, drawn_sets.root, tmp_path)
    assert {of.scale for of in found.findings} == {"VGA", "original size"}
    assert found.served.at_one.pictures == len(list(wider(photographs, "val")))


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
