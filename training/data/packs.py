"""The `.bin` verification packs (LFW, CFP-FP, AgeDB-30 …): a pickle of encoded pictures, two a pair, and the answers.

A pickle can run code while it is loaded. Here it may only build lists, bytes, booleans and numpy's plain arrays;
anything else is refused before it is made.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training.data.pairs import Pairs
from training.data.pictures import BORDER, BadData, decode_face

FOLDS = 10  # by the protocol that the packs come with


def load_pack(path: Path) -> Pairs:
    """The pairs in the pack's order, each picture once however many pairs show it. Raises BadData.

    Its pictures must all be readable: a protocol with a pair less is another protocol.
    """
    encoded, same = _unpacked(path)
    row_of: dict[bytes, int] = {}
    rows = np.array([row_of.setdefault(data, len(row_of)) for data in encoded])
    first_use = np.unique(rows, return_index=True)[1]
    names = tuple(f"{path.name}:{place}" for place in first_use.tolist())
    crops = [decode_face(data, name) for data, name in zip(row_of, names, strict=True)]
    return Pairs(
        crops=np.stack(crops)[:, BORDER:-BORDER, BORDER:-BORDER],
        names=names,
        first=rows[::2],
        second=rows[1::2],
        same=np.array(same, bool),
        folds=FOLDS,
    )


def _unpacked(path: Path) -> tuple[list[bytes], list[bool]]:
    """(encoded pictures, whether each pair is one person). Raises BadData."""
    try:
        pack = _Plain(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pictures, same = pack
        encoded = [_encoded(picture) for picture in pictures]
        answers = [_answer(value) for value in same]
    except BadData as error:
        raise BadData(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as it has instructions
        raise BadData(f"{path}: truncated, or not a verification pack ({error}); copy it again") from error
    if len(encoded) != 2 * len(answers) or len(answers) < FOLDS:
        raise BadData(
            f"{path}: {len(encoded)} pictures and {len(answers)} pairs; expected two a pair, and at least "
            f"{FOLDS} pairs"
        )
    return encoded, answers


def _encoded(picture: object) -> bytes:
    data = picture.data if isinstance(picture, _Array) else picture
    if not isinstance(data, bytes):
        raise BadData(f"a picture of the type {type(picture).__name__}; expected bytes")
    return data


def _answer(same: object) -> bool:
    if not isinstance(same, int) or same not in (0, 1):
        raise BadData(f"{same!r} where true or false says whether a pair is one person")
    return bool(same)


class _Array:
    """A numpy array of bytes or booleans, as its pickle describes it; none of numpy's own code sees the pickle."""

    def __init__(self, *_: object) -> None:
        self.data = b""

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.data = _bytes(state[4])

    def __iter__(self) -> Iterator[int]:
        return iter(self.data)


class _Kind:
    """A numpy dtype, of one byte an element."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        if code not in ("u1", b"u1", "b1", b"b1"):
            raise BadData(f"refused: an array of the type {code!r}; expected bytes or booleans")

    def __setstate__(self, state: object) -> None:
        pass


def _buffer(data: object, *_: object) -> _Array:
    array = _Array()
    array.data = _bytes(data)
    return array


def _scalar(_: _Kind, data: object) -> bool:
    return any(_bytes(data))


def _bytes(data: object) -> bytes:
    if not isinstance(data, bytes | bytearray):
        raise BadData(f"an array of the type {type(data).__name__}; expected bytes")
    return bytes(data)


def _latin1(text: str, codec: object) -> bytes:
    """How the older protocols spell bytes."""
    if codec not in ("latin1", b"latin1"):
        raise BadData(f"refused: bytes spelt in {codec!r}")
    return text.encode("latin1")


_PLAIN: dict[tuple[str, str], Callable[..., object]] = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _buffer,
}


class _Plain(pickle.Unpickler):
    """Builds nothing but what a pack is made of."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        made = _PLAIN.get((module.replace("numpy._core", "numpy.core"), name))
        if made is None:
            raise BadData(
                f"refused: it would load {module}.{name}, which no pack needs and which may run code"
            )
        return made
