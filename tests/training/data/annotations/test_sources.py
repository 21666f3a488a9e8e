"""Whatever the format, the same photographs come out; what is no format is refused with the list of those that are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.annotations.drawn_set import (
    FACES,
    FORMATS,
    POINTS,
    WITH_POINTS,
    WITHOUT_FLAGS,
    by_name,
    coco,
    draw_pictures,
    expected_boxes,
    picture,
    retinaface,
    voc,
    yolo,
)
from training.data.annotations.sources import open_annotations, open_photographs
from training.data.pictures import BadData


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_photographs_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    path = FORMATS[form](tmp_path)
    found = by_name(open_photographs(path))
    assert f"{path}: {form}\n" in capsys.readouterr().out
    assert set(found) == set(FACES)
    for name, faces in FACES.items():
        one = found[name]
        np.testing.assert_array_equal(one.pixels, picture(name))
        np.testing.assert_allclose(one.boxes, expected_boxes(name), atol=1e-5)
        flags = [form not in WITHOUT_FLAGS and bool(face[4]) for face in faces]
        assert one.ignored.tolist() == flags
        assert one.boxes.dtype == one.landmarks.dtype == np.float32
        assert one.landmarks.shape == (len(faces), 5, 2)
    points = found["0--Door/one.png"].landmarks[0]
    if form in WITH_POINTS:
        np.testing.assert_allclose(points, POINTS + np.array([10, 6]), atol=1e-4)
    else:
        assert np.isnan(points).all()
    assert np.isnan(found["0--Door/two.png"].landmarks[1]).all()


@pytest.mark.parametrize("form", FORMATS)
def test_a_smaller_copy_keeps_faces_where_they_are(tmp_path: Path, form: str) -> None:
    one = by_name(open_photographs(FORMATS[form](tmp_path), longest=32))["0--Door/one.png"]
    assert one.pixels.shape == (24, 32, 3)
    assert one.scale == 0.5
    np.testing.assert_allclose(one.boxes, (expected_boxes("0--Door/one.png") + 0.5) / 2 - 0.5, atol=1e-5)


@pytest.mark.parametrize("form", ["WIDER FACE text", "WIDER FACE .mat", "RetinaFace text", "COCO JSON"])
def test_the_folder_of_a_list_stands_for_it(tmp_path: Path, form: str) -> None:
    assert open_annotations(FORMATS[form](tmp_path).parent).form == form


def test_pictures_may_lie_anywhere_that_is_said(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "elsewhere")
    draw_pictures(tmp_path / "elsewhere" / "train")  # as the labels lie
    for name, make in (("a", coco), ("b", yolo), ("c", voc), ("d", retinaface)):
        (tmp_path / name).mkdir()
        path = make(tmp_path / name)
        for folder in ("images", "JPEGImages"):
            shutil.rmtree(tmp_path / name / folder, ignore_errors=True)
        with pytest.raises(BadData):
            open_annotations(path)
        assert len(open_annotations(path, tmp_path / "elsewhere").entries) == len(FACES)


def test_a_picture_and_its_label_may_lie_together(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    for name in FACES:
        (tmp_path / name).with_suffix(".txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (tmp_path / "classes.txt").write_text("face\n")
    found = open_annotations(tmp_path)
    assert found.form == "YOLO text"
    assert [one.name for one in found.entries] == sorted(FACES)
    assert found.findings == ()


def test_what_is_no_set_is_answered_with_the_formats(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "a.txt").write_text("nothing to see\n")
    (tmp_path / "a.csv").write_text("1,2\n")
    for name, what in (
        ("none", "no such file or folder"),
        ("empty", "an empty folder"),
        ("prose", "no annotation"),
        ("a.csv", "not a list of boxes"),
        ("prose/a.txt", "no picture's name"),
    ):
        with pytest.raises(
            BadData, match=rf"(?s){name}:(1:)? {what}.*a set of boxed photographs is one of.*COCO"
        ):
            open_annotations(tmp_path / name)


def test_two_lists_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    retinaface(tmp_path)
    coco(tmp_path)
    with pytest.raises(BadData, match=r"holds faces\.json, label\.txt; name one of them"):
        open_annotations(tmp_path)


def test_a_list_without_any_of_its_pictures_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "label.txt").write_text("# a.jpg\n1 2 3 4\n")
    with pytest.raises(BadData, match=rf"none of its 1 pictures is in {tmp_path}, .*--pictures"):
        open_annotations(tmp_path)


def test_files_that_are_not_what_their_names_say_are_refused(tmp_path: Path) -> None:
    for name, text in (("a.mat", "no mat"), ("b.json", "{"), ("c.json", "[1]"), ("d.json", '{"images": []}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadData, match=rf"{name}: (not COCO JSON|cannot be read .*no MATLAB file)"):
            open_annotations(tmp_path / name)
