"""Which layer int8 hurts: one alone at a time, and the one that was made to hurt comes first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from training import __main__ as command
from training.config import BadConfig
from training.data.identities import Faces
from training.export import sensitivity as module
from training.export.quantize import crops_to_calibrate, layers, to_int8
from training.export.sensitivity import only, report, sensitivity


def test_one_layer_alone_is_quantised(tiny, many_faces: Faces, tmp_path: Path) -> None:
    whole, single = tmp_path / "whole.onnx", tmp_path / "single.onnx"
    to_int8(tiny.graph.path, whole, crops_to_calibrate(many_faces, 4))
    for name in layers(tiny.graph.path):
        assert only(tiny.graph.path, whole, name, single) > 0
        model = onnx.load(single)
        onnx.checker.check_model(model, full_check=True)
        operators = Counter(node.op_type for node in model.graph.node)
        assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (1, 2)
        (taken,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        layer = next(node for node in model.graph.node if node.name == name)
        assert layer.input[0].startswith(taken.input[0])


@pytest.fixture(scope="module")
def spoilt(tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The tiny graph, in whose last matrix one column of weights is so large that the scales leave the others none."""
    model = onnx.load(tiny.graph.path)
    layer = next(node for node in model.graph.node if node.op_type == "Gemm")
    weights = next(of for of in model.graph.initializer if of.name == layer.input[1])
    values = numpy_helper.to_array(weights).copy()
    values[:, 0] = 1000 * np.abs(values).max()  # times an input that is nearly always the same
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    path = tmp_path_factory.mktemp("spoilt") / "spoilt.onnx"
    onnx.save(model, path)
    return path, layer.name


def test_the_layer_that_suffers_most_comes_first(spoilt: tuple[Path, str], many_faces: Faces) -> None:
    path, name = spoilt
    found = sensitivity(path, crops_to_calibrate(many_faces, 8), many_faces.crops()[::6])
    assert found[0].name == name
    assert {of.name for of in found} == set(layers(path))
    means = [of.agreement.cosine_mean for of in found]
    assert means == sorted(means)


def test_only_the_layers_asked_for_are_looked_at(tiny, many_faces: Faces) -> None:
    first = layers(tiny.graph.path)[0]
    crops = crops_to_calibrate(many_faces, 4)
    (layer,) = sensitivity(tiny.graph.path, crops, crops, [first])
    assert (layer.name, layer.weights) == (first, 3 * 8 * 5 * 5)
    assert 0.9 < layer.agreement.cosine_mean < 1
    with pytest.raises(BadConfig, match="/typo"):
        sensitivity(tiny.graph.path, crops, crops, ["/typo"])


def test_the_table_names_every_layer(tiny, many_faces: Faces) -> None:
    lines = report(tiny.graph.path, many_faces, pictures=4, compare=4).splitlines()
    assert len(lines) == 2 + len(layers(tiny.graph.path))
    assert lines[0].startswith("| layer | weights | cosine mean")
    assert all(len(line.split("|")) == len(lines[0].split("|")) for line in lines)


def test_the_verb_prints_the_layers_of_a_bundle_s_embedder(
    tiny,
    many_faces: Faces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = SimpleNamespace(embedder=SimpleNamespace(file="embedder.onnx"))
    bundle = SimpleNamespace(manifest=manifest, file=lambda name: tiny.graph.path)
    monkeypatch.setattr(module, "open_bundle", lambda path: bundle)
    monkeypatch.setattr(module, "load_faces", lambda root, split: many_faces)
    assert command.main(["sensitivity", "--faces", str(tmp_path), "--most", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2
    monkeypatch.setattr(module, "datasets", lambda: None)
    assert command.main(["sensitivity"]) == 1
    assert "set FACET_DATASETS, or give --faces" in capsys.readouterr().err
