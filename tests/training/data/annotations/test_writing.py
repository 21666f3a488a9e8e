"""Whatever the format, what is written as COCO JSON is the same set: pictures, boxes, points and terms."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.data.annotations.drawn_set import (
    FACES,
    FORMATS,
    HEIGHT,
    WIDTH,
    coco,
    draw_pictures,
    retinaface,
    shards,
    voc,
)
from training.data.annotations.checking import check
from training.data.annotations.sources import open_annotations, open_photographs
from training.data.annotations.terms import terms_of
from training.data.annotations.writing import add_writing, write
from training.data.photographs import Photograph
from training.data.pictures import BadData

UNPACKED = [of for of in FORMATS if of != "notes with tar shards"]


def verb(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    add_writing(parser.add_subparsers())
    asked = parser.parse_args(["write-coco", *map(str, arguments)])
    asked.act(asked)


def assert_same(found: list[Photograph], expected: list[Photograph]) -> None:
    assert [one.name for one in found] == [one.name for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        first = other.ignored & (np.abs(other.boxes) <= 0.5).all(
            1
        )  # a part of the first pixel becomes all of it
        np.testing.assert_allclose(one.boxes[~first], other.boxes[~first], atol=1e-4)
        assert (np.abs(one.boxes[first]) <= 0.5).all()
        np.testing.assert_array_equal(one.ignored, other.ignored)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-4)


@pytest.mark.parametrize("form", UNPACKED)
def test_every_format_comes_out_as_the_same_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    path = FORMATS[form](tmp_path)
    before = list(open_photographs(path))
    (tmp_path / "TERMS").write_text("by permission of those in it")
    to = tmp_path / "out" / "all.json"
    verb(path, "--to", to)
    said = capsys.readouterr().out
    assert f"{to}: 3 of 3 pictures; their names count from " in said
    folder = Path(said.rpartition("count from ")[2].strip())
    assert_same(list(open_photographs(to, pictures=folder)), before)
    (tmp_path / "TERMS").unlink()
    assert terms_of(to) == "by permission of those in it"
    assert check(open_annotations(to, folder)).findings == ()


# fractions of quarters of a pixel, in and out of the picture, and boxes of less than a pixel
place = st.integers(-40, 4 * WIDTH + 40).map(lambda quarters: quarters / 4)
extent = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.integers(4, 160).map(lambda quarters: quarters / 4)
faces = st.lists(st.tuples(place, place, extent, extent, st.booleans()), max_size=4)


@settings(max_examples=60, deadline=None)
@given(rows=faces)
def test_boxes_however_placed_are_read_again_as_they_were(rows: list[tuple[float, ...]]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        draw_pictures(root, ["a.png", "b.png"])
        lines = []
        for x, y, w, h, marked in rows:
            box = np.array([x + w / 2, y + h / 2, w, h]) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
            eyes = np.array([(0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.8), (0.65, 0.8)])
            points = ((x, y) + eyes * (w, h)) / (WIDTH, HEIGHT)
            known = points.ravel().tolist() if marked and (points >= 0).all() else [-1] * 10
            lines.append(" ".join(map(repr, [0, *box.tolist(), *known])))
        (root / "a.txt").write_text("\n".join(lines))
        (root / "b.txt").write_text("")
        before = list(open_photographs(root, tolerated=1.0))
        count, where = write(open_annotations(root), root / "faces.json")
        assert count == len(before)
        assert_same(list(open_photographs(root / "faces.json", pictures=where)), before)


def test_what_cannot_be_read_is_said_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = retinaface(tmp_path)
    (tmp_path / "images" / "0--Door" / "one.png").write_bytes(b"none")
    verb(path, "--to", tmp_path / "faces.json")
    said = capsys.readouterr().out
    assert "1 unreadable (the picture is left out), the first: " in said
    assert f"{tmp_path / 'faces.json'}: 2 of 3 pictures" in said
    found = {one.name for one in open_photographs(tmp_path / "faces.json")}
    assert found == FACES.keys() - {"0--Door/one.png"}


def test_a_set_without_a_readable_picture_writes_nothing(tmp_path: Path) -> None:
    path = voc(tmp_path)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"none")
    with pytest.raises(BadData, match="none of its 3 pictures can be used, nothing is written"):
        verb(path, "--to", tmp_path / "faces.json")
    assert not (tmp_path / "faces.json").exists()


def test_pictures_in_tar_shards_have_no_name_to_list(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"lies in train-000\.tar; unpack the set first"):
        verb(shards(tmp_path / "set"), "--to", tmp_path / "faces.json")
    assert not (tmp_path / "faces.json").exists()


@pytest.mark.parametrize("name", ["faces.json", "faces.txt"])
def test_a_list_is_not_written_over_itself_nor_as_what_it_is_not(tmp_path: Path, name: str) -> None:
    path = coco(tmp_path)
    before = path.read_bytes()
    with pytest.raises(BadData, match=rf"{name}: name a \.json that is not the set itself"):
        verb(path, "--to", tmp_path / name)
    assert path.read_bytes() == before
