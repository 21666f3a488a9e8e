"""Terms are what a set says of itself, in one line, or said to be missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.data.annotations.drawn_set import coco, shards
from training.data.annotations.sources import open_annotations
from training.data.annotations.terms import LONGEST, NOT_STATED, terms_of


@pytest.mark.parametrize("name", ["TERMS", "terms.txt", "Terms.md"])
def test_a_file_is_read_as_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("research\n  only,\tsee the page\n")
    (tmp_path / "images").mkdir()
    assert terms_of(tmp_path) == terms_of(tmp_path / "images") == "research only, see the page"


def test_a_set_that_says_nothing_is_said_to(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "TERMS").write_text("\n")
    (tmp_path / "set" / "annotations.json").write_text("{")
    assert terms_of(tmp_path / "set") == NOT_STATED
    assert terms_of(tmp_path / "set" / "nowhere.txt") == NOT_STATED


def test_a_field_beside_the_notes_is_read_and_no_picture(tmp_path: Path) -> None:
    root = shards(tmp_path / "set")
    notes = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").write_text(json.dumps({**notes, "terms": "ask first"}))
    assert terms_of(root) == "ask first"
    found = open_annotations(root)
    assert len(found.entries) == 3
    assert found.findings == ()
    (root / "TERMS").write_text("the file comes first")
    assert terms_of(root) == "the file comes first"


@pytest.mark.parametrize("inside", [{"terms": "by hand"}, {"info": {"terms": "by hand"}}])
def test_a_coco_list_has_a_field_too(tmp_path: Path, inside: dict[str, object]) -> None:
    (tmp_path / "set").mkdir()
    file = coco(tmp_path / "set")
    file.write_text(json.dumps(json.loads(file.read_text()) | inside))
    assert terms_of(file) == "by hand"


@pytest.mark.parametrize("terms", [3, [], {"a": "b"}, None])
def test_what_is_no_text_states_nothing(tmp_path: Path, terms: object) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "annotations.json").write_text(json.dumps({"terms": terms}))
    assert terms_of(tmp_path / "set") == NOT_STATED


def test_a_whole_licence_is_cut(tmp_path: Path) -> None:
    (tmp_path / "TERMS").write_text("word " * 500)
    assert len(terms_of(tmp_path)) == LONGEST
