"""Boxes become boxes with points, in a list that says who marked them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.decode import Detections
from tests.training.data.annotations.drawn_set import POINTS, by_name, expected_boxes, shards, voc, yolo
from tests.training.data.annotations.drawn_set import picture as drawn
from training.data.annotations.marking import add_marking, mark
from training.data.annotations.sources import open_annotations, open_photographs
from training.data.annotations.terms import terms_of
from training.data.pictures import BadData
from training.data.raw_photographs import Picture

ONE, TWO = "0--Door/one.png", "0--Door/two.png"


def sees(picture: Picture) -> Detections:
    """A detector that finds the left face of each picture, a little off, and its points."""
    name = ONE if np.array_equal(picture, drawn(ONE)) else TWO
    left = expected_boxes(name)[:1]
    boxes = (left + 0.5).astype(np.float32)
    points = (left[:, None, :2] + 0.5 + POINTS).astype(np.float32)
    return Detections(boxes, points, np.ones(len(boxes), np.float32))


def test_the_set_comes_out_with_points_where_the_detector_agrees(tmp_path: Path) -> None:
    (tmp_path / "TERMS").write_text("by permission")
    root = voc(tmp_path)
    folder = mark(open_annotations(root), sees, "drawn eyes", tmp_path / "faces.json")
    assert folder == tmp_path
    found = by_name(open_photographs(tmp_path / "faces.json"))
    before = by_name(open_photographs(root))
    assert found.keys() == before.keys()
    for name, one in found.items():
        np.testing.assert_allclose(one.boxes, before[name].boxes, atol=1e-4)
        np.testing.assert_array_equal(one.ignored, before[name].ignored)
    np.testing.assert_allclose(found[ONE].landmarks[0], sees(found[ONE].pixels).landmarks[0], atol=1e-4)
    assert np.isfinite(found[TWO].landmarks[0]).all()
    assert np.isnan(found[TWO].landmarks[1]).all()
    assert open_annotations(tmp_path / "faces.json").points == "drawn eyes where it agrees (IoU 0.5)"
    assert terms_of(tmp_path / "faces.json") == "by permission"


def test_points_that_were_there_stay_and_both_are_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    root = yolo(tmp_path / "set")
    mark(open_annotations(root), sees, "first", tmp_path / "set" / "a.json")
    mark(open_annotations(tmp_path / "set" / "a.json"), sees, "second", tmp_path / "set" / "b.json")
    told = json.loads((tmp_path / "set" / "b.json").read_text())["info"]["points"]
    assert told == "first where it agrees (IoU 0.5); second where it agrees (IoU 0.5)"
    first, second = (by_name(open_photographs(tmp_path / "set" / of)) for of in ("a.json", "b.json"))
    np.testing.assert_allclose(first[ONE].landmarks, second[ONE].landmarks, atol=1e-4)


def test_pictures_in_tar_shards_have_no_name_to_list(tmp_path: Path) -> None:
    root = shards(tmp_path / "set")
    with pytest.raises(BadData, match=r"lies in train-000\.tar; unpack the set first"):
        mark(open_annotations(root), sees, "drawn eyes", tmp_path / "faces.json")
    assert not (tmp_path / "faces.json").exists()


def test_the_verb_asks_the_bundle_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Path] = []

    def finder(path: Path) -> Any:
        asked.append(path)
        return sees, "detector 0f"

    parser = argparse.ArgumentParser()
    add_marking(parser.add_subparsers(), finder)
    to = tmp_path / "out" / "faces.json"
    arguments = parser.parse_args(
        ["mark-faces", str(voc(tmp_path)), "--to", str(to), "--detector", str(tmp_path / "bundle")]
    )
    arguments.act(arguments)
    assert asked == [tmp_path / "bundle"]
    assert f"{to}: look at it with check-boxes" in capsys.readouterr().out
    assert len(list(open_photographs(to, pictures=tmp_path))) == 3
