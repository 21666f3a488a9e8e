"""WIDER FACE's own forms and their quirks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tests.training.data.annotations.drawn_set import cells, draw_pictures, shards, wider_mat
from training.data.annotations.entries import Annotations
from training.data.annotations.wider import read_mat, read_retinaface, read_shards, read_text
from training.data.pictures import BadData

NAMES = ["a/1.png", "a/2.png", "a/3.png"]


def text(folder: Path, *lines: str) -> Annotations:
    draw_pictures(folder, NAMES)
    (folder / "x_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return read_text(folder / "x_bbx_gt.txt")


def marked(folder: Path, *lines: str) -> Annotations:
    draw_pictures(folder, NAMES)
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    return read_retinaface(folder / "label.txt")


def test_no_face_is_written_as_one_of_zeros(tmp_path: Path) -> None:
    of = text(
        tmp_path,
        *("a/1.png", "0", "0 0 0 0 0 0 0 0 0 0 "),
        *("a/2.png", "1", "1 2 3 4 0 0 0 1 0 0 "),
        *("a/3.png", "0"),
    )
    assert of.findings == ()
    assert [len(one.boxes) for one in of.entries] == [0, 1, 0]
    assert [one.findings for one in of.entries] == [()] * 3
    assert of.entries[1].boxes.tolist() == [[1, 2, 4, 6]]
    assert of.entries[1].ignored.tolist() == [True]
    assert of.entries[1].where[0].endswith("x_bbx_gt.txt:6")


def test_a_box_of_zeros_among_others_is_a_box(tmp_path: Path) -> None:
    of = text(tmp_path, "a/1.png", "2", "0 0 0 0 0 0 0 0 0 0", "5 5 9 9 0 0 0 0 0 0")
    assert len(of.entries[0].boxes) == 2


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["a/1.png", "1", "5 five 9 9"], 3),
        (["a/1.png", "1", "5 5 9"], 3),
        (["a/1.png", "2", "5 5 9 9 0 0 0 0 0 0"], 1),
        (["a/1.png", "5 5 9 9"], 1),
        (["a/1.png", ""], 1),
    ],
)
def test_what_does_not_follow_the_form_is_named_by_its_line(
    tmp_path: Path, lines: list[str], line: int
) -> None:
    of = text(tmp_path, *lines, "a/2.png", "1", "1 2 3 4 0 0 0 0 0 0")
    assert [one.kind for one in of.entries[0].findings] == ["malformed"]
    assert of.entries[0].findings[0].where.endswith(f"x_bbx_gt.txt:{line}")
    assert of.entries[1].findings == ()
    assert of.entries[1].boxes.tolist() == [[1, 2, 4, 6]]


def test_pictures_without_lines_and_lines_without_pictures_are_named(tmp_path: Path) -> None:
    of = text(tmp_path, "7 7", "a/1.png", "0", "a/9.png", "0", "a/1.png", "0")
    assert [(one.kind, one.where.rpartition("/")[2]) for one in of.findings] == [
        ("malformed", "x_bbx_gt.txt:1"),
        ("no_picture", "x_bbx_gt.txt:4"),
        ("named_twice", "x_bbx_gt.txt:6"),
        ("no_annotation", "2.png"),
        ("no_annotation", "3.png"),
    ]


def test_retinaface_marks_what_it_does_not_know_with_minus_one(tmp_path: Path) -> None:
    points = "21 31 0.0 41 32 0.0 30 40 1.0 22 50 0.0 40 51 0.0"
    one_unknown = points.replace("30 40 1.0", "-1.0 -1.0 -1.0")
    of = marked(
        tmp_path,
        *("# a/1.png", f"10 20 40 50 {points} 0.8", f"10 20 40 50 {one_unknown} 0.8", "10 20 40 50"),
        *("# a/2.png", "# a/3.png", "10 20 40 50 1 2 3"),
    )
    first, second, third = of.entries
    assert first.landmarks[0].tolist() == [
        [21.5, 31.5],
        [41.5, 32.5],
        [30.5, 40.5],
        [22.5, 50.5],
        [40.5, 51.5],
    ]
    assert np.isnan(first.landmarks[1:]).all()
    assert len(second.boxes) == 0
    assert [one.kind for one in third.findings] == ["malformed"]
    assert third.findings[0].where.endswith("label.txt:7")


def test_a_mat_without_flags_ignores_nobody(tmp_path: Path) -> None:
    file = wider_mat(tmp_path)
    lists = {
        name: of for name, of in loadmat(file).items() if name.endswith("_list") and "invalid" not in name
    }
    savemat(file, lists)
    assert not any(one.ignored.any() for one in read_mat(file).entries)


def note(root: Path, change) -> Annotations:
    file = shards(root) / "annotations.json"
    notes = json.loads(file.read_text())
    change(notes)
    file.write_text(json.dumps(notes))
    return read_shards(root)


def test_notes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def change(notes: dict) -> None:
        notes["train/0--Door/one.png"]["boxes"] = [[1, 2, 3], [1, 2, 3, 4, "x"], [1, 2, 3, 4, 0]]
        del notes["train/0--Door/two.png"]["width"]
        notes["train/nobody.png"] = notes.pop("train/1--Empty/none.png")

    of = note(tmp_path, change)
    assert [one.kind for one in of.findings] == ["no_picture", "no_annotation"]
    assert "train/nobody.png" in of.findings[0].where
    assert "train-000.tar: 1--Empty/none.png" in of.findings[1].where
    first, second = of.entries
    assert [one.where.rpartition(": ")[2] for one in first.findings] == [
        "train/0--Door/one.png, box 1",
        "train/0--Door/one.png, box 2",
    ]
    assert len(first.boxes) == 1
    assert [one.detail for one in second.findings] == ["no width and height"]


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"boxes": None}, "no list of boxes"),
        ({"boxes": 5}, "no list of boxes"),
        ({"boxes": [[1, 2, 3, 10**400, 0]]}, "not five numbers"),
        ({"width": float("inf")}, "no width and height"),
    ],
)
def test_a_note_that_cannot_be_read_is_no_picture_without_faces(
    tmp_path: Path, changed: dict, detail: str
) -> None:
    of = note(tmp_path, lambda notes: notes["train/0--Door/one.png"].update(changed))
    (found,) = of.entries[0].findings
    assert found.kind == "malformed"
    assert found.detail.startswith(detail)
    of = note(tmp_path, lambda notes: notes["train/0--Door/two.png"].pop("boxes"))
    assert [one.detail for one in of.entries[1].findings] == ["no list of boxes"]


def test_a_shard_that_is_no_name_holds_nothing(tmp_path: Path) -> None:
    of = note(tmp_path, lambda notes: notes["train/0--Door/one.png"].update(shard=["train-000.tar"]))
    assert [one.kind for one in of.findings] == ["no_picture", "no_annotation"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_list", cells(["0--Door"])),
        ("file_list", np.zeros((2, 1))),
        ("file_list", cells(["one", "none"])),
        ("face_bbx_list", cells([cells([]), cells([])])),
        ("face_bbx_list", cells([cells(["x", "y"]), cells(["z"])])),
        ("invalid_label_list", np.zeros((0, 0))),
    ],
)
def test_a_mat_of_another_layout_is_refused(tmp_path: Path, name: str, value: np.ndarray) -> None:
    file = wider_mat(tmp_path)
    lists = {key: of for key, of in loadmat(file).items() if key.endswith("_list")}
    savemat(file, {**lists, name: value})
    with pytest.raises(BadData, match=r"val\.mat: not the list of WIDER FACE's pictures and boxes \(\w+: "):
        read_mat(file)


def test_a_name_too_long_for_a_file_is_of_no_picture(tmp_path: Path) -> None:
    of = text(tmp_path, "a/1.png", "0", f"a/{'x' * 300}.png", "0")
    assert [one.kind for one in of.findings] == ["no_picture", "no_annotation", "no_annotation"]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 3}'])
def test_notes_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    (shards(tmp_path) / "annotations.json").write_text(content)
    with pytest.raises(BadData, match=r"annotations\.json: (not JSON|expected a note)"):
        read_shards(tmp_path)
