"""RecordIO of aligned faces (`train.rec`, `train.idx`, `property`), read and written without MXNet.

A record is a magic word, a length word whose three highest bits say whether the record is whole (0) or a first (1),
middle (2) or last (3) part, the data, and zeros up to a multiple of four; a record is split wherever its data holds the
magic word on such a multiple, and the word itself is left out. The data begins with a header (flag: uint32, label:
float32, two uint64; if flag > 0, that many float32 labels follow instead), then comes the encoded picture. `.idx` lists
`key<TAB>offset`. Where record 0 has two labels (a, b) and no picture, pictures are 1 … a − 1, and a … b − 1 are the
identities, each with the range of its pictures; else every record is a picture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from training.data.identities import DECODED, Faces, collect
from training.data.pictures import BORDER, PLACE, SIDE, BadData, encode_face, encoded_pictures, read_bytes

MAGIC = 0xCED7230A
_WORD = struct.pack("<I", MAGIC)
_HEADER = struct.Struct("<IfQQ")
_LENGTH = (1 << 29) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_COUNTABLE = 2**24  # float32 holds every whole number below


@dataclass(frozen=True)
class _Records:
    """An indexed file. keys: int64 [n], ascending; offset: int64 [n], bytes; words: uint32, the file, mapped."""

    rec: Path
    keys: np.ndarray
    offset: np.ndarray
    words: np.ndarray


def load_recordio(path: Path, *, decoded: int = DECODED) -> Faces:
    """`path`: a .rec file with its .idx beside it, or a folder that holds one such pair.

    The identity is a record's first label; it must be below the number of identities that `property`
    (identities,height,width) or else record 0 states. Raises BadData for a missing or foreign .idx, a truncated .rec, a
    record that is none, a label out of range, and as `collect` does.
    """
    records = _opened(path)
    rec, length = records.rec, _lengths(records)
    rows, stated = _pictures(records, length)
    label = _labels(records, length)[rows]
    keys, identities = records.keys[rows], _property(rec.with_name("property")) or stated or _COUNTABLE
    wrong = np.flatnonzero(~((label >= 0) & (label < identities) & (label == np.floor(label))))
    if len(wrong):
        raise BadData(
            f"{rec.name}: {len(wrong)} labels are out of range, among them {label[wrong[0]]:g} of record "
            f"{keys[wrong[0]]}; expected whole numbers from 0 to {identities - 1}"
        )
    place = np.zeros(len(keys), PLACE)
    place["offset"], place["length"] = records.offset[rows], length[rows]
    return collect(
        rec.parent,
        encoded_pictures([rec], place, unwrap=picture_of),
        label.astype(np.int64),
        lambda row: f"{rec.name}: record {keys[row]}",
        decoded=decoded,
    )


def picture_of(record: bytes) -> bytes:
    """The encoded picture of a record as it lies in the file, parts and padding included."""
    data = _joined(record)
    return data[_HEADER.size + 4 * _HEADER.unpack_from(data)[0] :]


def _joined(record: bytes) -> bytes:
    """The data of a record, with the magic word between its parts again."""
    parts, at = [], 0
    while at < len(record):
        length = struct.unpack_from("<I", record, at + 4)[0] & _LENGTH
        parts.append(record[at + 8 : at + 8 + length])
        at += 8 + length + -length % 4
    return _WORD.join(parts)


def _opened(path: Path) -> _Records:
    found = sorted(path.glob("*.rec")) if path.is_dir() else [path]
    if len(found) != 1:
        raise BadData(f"{path}: {len(found)} .rec files; name the one to read")
    rec, idx = found[0], found[0].with_suffix(".idx")
    if not idx.is_file():
        raise BadData(f"{idx} is missing; the index of {rec.name} belongs beside it: copy both")
    try:
        table = np.loadtxt(idx, np.int64, ndmin=2) if idx.stat().st_size else np.empty((0, 2), np.int64)
        keys, offset = table[np.argsort(table[:, 0], kind="stable")].T
        keys[0]
    except (ValueError, IndexError) as error:
        raise BadData(f"{idx.name}: expected lines of `key<TAB>offset`") from error
    size = rec.stat().st_size
    if (offset % 4).any() or offset.min() < 0:
        raise BadData(f"{idx.name}: offsets that no record of {rec.name} can have: an index of another file")
    if offset.max() + 8 > size:
        raise _truncated(rec, size)
    return _Records(rec, keys, offset, np.memmap(rec, "<u4", "r", shape=(size // 4,)))


def _truncated(rec: Path, size: int) -> BadData:
    return BadData(
        f"{rec.name}: {rec.stem}.idx lists records beyond its {size} bytes: truncated, or not of this index; copy both "
        "again"
    )


def _lengths(records: _Records) -> np.ndarray:
    """int64 [n], bytes of each record as it lies in the file: its head, all its parts, and what pads them."""
    words, at, size = records.words, records.offset // 4, records.rec.stat().st_size
    strangers = np.flatnonzero((words[at] != MAGIC) | (words[at + 1] >> 29 > _FIRST))
    if len(strangers):
        raise BadData(
            f"{records.rec.name}: no record begins at byte {records.offset[strangers[0]]}, where record "
            f"{records.keys[strangers[0]]} should; damaged, or the index of another file"
        )
    length = _span(words[at + 1])
    for row in np.flatnonzero(words[at + 1] >> 29 == _FIRST):
        length[row] = _split_length(words, int(at[row]))
    end = int((records.offset + length).max())
    if end > size:
        raise _truncated(records.rec, size)
    if end < size:
        raise BadData(
            f"{records.rec.name}: the index ends at byte {end} of {size}; it is truncated: copy it again"
        )
    return length


def _span(length_word: np.ndarray) -> np.ndarray:
    """Bytes of a part: two words, the data and its padding."""
    return 8 + ((length_word & _LENGTH).astype(np.int64) + 3) // 4 * 4


def _split_length(words: np.ndarray, start: int) -> int:
    """Bytes of the record of several parts at word `start`; more than the file has where its last part is not there."""
    at = start
    while at + 1 < len(words) and words[at] == MAGIC:
        part = words[at + 1] >> 29
        at += int(_span(words[at + 1])) // 4
        if part == _LAST:
            return 4 * (at - start)
    return 4 * (len(words) + 1 - start)


def _labels(records: _Records, length: np.ndarray) -> np.ndarray:
    """float32 [n], the first label of each record. Raises BadData for a record without room for its labels."""
    words, at = records.words, records.offset // 4
    room = length // 4 - 2  # words of data
    vector = words[at + np.where(room > 0, 2, 0)].astype(
        np.int64
    )  # the flag: how many labels follow the header
    split = words[at + 1] >> 29 == _FIRST
    short = np.flatnonzero(~split & (room < 6 + vector))
    if len(short):
        raise _too_short(records, short[0])
    label = words[np.where(split, at, at + np.where(vector > 0, 8, 3))].view("<f4")
    for row in np.flatnonzero(split):
        data = _joined(read_bytes(records.rec, int(records.offset[row]), int(length[row])))
        try:
            flag, only = _HEADER.unpack_from(data)[:2]
            label[row] = struct.unpack_from(f"<{flag}f", data, _HEADER.size)[0] if flag else only
        except struct.error as error:
            raise _too_short(records, row) from error
    return label


def _too_short(records: _Records, row: int | np.integer) -> BadData:
    return BadData(f"{records.rec.name}: record {records.keys[row]} is too short for its header and labels")


def _pictures(records: _Records, length: np.ndarray) -> tuple[slice, int]:
    """Which records are pictures, and how many identities the file states, 0 where it does not."""
    words, at = records.words, int(records.offset[0]) // 4
    if records.keys[0] != 0 or length[0] != 8 + _HEADER.size + 8 or words[at + 2] != 2:
        return slice(None), 0
    behind, end = (int(label) for label in words[at + 8 : at + 10].view("<f4"))
    present = int(np.searchsorted(records.keys, behind)) - 1
    if present != behind - 1:
        raise BadData(
            f"{records.rec.stem}.idx: lists {present} of the {behind - 1} pictures that {records.rec.name} states; "
            "copy both again"
        )
    return slice(1, behind), max(0, end - behind)


def _property(path: Path) -> int:
    """The number of identities that a property file states, 0 where there is none."""
    if not path.is_file():
        return 0
    first = path.read_text().split(",")[0].strip()
    if not first.isdigit():
        raise BadData(f"{path}: expected `identities,height,width`")
    return int(first)


def write_recordio(root: Path, rows: Iterable[tuple[bytes | np.ndarray, int]]) -> int:
    """Write train.rec, train.idx and property below `root`. Returns the number of pictures.

    rows: (picture, label), label by label from 0 without a gap, as the format's ranges ask for; a picture as the bytes
    of a file, which are kept, or as uint8 [120, 120, 3] or [112, 112, 3] RGB, of which the 112 × 112 become JPEG. The
    index comes last: a set that has one is whole. Raises BadData for another order.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.idx").unlink(missing_ok=True)
    offsets: list[int] = [0]
    starts: list[int] = []  # of each identity's pictures
    with (root / "train.rec").open("wb") as file:
        _write(file, _header((0, 0), 0))
        for key, (picture, label) in enumerate(rows, 1):
            if label == len(starts):
                starts.append(key)
            elif label != len(starts) - 1:
                raise BadData(
                    f"label {label} after {len(starts) - 1}: sort the faces by label, and number them from 0"
                )
            offsets.append(file.tell())
            _write(file, _HEADER.pack(0, label, key, 0) + _encoded(picture))
        behind = len(offsets)
        for start, end in zip(starts, [*starts[1:], behind], strict=True):
            offsets.append(file.tell())
            _write(file, _header((start, end), len(offsets) - 1))
        file.seek(0)
        _write(file, _header((behind, len(offsets)), 0))
    (root / "property").write_text(f"{len(starts)},112,112\n")
    partial = root / "train.idx.partial"
    partial.write_text("".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets)))
    partial.replace(root / "train.idx")
    return behind - 1


def _header(labels: tuple[int, int], key: int) -> bytes:
    return _HEADER.pack(2, 0, key, 0) + struct.pack("<2f", *labels)


def _encoded(picture: bytes | np.ndarray) -> bytes:
    if isinstance(picture, bytes):
        return picture
    border = BORDER if len(picture) == SIDE else 0
    return encode_face(picture[border : len(picture) - border, border : len(picture) - border], ".jpg")


def _write(file: BinaryIO, data: bytes) -> None:
    """One record, split where its data holds the magic word."""
    aligned = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    cuts = [-4, *(4 * np.flatnonzero(aligned == MAGIC)).tolist(), len(data)]
    for number, (before, end) in enumerate(pairwise(cuts)):
        first, last = number == 0, number == len(cuts) - 2
        part = _WHOLE if first and last else _FIRST if first else _LAST if last else _MIDDLE
        file.write(struct.pack("<2I", MAGIC, part << 29 | end - before - 4) + data[before + 4 : end])
    file.write(bytes(-len(data) % 4))
