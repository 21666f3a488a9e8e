"""Photographs that do not fit in memory: scaled down once, kept as JPEG in one file, decoded when a crop asks.

A crop that looks at a large part of a photograph asks for the half, quarter or eighth, and libjpeg decodes no more than
that. Of pictures of 0.45 megapixels, a 320-pixel crop costs 2.7 ms on one core and 0.13 MB for each picture, on disk or
in the system's own cache; decoded, with their halves, 1.0 ms and 1.7 MB of memory: while they fit, keep them decoded.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import numpy.typing as npt
import simplejpeg

from training.data.photographs import Photograph
from training.data.pictures import BadData, read_bytes
from training.data.raw_photographs import Picture

QUALITY = 95
HALVINGS = 3  # libjpeg decodes to an eighth of the size at the smallest
_END = b"photographs 1\n"  # the last bytes of a whole file, after where the index begins (8 bytes, little-endian)


@dataclass(frozen=True, slots=True)
class EncodedPixels:
    """A picture that stays in its file: it has the shape and type of the array that `np.asarray` decodes.

    Decoding raises BadData with the picture's name where its bytes are no longer a whole picture.
    """

    name: str
    file: Path
    offset: int
    length: int
    shape: tuple[int, int, int]

    dtype = np.dtype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.shrunk(0), dtype)

    def shrunk(self, halvings: int) -> Picture:
        """uint8 (⌈h / 2ᵏ⌉, ⌈w / 2ᵏ⌉, 3) RGB for k = `halvings`, 0 to `HALVINGS`."""
        height, width = (-(-length // 2**halvings) for length in self.shape[:2])
        try:
            data = read_bytes(self.file, self.offset, self.length)
            pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
        except (ValueError, OSError) as error:
            raise BadData(
                f"{self.name}: not a readable picture any more, in {self.file} ({error})"
            ) from error
        if pixels.shape != (height, width, 3):
            raise BadData(f"{self.name}: another picture than it was, in {self.file}")
        return pixels


@dataclass(frozen=True, slots=True)
class EncodedHalves(Sequence[Picture]):
    """The picture and its halves as `pyramid` makes them, each decoded when it is asked for."""

    pixels: EncodedPixels
    levels: int

    def __len__(self) -> int:
        return self.levels

    @overload
    def __getitem__(self, level: int) -> Picture: ...
    @overload
    def __getitem__(self, level: slice) -> Sequence[Picture]: ...
    def __getitem__(self, level: int | slice) -> Picture | Sequence[Picture]:
        chosen = range(self.levels)[level]
        return (
            self.pixels.shrunk(chosen) if isinstance(chosen, int) else list(map(self.pixels.shrunk, chosen))
        )


def cached(file: Path, photographs: Callable[[], Iterable[Photograph]]) -> list[Photograph]:
    """The photographs with `EncodedPixels`, from `file`; where that is missing it is written, and only then are they
    asked for. Their names, boxes and landmarks are in memory.

    The file's name should change with the set and the size of its pictures. Raises BadData for a file that is damaged.
    """
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        _write(partial, photographs())
        partial.replace(file)
    return _read(file)


def _write(file: Path, photographs: Iterable[Photograph]) -> None:
    kept: list[Photograph] = []
    places: list[tuple[int, int, int, int]] = []
    with file.open("wb") as opened:
        for one in photographs:
            pixels = np.ascontiguousarray(one.pixels)
            data = simplejpeg.encode_jpeg(pixels, QUALITY, "RGB", "420")
            places.append((opened.tell(), len(data), *pixels.shape[:2]))
            opened.write(data)
            kept.append(_without_pixels(one))
        if not kept:
            raise BadData(f"{file}: no photograph to keep")
        begin, index = opened.tell(), io.BytesIO()
        np.savez(index, **_table(kept), place=np.array(places, np.int64))  # type: ignore[arg-type]
        opened.write(index.getbuffer())
        opened.write(begin.to_bytes(8, "little") + _END)


def _without_pixels(of: Photograph) -> Photograph:
    return Photograph(of.name, np.zeros((0, 0, 3), np.uint8), of.scale, of.boxes, of.ignored, of.landmarks)


def _table(of: Sequence[Photograph]) -> dict[str, npt.NDArray[Any]]:
    return {
        "name": np.array([one.name for one in of], np.str_),
        "scale": np.array([one.scale for one in of], np.float64),
        "faces": np.array([len(one.boxes) for one in of], np.int64),
        "boxes": np.concatenate([one.boxes for one in of]),
        "ignored": np.concatenate([one.ignored for one in of]),
        "landmarks": np.concatenate([one.landmarks for one in of]),
    }


def _read(file: Path) -> list[Photograph]:
    size, tail = file.stat().st_size, 8 + len(_END)
    end = read_bytes(file, max(0, size - tail), tail)
    begin = int.from_bytes(end[:8], "little")
    if not end.endswith(_END) or begin > size:
        raise BadData(f"{file}: damaged, or no cache of photographs; delete it, and it is written again")
    try:
        with np.load(io.BytesIO(read_bytes(file, begin, size - tail - begin))) as of:
            faces = np.cumsum(of["faces"])[:-1]
            boxes, ignored, landmarks = (
                np.split(of[name], faces) for name in ("boxes", "ignored", "landmarks")
            )
            names, scales, places = of["name"].tolist(), of["scale"].tolist(), of["place"].tolist()
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadData(
            f"{file}: its index is damaged ({error}); delete it, and it is written again"
        ) from error
    return [
        Photograph(
            name, cast(Picture, EncodedPixels(name, file, offset, length, (height, width, 3))), scale, *truth
        )
        for name, scale, (offset, length, height, width), *truth in zip(
            names, scales, places, boxes, ignored, landmarks, strict=True
        )
    ]
