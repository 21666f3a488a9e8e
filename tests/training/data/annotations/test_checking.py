"""The checker finds every planted defect, names its line, counts, and says whether a training would take the set."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.data.annotations.drawn_set import FORMATS, draw_pictures, encoded, retinaface, wider_text
from training.data.annotations.checking import add_verb, check, copies
from training.data.annotations.sources import open_annotations
from training.data.scenes import draw_scene


def verb(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers())
    asked = parser.parse_args(["check-boxes", *map(str, arguments)])
    return int(asked.act(asked))


@pytest.mark.parametrize("form", FORMATS)
def test_a_sound_set_has_no_finding(tmp_path: Path, form: str) -> None:
    report = check(open_annotations(FORMATS[form](tmp_path)))
    assert report.findings == ()
    assert report.refused is None
    assert (report.pictures, report.without, report.boxes) == (3, 1, 3)


def broken(root: Path) -> Path:
    """A RetinaFace list with one of each defect."""
    draw_pictures(root / "images", [f"{name}.png" for name in "abcdefghi"])
    (root / "images" / "b.png").write_bytes(encoded("b.png")[:100])
    (root / "images" / "i.png").write_bytes(encoded("a.png"))
    points = "24 18 0 34 18 0 29 23 0 25 28 0 33 28 0"
    swapped = "34 18 0 24 18 0 29 23 0 33 28 0 25 28 0"
    away = points.replace("33 28", "60 28")
    lines = [
        *(
            "# a.png",
            "20 10 20 24",
            "# b.png",
            "20 10 20 24",
            "# c.png",
            "20 10 0 24",
            "# d.png",
            "nan 10 20 24",
        ),
        *("# e.png", "50 10 30 24", "70 10 10 10", "# f.png", f"20 10 20 24 {swapped} 1"),
        *("# g.png", f"20 10 20 24 {away} 1", "# nobody.png", "20 10 20 24", "# i.png", "20 10 20 24"),
    ]
    (root / "label.txt").write_text("\n".join(lines))
    return root / "label.txt"


def test_every_planted_defect_is_found_and_named(tmp_path: Path) -> None:
    file = broken(tmp_path)
    report = check(open_annotations(file))
    images = tmp_path / "images"
    planted = (
        "unreadable no_area not_a_number clipped outside landmarks_mirrored landmarks_outside no_picture"
    )
    found = Counter(of.kind for of in report.findings)
    assert found == Counter([*planted.split(), "no_annotation", "copy"])
    where = {of.kind: of.where for of in report.findings}
    assert where["unreadable"] == str(images / "b.png")
    assert where["no_annotation"] == str(images / "h.png")
    for kind, line in (
        ("no_area", 6),
        ("not_a_number", 8),
        ("clipped", 10),
        ("outside", 11),
        ("no_picture", 16),
    ):
        assert where[kind] == f"{file}:{line}"
    assert (where["landmarks_mirrored"], where["landmarks_outside"]) == (f"{file}:13", f"{file}:15")
    (copy,) = (of for of in report.findings if of.kind == "copy")
    assert (copy.where, copy.detail) == (f"{file}: a.png", "looks like i.png")
    assert (report.pictures, report.boxes, report.ignored, report.marked) == (5, 5, 1, 0)
    assert "3 of 8 pictures cannot be used" in str(report.refused)


def test_the_verb_prints_each_finding_once_and_fails_for_a_set_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(broken(tmp_path)) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path / 'label.txt'}:6: no_area: less than a pixel of it wide or high: 20 10 20 34\n" in said
    assert "1 clipped (the box ends at the picture's edge), the first:" in said
    assert "refused: " in said


def test_the_verb_is_content_with_a_sound_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(retinaface(tmp_path)) == 0
    assert "RetinaFace text, 3 pictures (1 without a face), 3 boxes (0 ignored, 2 with landmarks)" in (
        capsys.readouterr().out
    )


def test_a_picture_in_two_sets_is_found_across_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "evaluation"):
        (tmp_path / name).mkdir()
    train, evaluation = wider_text(tmp_path / "train"), retinaface(tmp_path / "evaluation")
    found = copies([check(open_annotations(train)), check(open_annotations(evaluation))])
    assert len(found) == 3
    assert {of.kind for of in found} == {"copy"}
    assert found[0].where == f"{train}: 0--Door/one.png"
    assert found[0].detail == f"looks like 0--Door/one.png of {evaluation}"
    assert verb(train, evaluation) == 1
    assert "looks like" in capsys.readouterr().out


def test_sets_of_different_pictures_share_none(tmp_path: Path) -> None:
    for part in range(2):
        folder = tmp_path / str(part)
        folder.mkdir()
        for number in range(4):
            pixels = draw_scene(10 * part + number).pixels
            cv2.imwrite(str(folder / f"{number}.png"), np.ascontiguousarray(pixels[..., ::-1]))
            (folder / f"{number}.txt").write_text("")
    reports = [check(open_annotations(tmp_path / str(part))) for part in range(2)]
    assert [of.without for of in reports] == [4, 4]
    assert copies(reports) == []
