"""RecordIO is read from bytes laid out by hand, split records included; what is damaged or out of range is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.data.plain_faces import encoded, levels, plain
from training.data.identities import BadData
from training.data.recordio import load_recordio, picture_of, write_recordio

MAGIC = b"\x0a\x23\xd7\xce"  # 0xced7230a, lowest byte first


def part(data: bytes, kind: int = 0) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(data)) + data + bytes(-len(data) % 4)


def image(label: float, data: bytes) -> bytes:
    return struct.pack("<IfQQ", 0, label, 5, 0) + data


def vector(labels: tuple[float, ...], data: bytes = b"") -> bytes:
    return struct.pack("<IfQQ", len(labels), 0, 5, 0) + struct.pack(f"<{len(labels)}f", *labels) + data


def write(folder: Path, records: list[bytes], keys: list[int] | None = None) -> Path:
    """train.rec of whole records as they lie in the file, and its index."""
    offsets = np.cumsum([0, *map(len, records)])
    (folder / "train.rec").write_bytes(b"".join(records))
    lines = [f"{key}\t{offset}\n" for key, offset in zip(keys or range(len(records)), offsets, strict=False)]
    (folder / "train.idx").write_text("".join(lines))
    return folder


def insightface(labels: tuple[float, ...] = (0, 0, 1)) -> list[bytes]:
    """The layout of the published sets: record 0 with the ranges, pictures 1 … n, then the identities."""
    pictures = [part(image(label, encoded(10 * n))) for n, label in enumerate(labels, 1)]
    ranges = [part(vector((1, 3))), part(vector((3, 4)))]
    return [part(vector((len(labels) + 1, len(labels) + 3))), *pictures, *ranges]


def test_the_published_layout_gives_its_pictures_alone(tmp_path: Path) -> None:
    of = load_recordio(write(tmp_path, insightface()))
    assert levels(of.pictures) == [10, 20, 30]
    assert of.identity.tolist() == [0, 0, 1]
    assert set(of.source.tolist()) == {tmp_path.name}


def test_without_a_first_record_of_ranges_every_record_is_a_picture(tmp_path: Path) -> None:
    records = [part(image(4, encoded(10))), part(vector((7, 1), encoded(20))), part(image(4, encoded(30)))]
    of = load_recordio(write(tmp_path, records) / "train.rec")
    assert (levels(of.pictures), of.identity.tolist()) == ([10, 20, 30], [4, 7, 4])


def test_pictures_come_by_key_wherever_they_lie(tmp_path: Path) -> None:
    records = [part(image(n, encoded(10 * n))) for n in range(4)]
    of = load_recordio(write(tmp_path, records, keys=[3, 0, 2, 1]))
    assert (levels(of.pictures), of.identity.tolist()) == ([10, 30, 20, 0], [1, 3, 2, 0])


def split(data: bytes, at: int) -> bytes:
    """`data`, which holds the magic word at `at`, as the two parts of one record."""
    assert data[at : at + 4] == MAGIC
    return part(data[:at], 1) + part(data[at + 4 :], 3)


@pytest.mark.parametrize("decoded", [0, 10])
def test_a_split_record_is_joined_with_the_word_that_split_it(tmp_path: Path, decoded: int) -> None:
    picture = encoded(20, suffix=".bmp")
    hidden = picture + bytes(-len(picture) % 4) + MAGIC + b"tail"  # a BMP may be followed by anything
    data = image(1, hidden)
    records = [part(image(0, encoded(10))), split(data, data.index(MAGIC)), part(image(1, encoded(30)))]
    of = load_recordio(write(tmp_path, records), decoded=decoded)
    assert (levels(of.pictures[:]), of.identity.tolist()) == ([10, 20, 30], [0, 1, 1])


def test_a_record_may_be_split_inside_its_header(tmp_path: Path) -> None:
    data = struct.pack("<IfQ4sI", 0, 3, 5, MAGIC, 0) + encoded(20)
    records = [part(image(0, encoded(10))), split(data, 16)]
    of = load_recordio(write(tmp_path, records))
    assert (levels(of.pictures), of.identity.tolist()) == ([10, 20], [0, 3])


@given(st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9)), max_size=12))
def test_any_bytes_come_back_from_the_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    """The writer splits where the reader joins, whatever the bytes; no part holds the magic word where it counts."""
    root = tmp_path_factory.mktemp("rec")
    data = b"".join(pieces)
    write_recordio(root, [(data, 0), (b"next", 0)])
    offsets = [int(line.split("\t")[1]) for line in (root / "train.idx").read_text().splitlines()]
    file = (root / "train.rec").read_bytes()
    assert picture_of(file[offsets[1] : offsets[2]]) == data
    assert picture_of(file[offsets[2] : offsets[3]]) == b"next"
    assert all(offset % 4 == 0 for offset in offsets)
    words = np.frombuffer(file, "<u4")
    assert (words == 0xCED7230A).sum() == len(offsets) + sum(
        (image(0, data)[at : at + 4] == MAGIC) for at in range(0, len(image(0, data)) - 3, 4)
    )


def test_what_is_written_is_laid_out_as_published(tmp_path: Path) -> None:
    rows = [(encoded(10), 0), (encoded(20), 0), (encoded(30), 1)]
    assert write_recordio(tmp_path / "own", rows) == 3
    file = (tmp_path / "own" / "train.rec").read_bytes()
    plainly = [
        vector((4, 6)),
        *(image(n > 2, encoded(10 * n)) for n in (1, 2, 3)),
        vector((1, 3)),
        vector((3, 4)),
    ]
    keyed = [data[:8] + struct.pack("<Q", key) + data[16:] for key, data in enumerate(plainly)]
    assert file == b"".join(map(part, keyed))
    assert (tmp_path / "own" / "property").read_text() == "2,112,112\n"


def test_arrays_are_written_as_their_crops(tmp_path: Path) -> None:
    write_recordio(tmp_path, [(plain(100), 0), (plain(200, side=120), 1)])
    of = load_recordio(tmp_path)
    assert np.abs(np.array(levels(of.pictures)) - (100, 200)).max() <= 3
    assert of.identity.tolist() == [0, 1]


@pytest.mark.parametrize("labels", [(1,), (0, 2), (0, 1, 0)])
def test_faces_in_another_order_are_not_written(tmp_path: Path, labels: tuple[int, ...]) -> None:
    with pytest.raises(BadData, match="sort the faces by label, and number them from 0"):
        write_recordio(tmp_path, [(encoded(1), label) for label in labels])
    assert not (tmp_path / "train.idx").exists()


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    (write(tmp_path, insightface()) / "train.idx").unlink()
    with pytest.raises(BadData, match=r"train\.idx is missing; the index of train\.rec belongs beside it"):
        load_recordio(tmp_path)


def test_two_files_want_a_choice(tmp_path: Path) -> None:
    write(tmp_path, insightface())
    (tmp_path / "other.rec").write_bytes(b"")
    with pytest.raises(BadData, match=r"2 \.rec files; name the one to read"):
        load_recordio(tmp_path)
    assert len(load_recordio(tmp_path / "train.rec")) == 3


@pytest.mark.parametrize("text", ["", "0\n", "0\tx\n", "0,8\n", "1 2 3\n"])
def test_an_index_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (write(tmp_path, insightface()) / "train.idx").write_text(text)
    with pytest.raises(BadData, match=r"train\.idx: expected lines of `key<TAB>offset`"):
        load_recordio(tmp_path)


@pytest.mark.parametrize("lost", [1, 3, 4, 60, 500])
def test_a_truncated_file_is_refused(tmp_path: Path, lost: int) -> None:
    file = write(tmp_path, insightface()) / "train.rec"
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(
        BadData, match=r"train\.rec: train\.idx lists records beyond .* truncated.*; copy both again"
    ):
        load_recordio(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (write(tmp_path, insightface()) / "train.rec").write_bytes(b"")
    with pytest.raises(BadData, match="beyond its 0 bytes: truncated"):
        load_recordio(tmp_path)


def test_a_record_without_its_last_part_is_refused(tmp_path: Path) -> None:
    records = [part(image(0, encoded(10))), part(image(1, b"x" * 8), 1)]
    with pytest.raises(BadData, match="truncated"):
        load_recordio(write(tmp_path, records))


def test_a_truncated_index_is_refused(tmp_path: Path) -> None:
    records = [part(image(n, encoded(10 * n))) for n in range(4)]
    index = write(tmp_path, records) / "train.idx"
    index.write_text("\n".join(index.read_text().splitlines()[:3]))
    with pytest.raises(BadData, match=r"the index ends at byte \d+ of \d+; it is truncated"):
        load_recordio(tmp_path)


def test_an_index_with_a_gap_is_refused(tmp_path: Path) -> None:
    index = write(tmp_path, insightface()) / "train.idx"
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:2] + lines[3:]))
    with pytest.raises(
        BadData, match=r"train\.idx: lists 2 of the 3 pictures that train\.rec states; copy both again"
    ):
        load_recordio(tmp_path)


@pytest.mark.parametrize(("old", "new"), [("\t", "\t1"), ("0\t0", "0\t4"), ("\t0", "\t-8")])
def test_an_index_of_another_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    index = write(tmp_path, insightface()) / "train.idx"
    index.write_text(index.read_text().replace(old, new, 1))
    with pytest.raises(BadData, match=r"index of another file|beyond its \d+ bytes"):
        load_recordio(tmp_path)


@pytest.mark.parametrize("kind", [2, 3])
def test_an_index_that_points_into_a_record_is_refused(tmp_path: Path, kind: int) -> None:
    records = [part(image(0, encoded(10))), part(image(1, encoded(20)), kind)]
    with pytest.raises(BadData, match=r"no record begins at byte \d+, where record 1 should"):
        load_recordio(write(tmp_path, records))


def test_a_wrong_magic_word_is_refused_at_its_byte(tmp_path: Path) -> None:
    file = write(tmp_path, insightface()) / "train.rec"
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with pytest.raises(
        BadData, match=r"train\.rec: no record begins at byte 0, where record 0 should; damaged"
    ):
        load_recordio(tmp_path)


def test_a_record_too_short_for_its_labels_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"1234", struct.pack("<IfQQ", 9, 0, 0, 0) + b"only"):
        records = [part(image(0, encoded(10))), part(data)]
        with pytest.raises(BadData, match="record 1 is too short for its header and labels"):
            load_recordio(write(tmp_path, records))
    for data in (b"ab__" + MAGIC, struct.pack("<IfQQ", 2, 0, 0, 0) + MAGIC):
        records = [part(image(0, encoded(10))), split(data, len(data) - 4)]
        with pytest.raises(BadData, match="record 1 is too short for its header and labels"):
            load_recordio(write(tmp_path, records))


@pytest.mark.parametrize("label", [-1, 0.5, 2, float("nan"), float("inf")])
def test_a_label_out_of_the_stated_range_is_refused(tmp_path: Path, label: float) -> None:
    message = rf"train\.rec: 1 labels are out of range, among them {label:g} of record 2; expected whole numbers from 0"
    with pytest.raises(BadData, match=f"{message} to 1"):
        load_recordio(write(tmp_path, insightface((0, label, 1))))


def test_property_states_the_range_too(tmp_path: Path) -> None:
    records = [part(image(n, encoded(10 * n))) for n in range(4)]
    (write(tmp_path, records) / "property").write_text("3,112,112")
    with pytest.raises(BadData, match="among them 3 of record 3; expected whole numbers from 0 to 2"):
        load_recordio(tmp_path)
    (tmp_path / "property").write_text("4,112,112\n")
    assert len(load_recordio(tmp_path)) == 4
    (tmp_path / "property").write_text("many")
    with pytest.raises(BadData, match="property: expected `identities,height,width`"):
        load_recordio(tmp_path)


def test_one_identity_and_an_unreadable_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="of one identity"):
        load_recordio(write(tmp_path, insightface((0, 0, 0))))
    with pytest.raises(BadData, match=r"among them train\.rec: record 1: not a readable picture"):
        load_recordio(write(tmp_path, [part(image(0, encoded(1))), part(image(1, b"\xff\xd8\xff"))]))
