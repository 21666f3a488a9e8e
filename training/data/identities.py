"""Identity-labelled aligned faces: the one record that training and evaluation take, whatever the files were.

Every picture is decoded once when a set is opened, so that an unreadable one is known before the first step. A set of
at most `DECODED` pictures stays decoded in memory; of a larger one only the places of its encoded pictures do.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from tqdm import tqdm

from training.data.pictures import (
    BORDER,
    PLACE,
    SIDE,
    BadData,
    EncodedPictures,
    decode_face,
    encoded_pictures,
    members,
)

__all__ = [
    "BORDER",
    "SIDE",
    "BadData",
    "Faces",
    "Split",
    "collect",
    "decode_face",
    "load_faces",
    "read_table",
]

Split = Literal["train", "validation", "calibration"]
DECODED = 50_000  # pictures kept decoded: 2.2 GB
TOLERATED = 0.01  # share of unreadable pictures that is left out and reported; beyond it the set is refused
COLUMNS = {
    "train.csv": ("shard", "file", "identity", "source", "similarity_to_own_centroid", "family"),
    "split.csv": ("identity", "split"),
}
_LISTED = 10  # of the pictures left out that are printed; `Faces.left_out` has all
_CHUNK = 256  # pictures a thread decodes at a time


@dataclass(frozen=True)
class Faces:
    """Aligned faces of one set or split.

    pictures: uint8 [n, 120, 120, 3] RGB, the 112 × 112 template with a border of 4 pixels; of a large set
    `EncodedPictures`, which index alike (by number, slice or index array along the first axis) and decode on demand;
    identity: int64 [n], the data set's number; label: int64 [n], 0 … identities − 1, dense;
    family: [n] strings, empty where unknown: members of one family are kin;
    similarity: float32 [n] to the identity's own centroid (a low value hints at a wrong label), 1 where unknown;
    source: [n] strings, the set that a face comes from;
    people: [identities] strings by label, the data set's own names, or empty where it has numbers only;
    left_out: what the files hold and this record lacks, each with the reason;
    root: where the set lies, None where it was made in memory.
    """

    pictures: np.ndarray
    identity: np.ndarray
    label: np.ndarray
    family: np.ndarray
    similarity: np.ndarray
    source: np.ndarray
    people: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    left_out: tuple[str, ...] = ()
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.identity)

    @property
    def identities(self) -> int:
        return int(self.label.max()) + 1 if len(self.label) else 0

    def crops(self) -> np.ndarray:
        """uint8 [n, 112, 112, 3]: the centre crops, a view; of a large set decoded on demand, as `pictures` are."""
        if isinstance(self.pictures, EncodedPictures):
            return self.pictures.crops()
        return self.pictures[:, BORDER:-BORDER, BORDER:-BORDER]


def collect(
    root: Path,
    pictures: EncodedPictures,
    identity: Sequence[int] | np.ndarray,
    name: Callable[[int], str],
    *,
    source: Sequence[str] | None = None,
    family: Sequence[str] | None = None,
    similarity: np.ndarray | None = None,
    people: Mapping[int, str] | None = None,
    left_out: Sequence[str] = (),
    decoded: int = DECODED,
    workers: int | None = None,
) -> Faces:
    """Decode every picture of a set once and answer its record, in the order given, whatever `workers` is.

    name: picture i as messages call it; source: `root`'s name where None; people: names by identity; left_out: what
    the reader passed over already. A picture that cannot be decoded is left out; what is left out is printed. Raises
    BadData for no picture, for unreadable ones beyond `TOLERATED`, and for a single identity.
    """
    count = len(pictures)
    if not count:
        raise BadData(f"{root}: holds no picture")
    kept = np.empty(pictures.shape, np.uint8) if count <= decoded else None
    bad = _decode_all(root, pictures, name, kept, workers or os.cpu_count() or 1)
    if len(bad) > TOLERATED * count:
        raise BadData(
            f"{root}: {len(bad)} of {count} pictures cannot be used, among them {next(iter(bad.values()))}; restore or "
            f"remove them, or align them first (up to {TOLERATED:.0%} are left out and reported)"
        )
    rows = np.setdiff1d(np.arange(count), np.array(list(bad), np.int64)) if bad else slice(None)
    chosen = np.asarray(identity, np.int64)[rows]
    present, label = np.unique(chosen, return_inverse=True)
    if len(present) < 2:
        raise BadData(
            f"{root}: all {len(chosen)} pictures are of one identity; there is nobody to tell it from: add other people"
        )
    passed_over = (*left_out, *bad.values())
    _report(root, passed_over)
    return Faces(
        pictures=cast(np.ndarray, replace(pictures, place=pictures.place[rows]))
        if kept is None
        else kept[rows],
        identity=chosen,
        label=label,
        family=np.array(family if family is not None else [""] * count)[rows],
        similarity=np.array(similarity if similarity is not None else np.ones(count), np.float32)[rows],
        source=np.array(source)[rows] if source is not None else np.full(len(chosen), root.name),
        people=np.array([people[who] for who in present.tolist()] if people else [], np.str_),
        left_out=passed_over,
        root=root,
    )


def _decode_all(
    root: Path, pictures: EncodedPictures, name: Callable[[int], str], kept: np.ndarray | None, workers: int
) -> dict[int, str]:
    """What is wrong with each unreadable picture, by row and in order; the others are written to `kept`."""

    def decode(start: int) -> dict[int, str]:
        wrong = {}
        for row in range(start, min(start + _CHUNK, len(pictures))):
            try:
                picture = decode_face(pictures.encoded(row), name(row))
            except BadData as error:
                wrong[row] = str(error)
            except OSError as error:
                wrong[row] = f"{name(row)}: {error.strerror}"
            else:
                if kept is not None:
                    kept[row] = picture
        return wrong

    bad: dict[int, str] = {}
    starts = range(0, len(pictures), _CHUNK)
    pool = ThreadPoolExecutor(workers)
    try:
        with tqdm(total=len(pictures), desc=f"reading {root.name}", unit="face", mininterval=1) as bar:
            for start, wrong in zip(starts, pool.map(decode, starts), strict=True):
                bad |= wrong
                bar.update(min(_CHUNK, len(pictures) - start))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    return bad


def _report(root: Path, left_out: Sequence[str]) -> None:
    if left_out:
        more = [f"and {len(left_out) - _LISTED} more"] if len(left_out) > _LISTED else []
        tqdm.write("\n  ".join([f"{root}: {len(left_out)} left out:", *left_out[:_LISTED], *more]))


def load_faces(root: Path, split: Split | None = None, *, decoded: int = DECODED) -> Faces:
    """The faces of `split`, or all, under `root` (train.csv, split.csv, *.tar); 40 s on one core for 35,000 pictures.

    A set whose people have names holds them in a column `name`. Raises BadData for a missing file, an impossible value,
    a picture that the shards lack, and as `collect` does.
    """
    table = read_table(root / "train.csv")
    identity = _identities(root, table["identity"])
    if split:
        split_of = _split_of(root, table["identity"])
        rows = [row for row, who in enumerate(table["identity"]) if split_of[who] == split]
        if not rows:
            raise BadData(f"{root}: no face belongs to the split {split!r}")
        table = {column: [values[row] for row in rows] for column, values in table.items()}
        identity = [identity[row] for row in rows]
    return collect(
        root,
        _placed(root, table["shard"], table["file"]),
        identity,
        lambda row: f"{table['shard'][row]}:{table['file'][row]}",
        source=table["source"],
        family=table["family"],
        similarity=_similarities(root, table["similarity_to_own_centroid"]),
        people=dict(zip(identity, table["name"], strict=True)) if "name" in table else None,
        decoded=decoded,
    )


def read_table(path: Path) -> dict[str, list[str]]:
    """The columns of train.csv or split.csv. Raises BadData where the file or a column is missing, with the line."""
    if not path.is_file():
        raise BadData(f"{path} is missing; a face set has train.csv, split.csv and tar shards")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _columns(path, csv.reader(file))
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: not a table in UTF-8 ({error})") from error


def _columns(path: Path, reader: Any) -> dict[str, list[str]]:
    header: list[str] = next(reader, [])
    if missing := set(COLUMNS[path.name]) - set(header):
        raise BadData(f"{path}:1: the columns {', '.join(sorted(missing))} are missing")
    columns: dict[str, list[str]] = {column: [] for column in header}
    for row in reader:
        if len(row) != len(header):
            raise BadData(
                f"{path}:{reader.line_num}: {len(row)} values, the first line names {len(header)} columns"
            )
        for column, value in zip(columns.values(), row, strict=True):
            column.append(sys.intern(value))  # a million rows repeat a few names
    return columns


def _split_of(root: Path, identities: Sequence[str]) -> dict[str, str]:
    """The split of each identity. Raises BadData for an unknown split, and for identities of train.csv without one."""
    table = read_table(root / "split.csv")
    if wrong := set(table["split"]) - set(get_args(Split)):
        raise BadData(
            f"{root / 'split.csv'}: split {min(wrong)!r}; it is one of {', '.join(get_args(Split))}"
        )
    split_of = dict(zip(table["identity"], table["split"], strict=True))
    if without := set(identities) - split_of.keys():
        raise BadData(
            f"{root / 'split.csv'}: {len(without)} identities of train.csv have no split, among them {min(without)}"
        )
    return split_of


def _identities(root: Path, values: Sequence[str]) -> list[int]:
    wrong = next(
        (value for value in values if not (value.isascii() and value.isdigit() and len(value) < 19)), None
    )
    if wrong is not None:
        raise BadData(
            f"{root / 'train.csv'}: identity {wrong!r} is out of range; identities are whole numbers from 0"
        )
    return [int(value) for value in values]


def _similarities(root: Path, values: Sequence[str]) -> np.ndarray:
    try:
        return np.array([float(value) for value in values], np.float32)
    except ValueError as error:
        raise BadData(f"{root / 'train.csv'}: similarity_to_own_centroid: {error}") from error


def _placed(root: Path, shard_of: Sequence[str], file_of: Sequence[str]) -> EncodedPictures:
    """Where the named pictures lie in the shards. Raises BadData if some do not, or if one is named twice."""
    rows: dict[str, dict[str, int]] = {}
    for row, (shard, file) in enumerate(zip(shard_of, file_of, strict=True)):
        if rows.setdefault(shard, {}).setdefault(file, row) != row:
            raise BadData(f"{root / 'train.csv'}: {shard}:{file} is named twice")
    place = np.full(len(file_of), -1, PLACE)
    for number, (shard, row_of) in enumerate(sorted(rows.items())):
        for name, offset, length in members(root / shard):
            if name in row_of:
                place[row_of[name]] = (number, offset, length)
    missing = int((place["file"] < 0).sum())
    if missing:
        raise BadData(f"{root}: {missing} of {len(place)} pictures named in train.csv are not in the shards")
    return encoded_pictures([root / shard for shard in sorted(rows)], place)
