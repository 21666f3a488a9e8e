"""A verification pack is read whatever wrote it, and a pickle that would do anything else is refused before it does."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.plain_faces import encoded, levels
from training.data.identities import BadData
from training.data.packs import load_pack

PICTURES = [encoded(level) for level in (1, 2, 3, 1) for _ in range(5)]  # ten pairs, of three pictures
SAME = [True, False] * 5


def write(folder: Path, pack: object, protocol: int = 4) -> Path:
    (folder / "lfw.bin").write_bytes(pickle.dumps(pack, protocol))
    return folder / "lfw.bin"


def test_pairs_are_neighbours_and_every_picture_is_there_once(tmp_path: Path) -> None:
    pairs = load_pack(write(tmp_path, (PICTURES, SAME)))
    assert (pairs.crops.shape, pairs.crops.dtype) == ((3, 112, 112, 3), np.uint8)
    assert levels(pairs.crops) == [1, 2, 3]
    shown = [of[0, 0, 0] for of in pairs.crops]
    assert [(shown[i], shown[j]) for i, j in zip(pairs.first, pairs.second, strict=True)] == [
        (1, 1), (1, 1), (1, 2), (2, 2), (2, 2), (3, 3), (3, 3), (3, 1), (1, 1), (1, 1),
    ]  # fmt: skip
    assert (pairs.same.tolist(), pairs.folds) == (SAME, 10)
    assert pairs.names == ("lfw.bin:0", "lfw.bin:5", "lfw.bin:10")


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_and_numpy_s_own_types_are_read(tmp_path: Path, protocol: int) -> None:
    arrays = [np.frombuffer(of, np.uint8).copy() for of in PICTURES]
    for pictures in (PICTURES, tuple(arrays)):
        for same in (SAME, [np.bool_(of) for of in SAME], [int(of) for of in SAME], np.array(SAME)):
            pairs = load_pack(write(tmp_path, (pictures, same), protocol))
            assert levels(pairs.crops) == [1, 2, 3]
            assert pairs.same.tolist() == SAME


def test_a_pack_of_python_2_is_read(tmp_path: Path) -> None:
    strings = b"".join(b"T" + len(of).to_bytes(4, "little") + of for of in PICTURES)  # BINSTRING
    answers = b"".join(b"I01\n" if of else b"I00\n" for of in SAME)
    (tmp_path / "old.bin").write_bytes(b"\x80\x02(" + strings + b"l(" + answers + b"l\x86.")
    assert load_pack(tmp_path / "old.bin").same.tolist() == SAME


class Runs:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pack_does_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "ran"
    path = write(tmp_path, (PICTURES, [Runs(os.mkdir, str(witness)), *SAME[1:]]), protocol)
    with pytest.raises(
        BadData, match=r"lfw\.bin: refused: it would load (posix|nt)\.mkdir, .* which may run code"
    ):
        load_pack(path)
    assert not witness.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.frombuffer, pickle.loads])
def test_builtins_and_numpy_s_other_functions_are_refused(tmp_path: Path, function: object) -> None:
    with pytest.raises(BadData, match="refused: it would load"):
        load_pack(write(tmp_path, (PICTURES, Runs(function, "1"))))


@pytest.mark.parametrize("codec", ["zlib_codec", "unicode_escape"])
def test_text_goes_through_no_other_codec(tmp_path: Path, codec: str) -> None:
    import codecs

    with pytest.raises(BadData, match=rf"refused: bytes spelt in '{codec}'"):
        load_pack(write(tmp_path, (PICTURES, Runs(codecs.encode, "x", codec))))


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="refused: an array of the type 'O8'"):
        load_pack(write(tmp_path, (np.array([b"a", None], object), SAME)))


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        ((PICTURES[:-1], SAME), "19 pictures and 10 pairs; expected two a pair"),
        ((PICTURES[:8], SAME[:4]), "8 pictures and 4 pairs; .* at least 10 pairs"),
        ((PICTURES, [*SAME[1:], 2]), "2 where true or false says"),
        ((PICTURES, [*SAME[1:], None]), "None where true or false says"),
        (([*PICTURES[1:], "text"], SAME), "a picture of the type str; expected bytes"),
        (PICTURES, "not a verification pack"),
        ({"pictures": 1}, "not a verification pack"),
        (3, "not a verification pack"),
        (([b"", *PICTURES[1:]], SAME), r"^lfw\.bin:0: not a readable picture"),
        (([encoded(9, side=100), *PICTURES[1:]], SAME), r"lfw\.bin:0: 100 × 100 pixels, expected"),
    ],
)
def test_another_content_is_refused(tmp_path: Path, pack: object, message: str) -> None:
    with pytest.raises(BadData, match=message):
        load_pack(write(tmp_path, pack))


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_pack_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path, (PICTURES, SAME))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadData, match=r"lfw\.bin: truncated, or not a verification pack .*; copy it again"):
        load_pack(path)
