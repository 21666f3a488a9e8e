"""COCO JSON, in and out: absolute boxes, crowds, keypoints; what is written is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.data.annotations.drawn_set import HEIGHT, WIDTH, coco, draw_pictures, picture
from training.data.annotations.coco import read_coco, write_coco
from training.data.annotations.entries import Annotations
from training.data.annotations.intake import photographs
from training.data.photographs import Photograph
from training.data.pictures import BadData


def changed(
    root: Path, change: Callable[[dict[str, Any]], None], faces: list[str] | None = None
) -> Annotations:
    file = root / "faces.json"
    if not file.exists():
        coco(root)
    of = json.loads(file.read_text())
    change(of)
    file.write_text(json.dumps(of))
    return read_coco(file, faces=faces)


def test_normalised_boxes_refuse_the_set(tmp_path: Path) -> None:
    def change(of: dict[str, Any]) -> None:
        for one in of["annotations"]:
            x, y, w, h = one["bbox"]
            one["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]

    with pytest.raises(
        BadData, match=r"1 of 3 pictures.*annotation 0: normalised: fractions .* where pixels"
    ):
        list(photographs(changed(tmp_path, change)))


def test_crowds_are_ignored(tmp_path: Path) -> None:
    of = changed(tmp_path, lambda of: of["annotations"][0].update(iscrowd=1))
    assert [one.ignored.tolist() for one in of.entries] == [[True], [False, True], []]


@pytest.mark.parametrize(
    "bbox", [None, [1, 2, 3], [1, 2, 3, "x"], "1 2 3 4", [1, 2, 3, None], [1, 2, 3, 10**400]]
)
def test_a_box_that_is_none_is_named_by_its_id(tmp_path: Path, bbox: object) -> None:
    of = changed(tmp_path, lambda of: of["annotations"][1].update(bbox=bbox))
    (found,) = of.entries[1].findings
    assert (found.kind, found.where.rpartition(": ")[2]) == ("malformed", "annotation 1")
    assert of.entries[0].findings == ()


@pytest.mark.parametrize("image", [99, None, "7", [7], {"id": 7}])
def test_an_annotation_of_no_image_is_named(tmp_path: Path, image: object) -> None:
    of = changed(tmp_path, lambda of: of["annotations"][2].update(image_id=image))
    assert [(one.kind, one.where.rpartition(": ")[2]) for one in of.findings] == [
        ("no_picture", "annotation 2")
    ]


@pytest.mark.parametrize("keypoints", [[1, 1, 2] * 17, [1, 1, 2], 15, "15 numbers, or so", {"eye": [1, 1]}])
def test_what_is_not_five_keypoints_is_not_a_face_s(tmp_path: Path, keypoints: object) -> None:
    of = changed(tmp_path, lambda of: of["annotations"][0].update(keypoints=keypoints))
    assert [(one.kind, one.detail) for one in of.findings] == [
        ("landmarks_unread", "1 boxes without five keypoints")
    ]
    assert np.isnan(of.entries[0].landmarks).all()
    assert len(of.entries[0].boxes) == 1


def test_other_categories_are_left_out_aloud(tmp_path: Path) -> None:
    def change(of: dict[str, Any]) -> None:
        of["categories"].append({"id": 5, "name": "dog"})
        of["annotations"][0]["category_id"] = 5

    of = changed(tmp_path, change)
    assert [len(one.boxes) for one in of.entries] == [0, 2, 0]
    assert [one.detail for one in of.findings] == ["1 boxes of the class dog"]

    def nobody(of: dict[str, Any]) -> None:
        of["categories"][0]["name"] = "person"

    with pytest.raises(BadData, match=r"which classes are faces\?.*dog \(1\), person \(2\)"):
        changed(tmp_path, nobody)


edge = st.floats(0, 40, width=32)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    boxes=st.lists(
        st.tuples(edge, st.floats(0, 30, width=32), st.floats(2, 20), st.floats(2, 15)), max_size=4
    ),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_again(tmp_path: Path, boxes: list[tuple[float, ...]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], 1) - np.float32(0.5)
    template = np.array([(0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.8), (0.65, 0.8)])
    points = (corners[:, None, :2] + template * rows[:, None, 2:]).astype(np.float32)
    points[rng.random(len(rows)) < 0.5] = np.nan
    one = Photograph("a/b.png", picture("a/b.png"), 1.0, corners, rng.random(len(rows)) < 0.3, points)
    draw_pictures(tmp_path, ["a/b.png"])
    assert write_coco(tmp_path / "out.json", [one]) == 1
    (again,) = photographs(read_coco(tmp_path / "out.json", tmp_path))
    assert again.name == one.name
    np.testing.assert_array_equal(again.pixels, one.pixels)
    np.testing.assert_allclose(again.boxes, one.boxes, atol=1e-4)
    np.testing.assert_array_equal(again.ignored, one.ignored)
    np.testing.assert_allclose(again.landmarks, one.landmarks, atol=1e-4)


def test_what_is_written_is_absolute_and_from_the_edge(tmp_path: Path) -> None:
    box = np.array([[-0.5, 9.5, 19.5, 29.5]], np.float32)
    one = Photograph(
        "x.png", picture("x.png"), 1.0, box, np.array([False]), np.full((1, 5, 2), np.nan, np.float32)
    )
    write_coco(tmp_path / "out.json", [one])
    of = json.loads((tmp_path / "out.json").read_text())
    assert of["images"] == [{"id": 1, "file_name": "x.png", "width": WIDTH, "height": HEIGHT}]
    written = of["annotations"][0]
    assert (written["bbox"], written["area"], written["iscrowd"]) == ([0, 10, 20, 20], 400, 0)
    assert (written["keypoints"], written["num_keypoints"]) == ([0] * 15, 0)
    assert [one["name"] for one in of["categories"]] == ["face"]
