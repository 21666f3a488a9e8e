"""A photograph is read upright in 8-bit RGB whatever it was stored as, or refused; a folder is listed whole."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from training.data.pictures import BadData
from training.data.raw_photographs import photographs_below, read_photograph

UPRIGHT = np.zeros((40, 64, 3), np.uint8)
UPRIGHT[:20, :32] = (250, 40, 30)  # red, top left; green, top right; blue below
UPRIGHT[:20, 32:] = (30, 220, 40)
UPRIGHT[20:] = (40, 30, 240)
TRANSPOSE = Image.Transpose
STORED = {  # EXIF orientation → how a camera stores the upright picture
    1: None,
    2: TRANSPOSE.FLIP_LEFT_RIGHT,
    3: TRANSPOSE.ROTATE_180,
    4: TRANSPOSE.FLIP_TOP_BOTTOM,
    5: TRANSPOSE.TRANSPOSE,
    6: TRANSPOSE.ROTATE_90,
    7: TRANSPOSE.TRANSVERSE,
    8: TRANSPOSE.ROTATE_270,
}


def stored(kind: str, mode: str = "RGB", orientation: int = 1) -> bytes:
    picture = Image.fromarray(UPRIGHT)
    if (turn := STORED[orientation]) is not None:
        picture = picture.transpose(turn)
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    picture.convert(mode).save(file, kind, quality=95, **({"exif": exif} if orientation > 1 else {}))
    return file.getvalue()


@pytest.mark.parametrize("orientation", STORED)
def test_the_orientation_that_a_camera_notes_is_undone(orientation: int) -> None:
    picture = read_photograph(stored("JPEG", orientation=orientation))
    assert picture.shape == UPRIGHT.shape
    assert np.abs(picture.astype(int) - UPRIGHT).mean() < 8


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
    ],
)
def test_every_common_format_is_rgb(kind: str, mode: str) -> None:
    picture = read_photograph(stored(kind, mode))
    assert picture.dtype == np.uint8
    assert picture.shape == UPRIGHT.shape
    for place in ((5, 5), (5, 60), (35, 30)):
        assert picture[place].argmax() == UPRIGHT[place].argmax()


@pytest.mark.parametrize("deep", [np.uint8, np.uint16])
def test_grey_and_deep_pictures_become_three_times_8_bits(deep: type) -> None:
    grey = np.full((30, 20), 128, np.uint8).astype(deep) * (257 if deep is np.uint16 else 1)
    picture = read_photograph(cv2.imencode(".png", grey)[1].tobytes())
    assert picture.shape == (30, 20, 3)
    assert np.abs(picture.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_picture_is_refused_not_filled_with_grey(kind: str, share: float) -> None:
    data = stored(kind)
    with pytest.raises(BadData):
        read_photograph(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBP"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadData):
        read_photograph(data)


def test_padding_between_segments_is_harmless() -> None:
    data = stored("JPEG")
    scan = data.index(b"\xff\xda")
    assert read_photograph(data[:scan] + b"\0\0" + data[scan:]).shape == UPRIGHT.shape


def test_the_listing_has_every_file_once_in_order(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a/x/deep.png", "a/z.txt", "a/.hidden", ".trash/1.jpg", "loose.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    listed = photographs_below(tmp_path)
    assert listed.identities == ("a", "b", "c")
    assert listed.photographs == ("a/z.txt", "a/x/deep.png", "b/1.jpg", "b/2.jpg")
    assert {name: of.reason for name, of in listed.rejected.items()} == {
        "loose.jpg": "no_identity",
        "c/": "empty_folder",
    }
