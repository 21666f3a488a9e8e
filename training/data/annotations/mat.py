"""MATLAB's `.mat` files of the versions 5 to 7, as far as lists need them: cells, texts and numbers.

SciPy's `loadmat` is not meant for damaged files: some of them end the process. Here every byte is within the file or
refused. Layout: MathWorks, "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training.data.pictures import BadData

_HEADER = 128  # bytes: a text of 124, the version, the order of bytes
_NEWEST = b"\x00\x01IM"  # little-endian; 7.3 says 2 instead and is HDF5
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_NUMBERS = range(6, 16)  # classes, double to uint64
_STORED = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}

Element = tuple[int, memoryview]  # type, content


def load(file: Path, names: Collection[str]) -> dict[str, Any]:
    """Those of the variables `names` that the file has: numbers and cells as arrays of their shape, a text as str.

    Raises BadData for a file that cannot be read, that is damaged, or that is no such file.
    """
    try:
        data = memoryview(file.read_bytes())
        if data[_HEADER - 4 : _HEADER] != _NEWEST:
            raise ValueError("no MATLAB file of version 5 to 7")
        return dict(_variables(data[_HEADER:], names))
    except (OSError, ValueError, LookupError, RecursionError, struct.error, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise BadData(
            f"{file}: cannot be read ({why}); copy it again, or save it with MATLAB's -v7"
        ) from error


def _variables(data: memoryview, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    for kind, content in _elements(data):
        if kind == _COMPRESSED:
            ((kind, content),) = _elements(memoryview(zlib.decompress(content)))
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a variable is expected")
        _, _, (_, name), *_ = _elements(content)
        if (called := bytes(name).decode("latin-1")) in names:
            yield called, _matrix(content)


def _elements(data: memoryview) -> Iterator[Element]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        begin, end = at + 8, at + 8 + size
        if kind >> 16:  # four bytes or less lie in the tag
            kind, begin, end = kind & 0xFFFF, at + 4, at + 4 + (kind >> 16)
        if end > len(data):
            raise ValueError(
                f"truncated or damaged: an element of {end - begin:,} bytes where fewer are left"
            )
        yield kind, data[begin:end]
        at = end if kind == _COMPRESSED else end + -end % 8


def _matrix(data: memoryview) -> Any:
    if not len(data):
        return np.zeros((0, 0))
    (_, flags), (_, size), _, *parts = _elements(data)
    shape = np.frombuffer(size, "<i4")
    if (shape < 0).any():
        raise ValueError(f"damaged: an array of shape {shape.tolist()}")
    if flags[0] == _CELL:
        values: Any = np.empty(len(parts), object)
        for number, (kind, content) in enumerate(parts):
            if kind != _MATRIX:
                raise ValueError(f"damaged: a cell of type {kind}")
            values[number] = _matrix(content)
    elif flags[0] == _CHAR:
        if shape[0] > 1:
            raise ValueError("a text of several lines")
        return "".join(bytes(content).decode(_TEXT[kind]) for kind, content in parts)
    elif flags[0] in _NUMBERS:
        values = np.frombuffer(parts[0][1], _STORED[parts[0][0]])
    else:
        raise ValueError(f"an array of class {flags[0]}, neither cells, text nor numbers")
    return values.reshape(shape, order="F")
