"""A folder per identity is read in one order, and every disorder in it is refused or reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.plain_faces import encoded, levels
from training.data.folder import load_folder
from training.data.identities import BadData

PEOPLE = {"bea": {"1.png": 10, "2.jpg": 20}, "ada": {"b.webp": 40, "a.bmp": 30}, "cleo": {"only.PNG": 50}}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for person, pictures in PEOPLE.items():
        (root / person).mkdir(parents=True)
        for name, level in pictures.items():
            (root / person / name).write_bytes(encoded(level, suffix=Path(name).suffix.lower()))
    return root


def test_people_and_their_pictures_come_in_the_order_of_their_names(people: Path) -> None:
    of = load_folder(people)
    assert of.people.tolist() == ["ada", "bea", "cleo"]
    assert of.identity.tolist() == of.label.tolist() == [0, 0, 1, 1, 2]
    assert [round(level, -1) for level in levels(of.pictures)] == [30, 40, 10, 20, 50]
    assert set(of.source.tolist()) == {"photos"}
    assert of.left_out == ()


def test_both_sizes_may_be_mixed(people: Path) -> None:
    (people / "cleo" / "large.png").write_bytes(encoded(60, side=120))
    assert levels(load_folder(people).pictures)[-2:] == [60, 50]


def test_what_is_no_picture_is_reported_and_hidden_names_do_not_count(
    people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("notes.txt", ".DS_Store", "ada/list.csv", "ada/.hidden.png"):
        (people / name).write_bytes(b"x")
    (people / "nobody").mkdir()
    (people / ".cache").mkdir()
    of = load_folder(people)
    assert len(of) == 5
    assert of.left_out == (
        "ada/list.csv: not a picture",
        "nobody: a folder without pictures",
        "notes.txt: not a picture",
    )
    assert "photos: 3 left out:" in capsys.readouterr().out


def test_a_name_of_any_letters_is_kept(people: Path) -> None:
    (people / "ada").rename(people / "Zoë 张")
    of = load_folder(people, decoded=0)
    assert of.people.tolist() == ["Zoë 张", "bea", "cleo"]
    assert levels(of.pictures[:]) == levels(load_folder(people).pictures)


def test_a_folder_inside_a_person_s_is_refused(people: Path) -> None:
    (people / "ada" / "summer").mkdir()
    with pytest.raises(
        BadData, match="ada/summer is a folder inside a person's; all pictures of a person lie in one"
    ):
        load_folder(people)


def test_a_picture_beside_the_people_is_refused(people: Path) -> None:
    (people / "group.jpg").write_bytes(encoded(1))
    with pytest.raises(
        BadData, match=r"group\.jpg lies beside the people's folders; .* a folder of their own"
    ):
        load_folder(people)


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(
        BadData, match=r"no folder with pictures in it; expected a folder per identity, such as ada/1\.jpg"
    ):
        load_folder(tmp_path)


def test_one_person_is_refused(people: Path) -> None:
    for person in ("bea", "cleo"):
        (people / person).rename(people / f".{person}")
    with pytest.raises(BadData, match="all 2 pictures are of one identity"):
        load_folder(people)


def test_an_unreadable_picture_is_named_with_its_person(people: Path) -> None:
    (people / "bea" / "1.png").write_bytes(encoded(3)[:40])
    with pytest.raises(
        BadData, match=r"1 of 5 pictures cannot be used, among them bea/1\.png: not a readable picture"
    ):
        load_folder(people)


def test_photographs_that_nobody_aligned_are_refused(people: Path) -> None:
    (people / "bea" / "1.png").write_bytes(encoded(3, side=250))
    with pytest.raises(BadData, match=r"bea/1\.png: 250 × 250 pixels, expected .* align them first"):
        load_folder(people)
