"""A run's faces and its teacher are recorded with their terms, whatever form the set has and wherever it lies."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.embedder.tiny import Colours, tiny
from training.data.identities import Faces, load_faces
from training.data.pictures import encode_face
from training.data.sources import open_faces
from training.data.synthetic import TERMS
from training.embedder import records
from training.embedder.records import IN_MEMORY, REFERENCE, face_record, teacher_record
from training.embedder.train import train
from training.export.checkpoints import trained_embedder
from training.loop import checkpoint
from training.loop.records import LEARNT_FROM, TeacherRecord

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


def folder_of_faces(root: Path, people: int = 3) -> Path:
    for who in range(people):
        (root / f"p{who}").mkdir(parents=True)
        for n in range(2):
            picture = np.full((112, 112, 3), 20 * who + n, np.uint8)
            (root / f"p{who}" / f"{n}.png").write_bytes(encode_face(picture, ".png"))
    return root


def test_a_split_of_a_set_has_its_own_counts_and_the_set_s_digest_and_terms(drawn_sets) -> None:
    root = drawn_sets.root / "faces"
    train_of, validation = (face_record(load_faces(root, split)) for split in ("train", "validation"))
    assert (train_of.name, train_of.identities, train_of.faces) == ("faces", 6, 24)
    assert (validation.identities, validation.faces) == (12, 48)
    assert (
        train_of.digest == validation.digest == hashlib.sha256((root / "train.csv").read_bytes()).hexdigest()
    )
    assert (train_of.terms, train_of.labels, train_of.sources) == (TERMS, "official", ("drawn",))


def test_a_set_without_tables_is_known_by_its_files(tmp_path: Path) -> None:
    root = folder_of_faces(tmp_path / "friends")
    before = face_record(open_faces(root))
    assert before == face_record(open_faces(root))
    assert (before.name, before.identities, before.faces) == ("friends", 3, 6)
    assert (before.sources, before.terms) == ((), "not stated")
    (root / "p0" / "9.png").write_bytes((root / "p0" / "0.png").read_bytes())
    (tmp_path / "TERMS").write_text("licence: commercial; they agreed")
    after = face_record(open_faces(root))
    assert after.digest != before.digest
    assert after.terms == "licence: commercial; they agreed"


def test_sources_are_listed_the_largest_first_and_not_without_end(
    drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = replace(drawn_faces, source=np.array(["few"] * 3 + ["most"] * 9 + ["more"] * 4))
    assert face_record(some).sources == ("most", "more", "few")
    monkeypatch.setattr(records, "LISTED", 2)
    assert face_record(some).sources == ("most", "more")
    assert face_record(some).name == IN_MEMORY


def test_a_teacher_is_its_file_with_the_terms_beside_it(tmp_path: Path) -> None:
    teacher = Colours()
    assert teacher_record(teacher) == TeacherRecord(name=IN_MEMORY, sha256=teacher.digest)
    (tmp_path / "colours.onnx").write_bytes(b"weights")
    teacher.path = tmp_path / "colours.onnx"
    told = teacher_record(teacher)
    assert (told.name, told.terms) == ("colours.onnx", "not stated")
    assert told.sha256 == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "TERMS").write_text("for research\n")
    assert teacher_record(teacher).terms == "for research"


@pytest.mark.needs_data
def test_the_reference_embedder_is_known_by_its_digest(datasets: Path) -> None:
    file = datasets / "reference" / "MobileFaceNet.onnx"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == REFERENCE


DISTILLED = {"distillation": {"weight": 1.0}}


def names(file: Path) -> list[str]:
    return [of["name"] for of in checkpoint.load(file)[LEARNT_FROM]]


def test_what_an_earlier_run_learnt_from_stays_recorded(tmp_path: Path, drawn_faces: Faces) -> None:
    """A run with a teacher; another that begins with it, with a set in a folder; a third that goes back."""
    teacher, friends = Colours(), open_faces(folder_of_faces(tmp_path / "friends", people=4))
    first = train(tiny(**DISTILLED, epochs=1), tmp_path / "first", drawn_faces, drawn_faces, teacher)
    second = train(tiny(epochs=2.5), tmp_path / "second", friends, friends, begin=first)
    assert names(second) == [IN_MEMORY, IN_MEMORY, "friends"]
    assert [of["kind"] for of in checkpoint.load(second)[LEARNT_FROM]] == ["faces", "teacher", "faces"]
    third = train(tiny(), tmp_path / "third", drawn_faces, drawn_faces, begin=second)
    assert names(third) == [IN_MEMORY, "friends", IN_MEMORY]  # what is learnt from now is the last
    assert [of["kind"] for of in checkpoint.load(third)[LEARNT_FROM]] == ["teacher", "faces", "faces"]


def test_a_teacher_that_is_not_learnt_from_is_not_recorded(tmp_path: Path, drawn_faces: Faces) -> None:
    assert names(train(tiny(), tmp_path, drawn_faces, drawn_faces, Colours())) == [IN_MEMORY]


@pytest.mark.parametrize("begun", [True, False])
def test_a_checkpoint_older_than_records_is_gone_on_from_and_said_to_be(
    begun: bool, tmp_path: Path, drawn_faces: Faces
) -> None:
    last = train(tiny(epochs=1), tmp_path / "old", drawn_faces, drawn_faces)
    state = checkpoint.load(last)
    del state[LEARNT_FROM]
    checkpoint.save(last, state)
    (unknown,) = trained_embedder(last).records
    assert str(unknown) == "not recorded: unknown, of the first 4 steps; terms: not stated"
    run, begin = (tmp_path / "new", last) if begun else (tmp_path / "old", None)
    assert names(train(tiny(), run, drawn_faces, drawn_faces, begin=begin)) == ["not recorded", IN_MEMORY]
