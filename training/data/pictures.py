"""Pictures of aligned faces: from the bytes of a file to pixels, and where the bytes lie while nobody asks for them.

A picture is whole or refused: what a truncated file still shows is never trained on.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import simplejpeg

TEMPLATE_SIDE = 112
BORDER = 4  # pixels around the 112 × 112 template, room for jitter
SIDE = TEMPLATE_SIDE + 2 * BORDER
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_HASHED = 1024  # pictures at a time: those of a view are copied first, 38 MB of them
PLACE = np.dtype([("file", np.int32), ("offset", np.int64), ("length", np.int64)])


class BadData(Exception):
    """The data set cannot be used as it is; the message says what is wrong and where."""


def decode_face(data: bytes, name: str) -> np.ndarray:
    """uint8 [120, 120, 3] RGB of an aligned face; 112 × 112 is given its border by repeating the outermost pixels.

    Raises BadData with the picture's name where it is truncated, no picture, or of another size.
    """
    picture = _rgb(data)
    if picture is None:
        raise BadData(f"{name}: not a readable picture")
    if picture.shape == (TEMPLATE_SIDE, TEMPLATE_SIDE, 3):
        return cv2.copyMakeBorder(picture, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
    if picture.shape != (SIDE, SIDE, 3):
        raise BadData(
            f"{name}: {picture.shape[1]} × {picture.shape[0]} pixels, expected {SIDE} × {SIDE} or {TEMPLATE_SIDE} × "
            f"{TEMPLATE_SIDE}, an aligned face"
        )
    return picture


def _rgb(data: bytes) -> np.ndarray | None:
    try:
        if data.startswith(b"\xff\xd8"):
            return simplejpeg.decode_jpeg(data, "RGB")  # OpenCV 4 fills a truncated JPEG with grey
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (ValueError, cv2.error):
        return None
    return None if decoded is None else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def encode_face(picture: np.ndarray, suffix: Literal[".webp", ".jpg", ".png"] = ".webp") -> bytes:
    """uint8 [h, w, 3] RGB → the bytes of a file, at quality 95 where the format loses something."""
    quality = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 95], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".png": []}
    return cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality[suffix])[1].tobytes()


@dataclass(frozen=True, eq=False)
class EncodedPictures:
    """Pictures that stay in their files: `[i]` decodes one, a slice or an index array several; `len` and `shape` hold.

    files: bytes strings [m], paths; place: `PLACE` [n], which bytes of which file are picture i. Both are plain arrays:
    a worker process that reads them copies nothing. Files are opened per picture, so that thousands of shards need no
    thousands of descriptors. unwrap: what lies in the file → the encoded picture, where the two differ.
    border: pixels cut off each side of the decoded 120 × 120.
    """

    files: np.ndarray
    place: np.ndarray
    unwrap: Callable[[bytes], bytes] | None = None
    border: int = 0

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        side = SIDE - 2 * self.border
        return len(self), side, side, 3

    def __getitem__(self, rows: Any) -> np.ndarray:
        """uint8 [side, side, 3] or [m, side, side, 3]. Raises BadData for a picture that has become unreadable."""
        chosen = self.place[rows]
        if chosen.ndim == 0:
            return self._decoded(chosen)
        pictures = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for picture, place in zip(pictures, chosen, strict=True):
            picture[:] = self._decoded(place)
        return pictures

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def encoded(self, row: int) -> bytes:
        """Picture `row` as JPEG, PNG, WebP or BMP."""
        return self._encoded(self.place[row])

    def crops(self) -> np.ndarray:
        """The centre 112 × 112 of each, decoded on demand; typed as the array that it indexes like."""
        return cast(np.ndarray, replace(self, border=BORDER))

    def _encoded(self, place: Any) -> bytes:
        data = read_bytes(os.fsdecode(self.files[place["file"]]), int(place["offset"]), int(place["length"]))
        return self.unwrap(data) if self.unwrap else data

    def _decoded(self, place: Any) -> np.ndarray:
        file = os.path.basename(os.fsdecode(self.files[place["file"]]))
        picture = decode_face(self._encoded(place), f"{file} at byte {place['offset']}")
        return picture[self.border : SIDE - self.border, self.border : SIDE - self.border]


def encoded_pictures(
    files: Sequence[Path],
    places: Sequence[tuple[int, int, int]] | np.ndarray,
    unwrap: Callable[[bytes], bytes] | None = None,
) -> EncodedPictures:
    """places: (number in `files`, offset, length in bytes) of each picture."""
    paths = np.array([os.fsencode(file) for file in files], np.bytes_)
    return EncodedPictures(paths, np.array(places, PLACE), unwrap)


def digest_of_pictures(pictures: np.ndarray) -> str:
    """64 hexadecimal digits that change with any picture. Those that lie in files are not decoded: what counts is which
    bytes of which files they are, and all that is in these files."""
    digest = hashlib.sha256()
    if isinstance(pictures, EncodedPictures):
        digest.update(pictures.place.tobytes())
        for path in pictures.files.tolist():
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").hexdigest().encode())
    else:
        for start in range(0, len(pictures), _HASHED):
            digest.update(np.ascontiguousarray(pictures[start : start + _HASHED]).data)
    return digest.hexdigest()


def read_bytes(file: str | Path, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer at the end of the file."""
    with open(file, "rb") as opened:
        opened.seek(offset)
        return opened.read(length)


def members(shard: Path) -> list[tuple[str, int, int]]:
    """(name, offset, length) of every file in a plain tar. Raises BadData for one that is truncated or corrupt."""
    try:
        with tarfile.open(shard, "r:") as tar:
            found = [(of.name, of.offset_data, of.size) for of in tar if of.isfile()]
            end = tar.offset
    except (tarfile.TarError, OSError) as error:
        raise BadData(f"{shard.name}: cannot be read as an uncompressed tar shard ({error})") from error
    if read_bytes(shard, end, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops there silently
        raise BadData(f"{shard.name}: truncated or corrupt at byte {end}; copy or write it again")
    return found
