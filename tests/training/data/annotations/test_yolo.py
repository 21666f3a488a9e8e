"""YOLO text: fractions, five points with or without flags, classes that somebody must name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.annotations.drawn_set import draw_pictures
from training.data.annotations.entries import Annotations
from training.data.annotations.intake import photographs
from training.data.annotations.sources import open_photographs
from training.data.annotations.yolo import read_yolo
from training.data.pictures import BadData


def labels(root: Path, faces: list[str] | None = None, **texts: str) -> Annotations:
    draw_pictures(root / "images", [f"{name}.png" for name in texts])
    (root / "labels").mkdir(exist_ok=True)
    for name, text in texts.items():
        (root / "labels" / f"{name}.txt").write_text(text)
    return read_yolo(root, faces=faces)


def test_points_may_carry_flags(tmp_path: Path) -> None:
    points = [(0.3, 0.4), (0.5, 0.4), (0.4, 0.5), (0.32, 0.6), (0.48, 0.6)]
    plain = " ".join(f"{x} {y}" for x, y in points)
    flagged = " ".join(f"{x} {y} 2" for x, y in points)
    hidden = flagged.replace("0.5 2", "0.5 0")
    of = labels(tmp_path, a="\n".join(f"0 .4 .5 .4 .4 {of}" for of in (plain, flagged, hidden)))
    found = of.entries[0].landmarks
    np.testing.assert_allclose(found[0], points)
    np.testing.assert_allclose(found[1], points)
    assert np.isnan(found[2]).all()


def test_an_empty_file_says_no_face_and_a_missing_one_says_nothing(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", ["c.png"])
    of = labels(tmp_path, a="0 .5 .5 .2 .2\n", b="")
    assert [(one.name, len(one.boxes)) for one in of.entries] == [("images/a.png", 1), ("images/b.png", 0)]
    assert [(one.kind, Path(one.where).name) for one in of.findings] == [("no_annotation", "c.png")]
    assert "an empty one says that there is no face" in of.findings[0].detail


def test_a_label_without_a_picture_is_named(tmp_path: Path) -> None:
    labels(tmp_path, a="0 .5 .5 .2 .2\n")
    (tmp_path / "labels" / "lonely.txt").write_text("0 .5 .5 .2 .2\n")
    found = read_yolo(tmp_path).findings
    assert [(one.kind, Path(one.where).name) for one in found] == [("no_picture", "lonely.txt")]


@pytest.mark.parametrize("line", ["0 .5 .5 .2", "0 .5 .5 .2 .2 .1", "face .5 .5 .2 .2", "0 .5 .5 .2 x"])
def test_a_line_that_is_no_box_is_named(tmp_path: Path, line: str) -> None:
    of = labels(tmp_path, a=f"0 .5 .5 .2 .2\n{line}\n")
    assert [one.kind for one in of.entries[0].findings] == ["malformed"]
    assert of.entries[0].findings[0].where.endswith("a.txt:2")


def test_pixels_in_place_of_fractions_refuse_the_set(tmp_path: Path) -> None:
    labels(tmp_path, a="0 30 20 16 12\n")
    with pytest.raises(
        BadData, match=r"1 of 1 pictures cannot be used.*a\.txt:1: absolute: pixels where fractions"
    ):
        list(open_photographs(tmp_path))


def test_several_classes_need_a_name(tmp_path: Path) -> None:
    texts = {"a": "0 .5 .5 .2 .2\n3 .2 .2 .1 .1\n3 .7 .7 .1 .1\n"}
    with pytest.raises(BadData, match=r"which classes are faces\? Name them \(--faces\): 0 \(1\), 3 \(2\)"):
        labels(tmp_path, **texts)
    of = labels(tmp_path, ["3"], **texts)
    assert [len(one.boxes) for one in photographs(of)] == [2]
    assert [str(one.detail) for one in of.findings] == ["1 boxes of the class 0"]
    with pytest.raises(BadData, match=r"no box is of the class 7; there are 0 \(1\), 3 \(2\)"):
        labels(tmp_path, ["7"], **texts)
