"""A run that goes on with something else says so, and with other people it does not go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.embedder.runs import at_step, interrupt
from tests.training.embedder.tiny import tiny
from training.data.identities import Faces
from training.embedder import train as run
from training.embedder.changes import changes
from training.embedder.student import Before
from training.embedder.train import train
from training.loop import checkpoint
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.distributed import ALONE, World
from training.loop.records import FaceRecord

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")
PEOPLE = FaceRecord(name="mine", identities=391, faces=782, digest="ab" * 32, labels="official")
LAST = Path("run/last.pt")


def told(before: dict[str, Any], people: FaceRecord = PEOPLE, world: World = ALONE, **now: Any) -> list[str]:
    """What is said to a run of tiny() that was made with `before` on PEOPLE."""
    processes = before.pop("processes", 1)
    was = Before({**tiny().model_dump(), **before}, PEOPLE, processes)
    return changes(LAST, was, people, tiny(**now), world)


def test_where_nothing_changed_nothing_is_said() -> None:
    assert told({}) == []
    assert told({"processes": None}, world=World(0, 2)) == []
    assert told({"epochs": 7.0, "seed": 3}) == []


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "cd" * 32, "name": "others"},
        {"digest": "cd" * 32, "faces": 781},
        {"identities": 392},
    ],
)
def test_other_people_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(
        UnreadableCheckpoint, match=r"knows other people: those of mine \(391 .*; use another --run"
    ):
        told({}, PEOPLE.model_copy(update=other))


def test_the_same_set_written_anew_goes_on_loudly_and_a_moved_one_in_silence() -> None:
    (line,) = told({}, PEOPLE.model_copy(update={"digest": "cd" * 32}))
    assert "taken for the same set, written anew; if these are other people, stop here" in line
    assert told({}, PEOPLE.model_copy(update={"name": "elsewhere", "terms": "for research"})) == []


def test_a_checkpoint_that_does_not_say_whose_centres_it_has_goes_on_loudly() -> None:
    (line,) = changes(LAST, Before({}, None, None), PEOPLE, tiny(), ALONE)
    assert line.startswith("run/last.pt does not say whose class centres it has")


def test_another_step_is_one_line_that_says_what_it_means() -> None:
    (line,) = told({"batch": 8})
    assert line.startswith("goes on with batch 4 instead of 8: a step is 4 faces instead of 8")
    assert "class centres" not in line
    (line,) = told({"batch": 8}, world=World(0, 2))
    assert (
        "processes 2 instead of 1: a step is still 8 faces: data and schedule go on where they were" in line
    )
    (line,) = told({}, head={"name": "cosface", "weight": 1.0})
    assert line == (
        "goes on with head.name cosface instead of arcface: "
        "class centres and the optimiser's memory are still arcface's"
    )


def test_a_refused_training_leaves_the_checkpoint(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path, drawn_faces, drawn_faces)
    before = (tmp_path / "last.pt").read_bytes()
    monkeypatch.setattr(run, "face_record", lambda faces: PEOPLE.model_copy(update={"identities": 4}))
    with pytest.raises(UnreadableCheckpoint, match="knows other people"):
        train(tiny(), tmp_path, drawn_faces, drawn_faces)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_the_number_of_processes_is_recorded(tmp_path: Path, drawn_faces: Faces) -> None:
    last = train(tiny(), tmp_path, drawn_faces, drawn_faces)
    assert checkpoint.load(last)["processes"] == 1


def test_a_training_goes_on_with_half_the_batch_and_says_so(
    tmp_path: Path, drawn_faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(epochs=1.0), tmp_path, drawn_faces, drawn_faces)
    capsys.readouterr()
    train(tiny(batch=2), tmp_path, drawn_faces, drawn_faces)
    assert "goes on with batch 2 instead of 4" in capsys.readouterr().err
