"""A detector looks at a picture once, unless something changed that it could see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle.manifest import DetectorSpec
from training.data.widerface import wider
from training.evaluation.finding import look
from training.export.looks import digest_of_files, looked
from training.export.sessions import ServedGraph, finder

SPEC = DetectorSpec(top_k=50)


def test_what_is_kept_is_what_is_seen(detector, drawn_sets, tmp_path: Path) -> None:
    root = drawn_sets.root / "wider"
    expected_truth, expected = look(wider(root, "selection"), {"it": finder(detector.graph, SPEC)})
    for _ in range(2):
        truth, found = looked({"it": (detector.graph, SPEC)}, root, "selection", tmp_path)
        assert [of.name for of in truth] == [of.name for of in expected_truth]
        for one, other in zip(found["it"], expected["it"], strict=True):
            assert np.array_equal(one.boxes, other.boxes)
            assert np.array_equal(one.scores, other.scores)


def test_who_has_looked_does_not_look_again_until_the_decoding_changes(
    detector, drawn_sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, asked = drawn_sets.root / "wider", []
    run = ServedGraph.run
    monkeypatch.setattr(ServedGraph, "run", lambda self, image: asked.append(1) or run(self, image))
    pictures = len(looked({"it": (detector.graph, SPEC)}, root, "selection", tmp_path)[0])
    once = len(asked)
    assert once >= pictures > 0
    other_point = SPEC.model_copy(update={"min_score": 0.9})
    looked({"again": (detector.graph, other_point)}, root, "selection", tmp_path)
    assert len(asked) == once
    strict = SPEC.model_copy(update={"nms_iou": 0.2})
    looked({"it": (detector.graph, SPEC), "strict": (detector.graph, strict)}, root, "selection", tmp_path)
    assert len(asked) == 2 * once
    looked({"it": (detector.graph, SPEC)}, root, "val", tmp_path)
    assert len(asked) > 2 * once


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("2")
    whole = digest_of_files([first, second])
    assert digest_of_files([second, first, tmp_path]) == whole
    second.write_text("3")
    assert digest_of_files([first, second]) != whole
    assert digest_of_files([first]) != digest_of_files([first.rename(tmp_path / "c")])
