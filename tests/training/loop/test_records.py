"""What a run has learnt from is plain in its checkpoint and read back; an older checkpoint says that nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.data.annotations import terms
from training.loop import records
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.records import (
    LEARNT_FROM,
    PHOTOGRAPHS,
    FaceRecord,
    Record,
    TeacherRecord,
    learnt_from,
    records_of,
    united,
)

HERE = Path("last.pt")
SET = Record(name="a", pictures=3, faces=2, names="0f", labels="official (YOLO text)", terms="ask first")
COMPARED = SET.model_copy(update={"left_out": 0})
FACES = FaceRecord(
    name="b", identities=1200, faces=3400, digest="1e", labels="official", sources=("fiw", "pins")
)
TEACHER = TeacherRecord(name="t.onnx", sha256="2d", terms="ours")


def test_what_a_checkpoint_keeps_is_plain_and_read_back() -> None:
    kept = SET.model_dump() | {"left_out": 1}
    assert {type(of) for of in kept.values()} == {str, int}
    assert records_of({PHOTOGRAPHS: [kept]}, HERE) == (COMPARED.model_copy(update={"left_out": 1}),)
    both = [FACES.model_dump(mode="json"), TEACHER.model_dump(mode="json")]
    assert {type(value) for of in both for value in of.values()} == {str, int, list}
    assert learnt_from({LEARNT_FROM: both}, HERE) == (FACES, TEACHER)


def test_each_is_told_with_its_terms() -> None:
    assert str(SET) == "a: 3 pictures, 2 boxed faces; official (YOLO text); terms: ask first"
    assert str(FACES) == "b: 1,200 identities, 3,400 faces of fiw, pins; official; terms: not stated"
    assert str(TEACHER) == "t.onnx: a teacher, sha256:2d; terms: ours"
    assert records.NOT_STATED == terms.NOT_STATED


def test_a_record_from_before_pictures_were_compared_is_read_and_says_nothing() -> None:
    older = SET.model_dump(exclude={"left_out"})
    assert records_of({PHOTOGRAPHS: [older]}, HERE) == (SET,)
    assert "compared" not in str(SET)
    told = str(SET.model_copy(update={"left_out": 2}))
    assert told.endswith("; 5 compared with the validation pictures, 2 left out; terms: ask first")


def test_pictures_that_were_compared_later_are_one_set_and_others_are_another() -> None:
    fewer = SET.model_copy(update={"pictures": 2, "names": "1e", "left_out": 1})
    assert united((SET,), (COMPARED,)) == united((COMPARED,), (SET,)) == (COMPARED,)
    assert united((SET,), (fewer,)) == (SET, fewer)  # the first steps learnt from the third picture


def test_a_set_is_once_in_the_list_and_again_where_it_has_grown() -> None:
    more = SET.model_copy(update={"pictures": 4, "names": "1e"})
    assert united((SET,), (more, SET)) == (SET, more)
    assert united((FACES, TEACHER), (FACES,)) == (FACES, TEACHER)


@pytest.mark.parametrize("read", [records_of, learnt_from])
def test_an_older_checkpoint_says_that_nobody_knows(read: Any) -> None:
    (unknown,) = read({"step": 1455}, HERE)
    assert str(unknown) == "not recorded: unknown, of the first 1,455 steps; terms: not stated"


@pytest.mark.parametrize("kept", [3, [{"name": "a"}], [SET.model_dump() | {"pictures": -1}]])
def test_what_cannot_be_is_refused(kept: object) -> None:
    for key, read in ((PHOTOGRAPHS, records_of), (LEARNT_FROM, learnt_from)):
        with pytest.raises(UnreadableCheckpoint, match=r"last\.pt has impossible records"):
            read({key: kept}, HERE)
