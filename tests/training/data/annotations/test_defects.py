"""What is wrong with a set is answered alike in every format: by name, and never by a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from tests.training.data.annotations import drawn_set
from tests.training.data.annotations.drawn_set import (
    FACES,
    FORMATS,
    HEIGHT,
    WIDTH,
    by_name,
    coco,
    encoded,
    retinaface,
    shards,
    voc,
    wider_mat,
    wider_text,
    yolo,
)
from training.data.annotations.sources import open_annotations, open_photographs
from training.data.annotations.terms import terms_of
from training.data.pictures import BadData

ONE = "0--Door/one.png"
NAN = float("nan")
DEFECTS = {
    "outside": (WIDTH + 6, 10, 20, 20),
    "not_a_number": (NAN, 6, 20, 24),
    "no_area": (10, 6, 0, 24),
    "normalised": (10 / WIDTH, 6 / HEIGHT, 20 / WIDTH, 24 / HEIGHT),
    "absolute": (10 * WIDTH, 6 * HEIGHT, 20 * WIDTH, 24 * HEIGHT),  # as fractions: pixels
}
CASES = [
    (form, kind)
    for form in FORMATS
    for kind in DEFECTS
    if kind != ("normalised" if form == "YOLO text" else "absolute")
]


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_a_box_that_cannot_be_costs_its_picture_and_one_without_area_its_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
    kind: str,
) -> None:
    monkeypatch.setattr(drawn_set, "FACES", {**FACES, ONE: [(*DEFECTS[kind], 0)]})
    path = FORMATS[form](tmp_path)
    found = by_name(open_photographs(path, tolerated=1.0))
    assert f"  1 {kind} (" in capsys.readouterr().out
    assert all(np.isfinite(one.boxes).all() for one in found.values())
    if kind == "no_area":
        assert found[ONE].ignored.tolist() == [True]
        return
    assert set(found) == set(FACES) - {ONE}
    with pytest.raises(BadData, match=rf"1 of 3 pictures cannot be used, among them .*: {kind}: "):
        list(open_photographs(path))


@pytest.mark.parametrize("form", [of for of in FORMATS if of != "notes with tar shards"])
def test_a_picture_without_annotation_and_an_annotation_without_picture_are_named_and_left_out(
    tmp_path: Path, form: str
) -> None:
    path = FORMATS[form](tmp_path)
    (two,) = tmp_path.rglob("two.png")
    two.rename(two.with_name("lonely.png"))
    of = open_annotations(path)
    assert {Path(one.name).name for one in of.entries} == {"one.png", "none.png"}
    alone = {one.kind: f"{one.where} {one.detail}" for one in of.findings}
    assert alone.keys() == {"no_picture", "no_annotation"}
    assert "two" in alone["no_picture"]
    assert "lonely.png" in alone["no_annotation"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_that_is_none_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    whole = encoded(ONE)
    monkeypatch.setattr(
        drawn_set, "encoded", lambda name: whole[: len(whole) // 2] if name == ONE else encoded(name)
    )
    found = by_name(open_photographs(FORMATS[form](tmp_path), tolerated=1.0))
    assert set(found) == set(FACES) - {ONE}
    assert "  1 unreadable (the picture is left out), the first: " in capsys.readouterr().out


# damage of any kind


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    made = {}
    for make in (coco, shards, wider_text, retinaface, yolo, voc):
        (root / make.__name__).mkdir()
        made[make.__name__] = make(root / make.__name__)
    return made


def is_read_or_refused(path: Path) -> None:
    """Whatever comes out can be trained on."""
    try:
        found = list(open_photographs(path, tolerated=1.0))
    except BadData:
        return
    for one in found:
        assert np.isfinite(one.boxes).all()
        assert ((one.boxes >= -0.5) & (one.boxes <= WIDTH - 0.5)).all()


def places(of: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value of a JSON document, but for the whole."""
    inside = of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


VALUES = [None, True, -1, 2.5, 10**400, "x", NAN, float("inf"), [], [None], {}, {"a": 1}]


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(["coco", "shards"]), at=st.integers(0, 10**6), value=st.sampled_from(VALUES))
def test_any_wrong_value_in_a_json_list_is_read_or_refused(
    sets: dict[str, Path], name: str, at: int, value: object
) -> None:
    file = sets[name] / "annotations.json" if name == "shards" else sets[name]
    whole = file.read_text()
    damaged = json.loads(whole)
    every = list(places(damaged))
    *way, last = every[at % len(every)]
    inner = damaged
    for key in way:
        inner = inner[key]
    inner[last] = value
    file.write_text(json.dumps(damaged))
    try:
        is_read_or_refused(sets[name])
    finally:
        file.write_text(whole)


TOKENS = [
    b"",
    b"nan",
    b"-1",
    b"1e400",
    b"9" * 400,
    b"x",
    b"\0",
    b"\n",
    b"<",
    b"&",
    b"#",
    b"\xff\xfe",
    b"a" * 300,
]


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(["wider_text", "retinaface", "yolo", "voc"]),
    number=st.integers(0, 2),
    at=st.floats(0, 1),
    removed=st.integers(0, 40),
    token=st.sampled_from(TOKENS),
)
def test_any_damage_to_a_text_is_read_or_refused(
    sets: dict[str, Path], name: str, number: int, at: float, removed: int, token: bytes
) -> None:
    path = sets[name]
    files = (
        [path] if path.is_file() else sorted(of for of in path.rglob("*") if of.suffix in (".txt", ".xml"))
    )
    file = files[number % len(files)]
    whole = file.read_bytes()
    start = round(at * len(whole))
    file.write_bytes(whole[:start] + token + whole[start + removed :])
    try:
        is_read_or_refused(path)
    finally:
        file.write_bytes(whole)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """WIDER's .mat, by whether it is compressed."""
    root = tmp_path_factory.mktemp("lists")
    file = wider_mat(root)
    small = file.with_name("compressed.mat")
    savemat(
        small, {key: of for key, of in loadmat(file).items() if key.endswith("_list")}, do_compression=True
    )
    return {False: file, True: small}


@settings(max_examples=100, deadline=None)
@given(
    compressed=st.booleans(),
    at=st.floats(0, 1),
    damage=st.none() | st.binary(max_size=8),
    removed=st.integers(0, 40),
)
def test_any_damage_to_a_mat_is_read_or_refused_by_its_name(
    lists: dict[bool, Path], compressed: bool, at: float, damage: bytes | None, removed: int
) -> None:
    file = lists[compressed]
    whole = file.read_bytes()
    start = round(at * len(whole))
    # Cut off, replaced in its place, or with bytes that are missing or too many.
    after = whole[start + (removed if removed % 2 else len(damage)) :] if damage is not None else b""
    file.write_bytes(whole[:start] + (damage or b"") + after)
    try:
        is_read_or_refused(file)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_cut_off_mat_says_what_to_do(lists: dict[bool, Path], tmp_path: Path, compressed: bool) -> None:
    file = tmp_path / "wider_face_train.mat"
    file.write_bytes(lists[compressed].read_bytes()[:-20])
    with pytest.raises(
        BadData, match=r"wider_face_train\.mat: cannot be read \(.*\); copy it again, or save it"
    ):
        open_annotations(file)


MARK = b"\xef\xbb\xbf"  # what some programs begin a text with


@pytest.mark.parametrize("form", [of for of in FORMATS if of != "WIDER FACE .mat"])
def test_a_byte_order_mark_at_the_start_of_any_text_changes_nothing(tmp_path: Path, form: str) -> None:
    path = FORMATS[form](tmp_path)
    before = open_annotations(path)
    for file in tmp_path.rglob("*"):
        if file.suffix in (".txt", ".xml", ".json"):
            file.write_bytes(MARK + file.read_bytes())
    (tmp_path / "TERMS").write_bytes(MARK + b"ask first")
    of = open_annotations(path)
    assert (of.form, of.findings) == (before.form, before.findings)
    for one, other in zip(of.entries, before.entries, strict=True):
        assert (one.name, one.where, one.findings) == (other.name, other.where, other.findings)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)
    assert terms_of(path) == "ask first"
