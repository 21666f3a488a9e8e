"""Pascal VOC: first and last pixels from 1, difficult ones ignored, a file a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.annotations.drawn_set import HEIGHT, WIDTH, draw_pictures
from training.data.annotations.entries import Annotations
from training.data.annotations.intake import photographs
from training.data.annotations.voc import read_voc
from training.data.pictures import BadData

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def made(root: Path, xml: str, faces: list[str] | None = None) -> Annotations:
    draw_pictures(root / "JPEGImages", ["a.png"])
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / "a.xml").write_text(xml)
    return read_voc(root, faces=faces)


def annotation(*objects: tuple[str, str], size: tuple[object, object] = (WIDTH, HEIGHT)) -> str:
    inside = "".join(f"<object><name>{name}</name>{box}</object>" for name, box in objects)
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{stated}{inside}</annotation>"


def test_the_first_and_the_last_pixel_belong_to_the_box(tmp_path: Path) -> None:
    whole = annotation(("face", BOX.format(1, 1, WIDTH, HEIGHT)))
    (one,) = photographs(made(tmp_path, whole))
    assert one.boxes.tolist() == [[-0.5, -0.5, WIDTH - 0.5, HEIGHT - 0.5]]


def test_an_annotation_without_objects_says_no_face(tmp_path: Path) -> None:
    (one,) = photographs(made(tmp_path, annotation()))
    assert one.boxes.shape == (0, 4)


def test_a_part_of_an_object_is_no_object(tmp_path: Path) -> None:
    part = f"<part><name>face</name>{BOX.format(3, 3, 5, 5)}</part>"
    of = made(tmp_path, annotation(("face", BOX.format(10, 10, 20, 20) + part)))
    assert of.entries[0].boxes.tolist() == [[9, 9, 20, 20]]


@pytest.mark.parametrize(
    ("xml", "where"),
    [
        ("<annotation><object>", "a.xml"),
        ("", "a.xml"),
        ("<html><object/></html>", "a.xml"),
        ('<?xml version="1.0" encoding="none-such"?>' + annotation(), "a.xml"),
        ('<?xml version="1.0" encoding="shift_jis"?>' + annotation(), "a.xml"),
        (annotation(("face", "")), "a.xml, object 1"),
        (annotation(("face", BOX.format(1, 2, 3, "x"))), "a.xml, object 1"),
    ],
)
def test_what_is_no_box_is_named(tmp_path: Path, xml: str, where: str) -> None:
    (found,) = made(tmp_path, xml).entries[0].findings
    assert found.kind == "malformed"
    assert found.where.endswith(where)


def test_another_size_than_annotated_refuses_the_picture(tmp_path: Path) -> None:
    of = made(tmp_path, annotation(("face", BOX.format(1, 1, 20, 20)), size=(HEIGHT, WIDTH)))
    with pytest.raises(BadData, match=r"a\.png: wrong_size: 64 × 48 pixels, annotated as 48 × 64"):
        list(photographs(of))
    for unknown in (("0", "0"), ("", "")):
        of = made(tmp_path, annotation(("face", BOX.format(1, 1, 20, 20)), size=unknown))
        assert len(list(photographs(of))) == 1


def test_only_classes_that_are_faces_are_read(tmp_path: Path) -> None:
    two = annotation(("person", BOX.format(1, 1, 40, 40)), ("Face", BOX.format(5, 5, 20, 20)))
    of = made(tmp_path, two)
    assert of.entries[0].boxes.tolist() == [[4, 4, 20, 20]]
    assert [one.kind for one in of.findings] == ["other_class"]
    people = annotation(("person", BOX.format(1, 1, 40, 40)))
    with pytest.raises(BadData, match=r"which classes are faces\?.*person \(1\)"):
        made(tmp_path, people)
    assert len(made(tmp_path, people, ["person"]).entries[0].boxes) == 1
