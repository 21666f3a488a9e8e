from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.detector.oblongs import SMALL, oblongs
from training.detector import remarks as room
from training.detector.config import DenseTeaching, DetectorConfig
from training.detector.dataset import Photographs, keep
from training.detector.remarks import remarks, switched_off
from training.detector.student import build
from training.loop.distributed import ALONE
from training.loop.records import Record

ALONE_CONFIG = SMALL.alone()
SET = Record(name="doors", pictures=2, faces=2, names="0f", labels="official (YOLO text)")


def said(photographs: Photographs, chosen: bool = True, config: DetectorConfig = ALONE_CONFIG) -> str:
    selection = photographs.every[:1] if chosen else []
    return "\n".join(remarks(config, build(config), photographs, selection, 9, ALONE))


def test_each_set_is_named_and_the_memory_estimated() -> None:
    told = said(keep(oblongs(2), (SET,)))
    assert told.startswith(
        "doors: 2 pictures, 2 boxed faces; official (YOLO text); terms: not stated\nmemory: about"
    )


def test_a_set_without_points_is_warned_about_unless_a_teacher_knows_them() -> None:
    bare = keep([replace(one, landmarks=np.full((1, 5, 2), np.nan, np.float32)) for one in oblongs(2)])
    assert "the five points are not learnt" in said(bare)
    assert "the five points" not in said(bare, config=SMALL)
    assert "the five points" not in said(keep([*bare.every, *oblongs(1)]))


def test_nothing_held_out_and_a_run_that_is_over_are_said() -> None:
    assert "0 pictures are held out for selection, without a face: ap" in said(keep(oblongs(2)), False)
    student = build(SMALL)
    student.step = 12
    told = remarks(SMALL, student, keep(oblongs(2)), oblongs(1), 9, ALONE)
    assert "12 steps are done already, the configuration asks for 9" in told


def test_too_little_memory_is_answered_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_memory", lambda device: 1000)
    assert "memory: about" not in said(keep(oblongs(2)))
    assert "are free" in said(keep(oblongs(2)))


def test_only_a_teacher_that_was_asked_for_is_missed() -> None:
    assert switched_off(SMALL) == []
    (line,) = switched_off(SMALL.model_copy(update={"teacher": DenseTeaching(weight=0.5)}))
    assert line.startswith("no dense teacher")
