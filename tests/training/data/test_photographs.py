"""Photographs that nobody boxed are neither face nor background, and bad ones are counted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.odd_pictures import grey_and_alpha, jpeg_of_two_channels
from training.data.photographs import shrunk, unboxed
from training.data.pictures import BadData
from training.data.scenes import draw_scene


def write(file: Path, number: int, width: int = 320, height: int = 240) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(file.suffix, draw_scene(number, width, height).pixels[..., ::-1])[1].tobytes()
    file.write_bytes(data)
    return data


def test_the_whole_of_each_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "b" / "2.jpg", 2)
    write(tmp_path / "1.PNG", 1, 240, 320)
    (tmp_path / "notes.txt").write_text("no picture")
    found = list(unboxed(tmp_path, longest=160))
    assert [one.name for one in found] == [f"{tmp_path.name}/1.PNG", f"{tmp_path.name}/b/2.jpg"]
    for one, (height, width) in zip(found, ((160, 120), (120, 160)), strict=True):
        assert one.pixels.shape == (height, width, 3)
        assert one.boxes.tolist() == [[-0.5, -0.5, width - 0.5, height - 0.5]]
        assert one.ignored.tolist() == [True]
        assert np.isnan(one.landmarks).all()
    assert np.abs(found[0].pixels.astype(int) - shrunk(draw_scene(1, 240, 320).pixels, 160)[0]).max() == 0


def test_truncated_and_tiny_ones_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "good.jpg", 1)
    data = write(tmp_path / "half.jpg", 2)
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "none.png").write_bytes(b"no picture at all")
    write(tmp_path / "tiny.jpg", 3, 90, 200)
    assert len(list(unboxed(tmp_path, longest=320))) == 1
    assert (
        f"{tmp_path}: 3 unreadable or tiny pictures left out, the first: half.jpg" in capsys.readouterr().out
    )


def test_of_two_channels_grey_and_alpha_is_a_grey_picture_and_half_a_colour_jpeg_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grey.png").write_bytes(grey_and_alpha())
    (tmp_path / "half.jpg").write_bytes(jpeg_of_two_channels())
    (one,) = unboxed(tmp_path, longest=320)
    assert one.name == f"{tmp_path.name}/grey.png"
    pixels = np.asarray(one.pixels)
    assert pixels.shape == (320, 320, 3)
    assert (pixels == pixels[..., :1]).all()
    assert pixels.std() > 10
    assert "1 unreadable or tiny pictures left out, the first: half.jpg" in capsys.readouterr().out


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"no readable picture \(\.bmp, \.jpeg, \.jpg, \.png, \.webp\)"):
        list(unboxed(tmp_path, longest=320))


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((40, 30), None, (40, 30)), ((40, 30), 40, (40, 30)), ((40, 30), 20, (20, 15)), ((1, 900), 30, (1, 30))],
)
def test_only_larger_pictures_shrink(
    size: tuple[int, int], longest: int | None, expected: tuple[int, int]
) -> None:
    pixels, scale = shrunk(np.zeros((size[1], size[0], 3), np.uint8), longest)
    assert pixels.shape[1::-1] == expected
    assert scale == max(expected) / max(size)
