"""A bad picture is passed over and reported; a set full of them is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.annotations.drawn_set import draw_pictures, encoded
from training.data.annotations.intake import photographs
from training.data.annotations.wider import read_text
from training.data.pictures import BadData

NAMES = [f"e/{number:03d}.png" for number in range(100)]


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    draw_pictures(tmp_path, NAMES)
    (tmp_path / "l.txt").write_text("".join(f"{name}\n1\n5 5 20 20 0 0 0 0 0 0\n" for name in NAMES))
    return tmp_path


def test_a_corrupt_picture_is_passed_over_and_named(
    hundred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hundred / NAMES[7]).write_bytes(encoded("e/007.png", ".jpg")[:-200])
    found = list(photographs(read_text(hundred / "l.txt")))
    assert [one.name for one in found] == NAMES[:7] + NAMES[8:]
    said = capsys.readouterr().out
    assert "99 photographs of WIDER FACE text" in said
    assert (
        f"1 unreadable (the picture is left out), the first: {hundred / NAMES[7]}: truncated or corrupt"
        in said
    )


def test_beyond_a_hundredth_the_set_is_refused_with_the_first(hundred: Path) -> None:
    for name in NAMES[3:5]:
        (hundred / name).write_bytes(b"")
    of = read_text(hundred / "l.txt")
    with pytest.raises(
        BadData, match=r"l\.txt: 2 of 100 pictures cannot be used, among them .*unreadable: an empty"
    ):
        list(photographs(of))
    assert len(list(photographs(of, tolerated=0.02))) == 98


def test_a_picture_that_vanished_is_unreadable(hundred: Path) -> None:
    of = read_text(hundred / "l.txt")
    (hundred / NAMES[50]).unlink()
    assert len(list(photographs(of))) == 99


def test_a_picture_with_a_face_that_nobody_can_place_is_left_out_whole(
    hundred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (hundred / "l.txt").read_text().splitlines()
    text[1:3] = ["2", "nan 5 20 20 0 0 0 0 0 0", "30 5 10 10 0 0 0 0 0 0"]
    (hundred / "l.txt").write_text("\n".join(text))
    found = list(photographs(read_text(hundred / "l.txt")))
    assert [one.name for one in found] == NAMES[1:]
    assert "1 not_a_number (the picture is left out), the first:" in capsys.readouterr().out


def test_a_box_without_area_is_ignored_and_counted(hundred: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (hundred / "l.txt").read_text().replace("5 5 20 20", "5 5 0 20", 3)
    (hundred / "l.txt").write_text(text)
    found = list(photographs(read_text(hundred / "l.txt")))
    assert sum(int(one.ignored.sum()) for one in found) == 3
    assert (
        "3 no_area (the place is ignored: neither face nor background), the first:" in capsys.readouterr().out
    )


def test_a_sound_set_is_read_without_a_word(hundred: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(photographs(read_text(hundred / "l.txt"), longest=32))
    assert len(found) == 100
    assert {one.pixels.shape for one in found} == {(24, 32, 3)}
    np.testing.assert_allclose(found[0].boxes, [[2, 2, 12, 12]])
    assert capsys.readouterr().out == ""
