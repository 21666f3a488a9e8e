"""A picture is decoded whole or refused by name, and decoded from where it lies when somebody asks."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.data.plain_faces import encoded, levels
from training.data import pictures
from training.data.drawing import aligned
from training.data.pictures import (
    SIDE,
    BadData,
    EncodedPictures,
    decode_face,
    digest_of_pictures,
    encode_face,
    encoded_pictures,
    members,
    read_bytes,
)

FACE = aligned(5, 0, SIDE)


@pytest.fixture
def five(tmp_path: Path) -> EncodedPictures:
    """Five pictures of levels 0, 10 … 40 in two files."""
    data = [encoded(10 * number) for number in range(5)]
    (tmp_path / "a").write_bytes(b"head" + data[0] + data[1] + data[2])
    (tmp_path / "b").write_bytes(data[3] + data[4])
    a, b, c, d, e = (len(of) for of in data)
    places = [(0, 4, a), (0, 4 + a, b), (0, 4 + a + b, c), (1, 0, d), (1, d, e)]
    return encoded_pictures([tmp_path / "a", tmp_path / "b"], places)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_every_kind_of_picture_is_read_red_first(suffix: str) -> None:
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes blue first
    picture = decode_face(cv2.imencode(suffix, red)[1].tobytes(), "red")
    assert np.abs(picture[0, 0].astype(int) - (200, 0, 0)).max() <= 3


def test_a_grey_picture_has_three_equal_channels() -> None:
    for suffix in (".jpg", ".png"):
        picture = decode_face(cv2.imencode(suffix, np.full((112, 112), 90, np.uint8))[1].tobytes(), "grey")
        assert np.unique(picture).tolist() == [90]


def test_the_smaller_size_gets_its_border_from_its_edge() -> None:
    crop = FACE[4:116, 4:116]
    picture = decode_face(encode_face(crop, ".png"), "crop")
    assert np.array_equal(picture[4:116, 4:116], crop)
    assert np.array_equal(picture[:4, 4:116], np.repeat(crop[:1], 4, 0))
    assert np.array_equal(picture[4:116, 116:], np.repeat(crop[:, -1:], 4, 1))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.99])
def test_a_truncated_picture_is_refused_by_name(suffix: str, share: float) -> None:
    data = cv2.imencode(suffix, FACE)[1].tobytes()
    with pytest.raises(BadData, match=r"^ada/1: not a readable picture$"):
        decode_face(data[: int(share * len(data))], "ada/1")


@pytest.mark.parametrize("shape", [(112, 120), (250, 250), (119, 119)])
def test_a_picture_of_another_size_is_named(shape: tuple[int, int]) -> None:
    data = cv2.imencode(".png", np.zeros((*shape, 3), np.uint8))[1].tobytes()
    with pytest.raises(
        BadData, match=rf"a\.png: {shape[1]} × {shape[0]} pixels, expected 120 × 120 or 112 × 112"
    ):
        decode_face(data, "a.png")


@pytest.mark.parametrize(("suffix", "error"), [(".png", 0), (".webp", 12), (".jpg", 12)])
def test_what_is_written_is_read_again(suffix: str, error: int) -> None:
    picture = decode_face(encode_face(FACE, suffix), "own")
    assert np.abs(picture.astype(int) - FACE).mean() <= error / 4


def test_encoded_pictures_index_as_an_array_does(five: EncodedPictures) -> None:
    assert (len(five), five.shape, five.dtype) == (5, (5, 120, 120, 3), np.uint8)
    every = np.asarray(five)
    assert levels(every) == [0, 10, 20, 30, 40]
    for rows in (slice(1, 4), slice(None, None, -2), np.array([4, 0, 0]), [2, 3], np.arange(5) % 2 == 0, []):
        assert np.array_equal(five[rows], every[rows])
    for row in (0, 4, -1, np.int64(2)):
        assert np.array_equal(five[row], every[row])


def test_what_is_not_there_is_an_index_error(five: EncodedPictures) -> None:
    for rows in (5, [0, 7], (slice(None), slice(2))):
        with pytest.raises(IndexError):
            five[rows]


def test_encoded_crops_are_the_middle(five: EncodedPictures) -> None:
    crops = five.crops()
    assert crops.shape == (5, 112, 112, 3)
    assert np.array_equal(crops[2], five[2][4:116, 4:116])
    assert np.array_equal(crops[:], np.asarray(five)[:, 4:116, 4:116])


def test_a_worker_process_gets_places_and_no_pictures(five: EncodedPictures) -> None:
    sent = pickle.dumps(five)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent)[3], five[3])


def test_a_picture_that_became_unreadable_is_named_by_its_place(
    five: EncodedPictures, tmp_path: Path
) -> None:
    (tmp_path / "b").write_bytes(b"x" * 10)
    with pytest.raises(BadData, match="b at byte 0: not a readable picture"):
        five[3]


def written(shard: Path, names: list[str]) -> Path:
    with tarfile.open(shard, "w") as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 700 + number
            tar.addfile(member, io.BytesIO(bytes([65 + number]) * member.size))
    return shard


def test_members_say_where_their_bytes_are(tmp_path: Path) -> None:
    shard = written(tmp_path / "a.tar", ["one", "x/" + "two" * 60, "three"])
    found = members(shard)
    assert [name for name, _, _ in found] == ["one", "x/" + "two" * 60, "three"]
    assert [read_bytes(shard, at, size) for _, at, size in found] == [b"A" * 700, b"B" * 701, b"C" * 702]


@pytest.mark.parametrize("kept", [0, 100, 512, 1024, 1500, 2048, 3000, 3584])
def test_a_shard_that_ends_early_is_refused_wherever_it_ends(tmp_path: Path, kept: int) -> None:
    shard = written(tmp_path / "a.tar", ["one", "two"])
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(BadData, match=r"a\.tar: (truncated or corrupt|cannot be read)"):
        members(shard)


def test_a_damaged_head_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    shard = written(tmp_path / "a.tar", ["one", "two", "three"])
    data = bytearray(shard.read_bytes())
    second = data.index(b"two")
    data[second : second + 3] = b"???"
    shard.write_bytes(data)
    with pytest.raises(
        BadData, match=rf"a\.tar: truncated or corrupt at byte {second}; copy or write it again"
    ):
        members(shard)


def test_a_compressed_or_missing_shard_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("one"))
    for name in ("a.tar", "b.tar"):
        with pytest.raises(BadData, match=f"{name}: cannot be read as an uncompressed tar shard"):
            members(tmp_path / name)


@pytest.mark.parametrize("byte", [4, -1])
def test_pictures_in_files_have_another_digest_once_a_byte_changes(five: EncodedPictures, byte: int) -> None:
    before = digest_of_pictures(five.crops())
    assert digest_of_pictures(five.crops()) == before
    file = Path(os.fsdecode(five.files[1]))
    data = bytearray(file.read_bytes())
    data[byte] ^= 1
    file.write_bytes(data)
    assert digest_of_pictures(five.crops()) != before


def test_the_digest_is_of_which_pictures_and_in_which_order(five: EncodedPictures) -> None:
    swapped = replace(five, place=five.place[[1, 0, 2, 3, 4]])
    fewer = replace(five, place=five.place[:4])
    assert len({digest_of_pictures(of) for of in (five, swapped, fewer)}) == 3


def test_the_digest_of_pixels_is_of_every_one_and_alike_for_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)
    view = pixels[:, 1:5, 1:5]
    whole = digest_of_pictures(np.ascontiguousarray(view))
    monkeypatch.setattr(pictures, "_HASHED", 2)
    assert digest_of_pictures(view) == whole
    pixels[3, 0, 0] += 1  # outside of the view
    assert digest_of_pictures(view) == whole
    pixels[4, 4, 4, 2] += 1
    assert digest_of_pictures(view) != whole
