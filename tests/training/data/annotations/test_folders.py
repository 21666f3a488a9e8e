"""Pictures are found wherever a list says that they lie, called by one name, and none of them twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.data.annotations.drawn_set import draw_pictures
from training.data.annotations.entries import Annotations
from training.data.annotations.folders import Named, listed
from training.data.annotations.sources import open_annotations
from training.data.annotations.writing import write
from training.data.pictures import BadData

NAMES = ["a/1.png", "a/2.png"]
Spell = Callable[[Path, str], str]
SPELLINGS: dict[
    str, tuple[str, Spell]
] = {  # where the list lies, and how it calls a picture below `pictures`
    "absolute, below": (".", lambda root, name: str(root / "pictures" / name)),
    "absolute, elsewhere": ("lists", lambda root, name: str(root / "pictures" / name)),
    "absolute, by a detour": (".", lambda root, name: f"{root}/pictures/../pictures/{name}"),
    "up and elsewhere": ("lists", lambda root, name: f"../pictures/{name}"),
    "up and back": ("pictures", lambda root, name: f"../pictures/{name}"),
    "by a link": (".", lambda root, name: f"{root}/link/{name}"),
}


def text(root: Path, at: str, spell: Spell, names: list[str]) -> Path:
    draw_pictures(root / "pictures", NAMES)
    (root / "link").symlink_to(root / "pictures")
    (root / at).mkdir(exist_ok=True)
    file = root / at / "x_bbx_gt.txt"
    file.write_text("".join(f"{spell(root, name)}\n1\n10 6 20 24 0 0 0 0 0 0\n" for name in names))
    return file


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_picture_is_read_once_and_reported_at_most_once(tmp_path: Path, spelling: str) -> None:
    of = open_annotations(text(tmp_path, *SPELLINGS[spelling], names=NAMES))
    assert [one.place[0].resolve() for one in of.entries] == [tmp_path / "pictures" / n for n in NAMES]
    assert of.findings == ()
    (tmp_path / "once").mkdir()
    twice = open_annotations(text(tmp_path / "once", *SPELLINGS[spelling], names=[NAMES[0], NAMES[0]]))
    assert len(twice.entries) == 1
    alone = [] if "elsewhere" in spelling else ["no_annotation"]  # nobody said that its folder is the set's
    assert [one.kind for one in twice.findings] == ["named_twice", *alone]


def test_a_picture_below_the_folder_is_called_alike_however_it_is_spelled(tmp_path: Path) -> None:
    names = {}
    for spelling in ("absolute, below", "absolute, by a detour", "by a link"):
        (tmp_path / spelling).mkdir()
        of = open_annotations(text(tmp_path / spelling, *SPELLINGS[spelling], names=NAMES))
        names[spelling] = [one.name for one in of.entries]
    assert set(map(tuple, names.values())) == {("pictures/a/1.png", "pictures/a/2.png")}


def test_one_list_may_spell_a_picture_in_several_ways(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", NAMES)
    ways = ["a/1.png", str(tmp_path / "images" / "a" / "1.png"), "../images/a/1.png", "a/2.png"]
    of = listed(tmp_path / "list", "any", [Named(way, f"list:{n}", []) for n, way in enumerate(ways)], None)
    assert [one.name for one in of.entries] == NAMES
    assert [(one.kind, one.where) for one in of.findings] == [
        ("named_twice", "list:1"),
        ("named_twice", "list:2"),
    ]


def test_absolute_names_do_not_hide_the_folder_of_the_others(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "set" / "images", ["a/1.png"])
    draw_pictures(tmp_path / "away", ["a/2.png"])
    named = [Named(str(tmp_path / "away" / "a" / "2.png"), "1", []), Named("a/1.png", "2", [])]
    of = listed(tmp_path / "set" / "list", "any", named, None)
    assert [one.name for one in of.entries] == [str(tmp_path / "away" / "a" / "2.png"), "a/1.png"]


def test_absolute_names_of_another_machine_are_refused_with_one_of_them(tmp_path: Path) -> None:
    with pytest.raises(
        BadData, match=r"none of its 1 pictures is in .* such as /nowhere/1\.png; .*--pictures"
    ):
        listed(tmp_path / "list", "any", [Named("/nowhere/1.png", "list:1", [])], None)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_folder_that_names_count_from_is_known(tmp_path: Path, spelling: str) -> None:
    of: Annotations = open_annotations(text(tmp_path, *SPELLINGS[spelling], names=NAMES))
    folder = write(of, tmp_path / "faces.json").folder
    assert all((folder / one.name).samefile(one.place[0]) for one in of.entries)
    again = open_annotations(tmp_path / "faces.json", folder)
    assert [one.place[0].resolve() for one in again.entries] == [one.place[0].resolve() for one in of.entries]
