"""Identity-labelled aligned faces: pictures, labels and the fixed split, read from tar shards."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

Split = Literal["train", "validation", "calibration"]
BORDER = 4  # pixels around the 112 × 112 template, room for jitter
SIDE = 112 + 2 * BORDER


class BadData(Exception):
    """The data set cannot be used as it is; the message says what is wrong and where."""


@dataclass(frozen=True)
class Faces:
    """Aligned faces of one split.

    pictures: uint8 [n, 120, 120, 3] RGB, the 112 × 112 template with a border of 4 pixels;
    identity: int64 [n], the data set's number; label: int64 [n], 0 … identities − 1, dense;
    family: [n] strings, empty where unknown: members of one family are kin;
    similarity: float32 [n] to the identity's own centroid (a low value hints at a wrong label).
    """

    pictures: np.ndarray
    identity: np.ndarray
    label: np.ndarray
    family: np.ndarray
    similarity: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.identity)

    @property
    def identities(self) -> int:
        return int(self.label.max()) + 1 if len(self.label) else 0

    def crops(self) -> np.ndarray:
        """uint8 [n, 112, 112, 3]: the centre crops, a view."""
        return self.pictures[:, BORDER:-BORDER, BORDER:-BORDER]


def decode_face(data: bytes, name: str) -> np.ndarray:
    """uint8 [120, 120, 3] RGB. Raises BadData with the picture's name."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise BadData(f"{name}: not a readable picture")
    if picture.shape != (SIDE, SIDE, 3):
        raise BadData(f"{name}: {picture.shape[1]} × {picture.shape[0]} pixels, expected {SIDE} × {SIDE}")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _members(shard: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.isfile():
                    file = tar.extractfile(member)
                    yield member.name, file.read() if file else b""
    except (tarfile.TarError, OSError) as error:
        raise BadData(f"{shard.name}: cannot be read as a tar shard ({error})") from error


def load_faces(root: Path, split: Split) -> Faces:
    """Read the faces of `split` under `root` (train.csv, split.csv, *.tar); about 40 s for 35,000 pictures.

    Raises BadData for a missing file, an unreadable picture, or a picture that the tables do not name.
    """
    for name in ("train.csv", "split.csv"):
        if not (root / name).is_file():
            raise BadData(f"{root / name} is missing; a face set has train.csv, split.csv and tar shards")
    with (root / "split.csv").open(newline="") as file:
        chosen = {row["identity"] for row in csv.DictReader(file) if row["split"] == split}
    with (root / "train.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["identity"] in chosen]
    if not rows:
        raise BadData(f"{root}: no face belongs to the split {split!r}")
    place = {(row["shard"], row["file"]): i for i, row in enumerate(rows)}
    pictures = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    found = 0
    with tqdm(total=len(rows), desc=f"reading {split} faces", unit="face") as bar:
        for shard in sorted({row["shard"] for row in rows}):
            for name, data in _members(root / shard):
                index = place.get((shard, name))
                if index is not None:
                    pictures[index] = decode_face(data, f"{shard}:{name}")
                    found += 1
                    bar.update()
    if found != len(rows):
        raise BadData(
            f"{root}: {len(rows) - found} of {len(rows)} pictures named in train.csv are not in the shards"
        )
    identity = np.array([int(row["identity"]) for row in rows])
    return Faces(
        pictures=pictures,
        identity=identity,
        label=np.unique(identity, return_inverse=True)[1],
        family=np.array([row["family"] for row in rows]),
        similarity=np.array([float(row["similarity_to_own_centroid"]) for row in rows], np.float32),
        source=np.array([row["source"] for row in rows]),
    )
