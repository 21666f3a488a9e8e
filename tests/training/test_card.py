"""The card says beside which form of the reference ours was timed, where that is worth a sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.card import Card
from training.export.ladder import CANONICAL, EXACT, Rung


def graph(path: Path, operator: str) -> Path:
    """A graph of that one operator."""
    constants = {
        "Clip": [np.float32(0), np.float32(6)],
        "PRelu": [np.full((1,), 0.25, np.float32)],
        "Relu": [],
    }
    named = [numpy_helper.from_array(np.asarray(of), f"c{at}") for at, of in enumerate(constants[operator])]
    node = helper.make_node(operator, ["x", *(of.name for of in named)], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "one", ends[:1], ends[1:], named)), path)
    return path


def said(reference: Path, rewritten: bool) -> str:
    rungs = [Rung(CANONICAL, "e.onnx", True, ""), Rung(EXACT, "e.prelu-rewrite.onnx", rewritten, "")]
    graphs: Any = SimpleNamespace(ladder=SimpleNamespace(rungs=rungs))
    none: Any = None
    return Card(none, none, none, graphs, {}, reference)._not_rewritten()


@pytest.mark.parametrize(
    ("operator", "rewritten", "told"),
    [("Clip", True, True), ("Clip", False, False), ("PRelu", True, False), ("Relu", True, False)],
)
def test_that_nothing_could_be_rewritten_in_the_reference_is_said_where_ours_was(
    tmp_path: Path, operator: str, rewritten: bool, told: bool
) -> None:
    sentence = said(graph(tmp_path / "reference.onnx", operator), rewritten)
    assert (
        "it has ReLU6 and no PReLU, so the rewrite that ours is served with would change nothing" in sentence
    ) is told
    assert bool(sentence) is told


def test_without_a_reference_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert said(tmp_path / "absent.onnx", rewritten=True) == ""
