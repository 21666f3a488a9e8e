"""What an embedder's run learns from now: its faces, and the teacher whose embeddings it is drawn to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bundle.folder import digest_of
from training.data.annotations.terms import terms_of
from training.data.identities import Faces
from training.embedder.distillation import Teacher
from training.loop.records import NOT_RECORDED, FaceRecord, LearntFrom, TeacherRecord, united

REFERENCE = (
    "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507"  # foamliu/MobileFaceNet, of MS1M
)
IN_MEMORY = "made in memory"  # the name of what was not read from a file
LISTED = 20  # sources of a set: some have one for every picture


def latest_set(learnt: LearntFrom) -> FaceRecord | None:
    """The set whose people a run's class centres are: the one that it learnt from last. None where none is recorded."""
    sets = [of for of in learnt if isinstance(of, FaceRecord) and of.name != NOT_RECORDED]
    return sets[-1] if sets else None


def same_people(one: FaceRecord, other: FaceRecord) -> bool:
    """Whether identity i is the same person in both, as far as the sets' files tell."""
    return (one.digest, one.identities) == (other.digest, other.identities)


def latest_last(earlier: LearntFrom, now: LearntFrom) -> LearntFrom:
    """All of them, each once, and at the end what is learnt from now."""
    return united(tuple(of for of in earlier if of not in now), now)


def face_record(faces: Faces) -> FaceRecord:
    """Counts are of `faces`, which may be a split of the set; digest and terms are of the set."""
    names, count = np.unique(faces.source, return_counts=True)
    sources = [str(names[place]) for place in np.argsort(-count, kind="stable")[:LISTED]]
    name = faces.root.resolve().name if faces.root else IN_MEMORY
    told = (
        {"digest": _digest(faces.root), "terms": terms_of(faces.root.absolute())}
        if faces.root
        else {"digest": ""}
    )
    return FaceRecord(
        name=name,
        identities=faces.identities,
        faces=len(faces),
        labels="official",
        sources=() if sources == [name] else tuple(sources),
        **told,
    )


def teacher_record(teacher: Teacher) -> TeacherRecord:
    """Terms are those of a file TERMS beside the teacher's."""
    if teacher.path is None:
        return TeacherRecord(name=IN_MEMORY, sha256=teacher.digest)
    return TeacherRecord(
        name=teacher.path.name, sha256=digest_of(teacher.path), terms=terms_of(teacher.path.absolute())
    )


def _digest(root: Path) -> str:
    """Hexadecimal, of train.csv, or of the names and sizes of a set's files."""
    if (root / "train.csv").is_file():
        return digest_of(root / "train.csv")
    files = sorted(of for of in root.rglob("*") if of.is_file()) if root.is_dir() else [root]
    listed = "".join(f"{of.relative_to(root.parent).as_posix()} {of.stat().st_size}\n" for of in files)
    return hashlib.sha256(listed.encode()).hexdigest()
