"""What a person approved happens to train.csv, and nothing else; the shards and the table before stay."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from training.data.cleaning import Findings
from training.data.identities import load_faces
from training.data.pictures import BadData
from training.data.proposals import HEADER, apply_proposals, files_of, write_proposals


@pytest.fixture
def faces(tmp_path: Path, drawn_sets) -> Path:
    """A drawn set: 6 people to train on with 4 pictures each, and the other splits."""
    return Path(shutil.copytree(drawn_sets.root / "faces", tmp_path / "faces"))


def nothing(count: int) -> Findings:
    return Findings(
        own=np.ones(count, np.float32),
        copy_of=np.full(count, -1),
        outlier=np.zeros(count, bool),
        nearest=np.full(count, -1),
        foreign=np.full(count, np.nan, np.float32),
        colliding=np.zeros((0, 2), np.int64),
        alike=np.zeros(0, np.float32),
    )


def lines(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def table(file: Path, *rows: dict[str, object]) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return file


def drop(of: dict[str, str]) -> dict[str, object]:
    return {"proposal": "drop", "finding": "outlier", "shard": of["shard"], "file": of["file"]}


def merge(one: object, other: object) -> dict[str, object]:
    return {"proposal": "merge", "finding": "collision", "identity": one, "other_identity": other}


def test_each_finding_is_a_line_with_its_files_and_numbers(faces: Path, tmp_path: Path) -> None:
    read = load_faces(faces, "train", decoded=0)
    found = nothing(len(read))
    found.copy_of[[1, 9]] = 0, 2  # a copy inside identity 0, and one in identity 2
    found.outlier[[4, 6]] = True
    found.own[[4, 6]] = 0.15, -0.1
    found.nearest[[4, 6]], found.foreign[[4, 6]] = 3, 0.4
    found = Findings(**{**vars(found), "colliding": np.array([[5, 4]]), "alike": np.array([0.81])})
    assert write_proposals(tmp_path / "new" / "proposals.csv", read, found) == 5
    rows = lines(tmp_path / "new" / "proposals.csv")
    assert [(of["proposal"], of["finding"], of["file"], of["other_file"]) for of in rows] == [
        ("drop", "copy", "000000/0001.webp", "000000/0000.webp"),
        ("drop", "copy_across_identities", "000002/0001.webp", "000000/0002.webp"),
        ("drop", "outlier", "000001/0002.webp", ""),  # the least like its people first
        ("drop", "outlier", "000001/0000.webp", ""),
        ("merge", "collision", "", ""),
    ]
    assert (rows[2]["identity"], rows[2]["other_identity"], rows[2]["similarity"]) == ("1", "3", "-0.100")
    assert (rows[4]["identity"], rows[4]["other_identity"], rows[4]["similarity"]) == ("5", "4", "0.810")


def test_files_are_those_that_the_table_names(faces: Path) -> None:
    read = load_faces(faces, "validation", decoded=0)
    named = [(of["shard"], of["file"]) for of in lines(faces / "train.csv")]
    of_split = [row for row in named if 100_000 <= int(row[1].split("/")[0]) < 200_000]
    assert files_of(read) == of_split
    with pytest.raises(ValueError, match="decoded=0"):
        files_of(load_faces(faces, "validation"))


def test_applied_faces_go_and_identities_become_one(faces: Path, tmp_path: Path) -> None:
    before = (faces / "train.csv").read_bytes()
    shard = (faces / "train-000.tar").read_bytes()
    gone = lines(faces / "train.csv")[5]
    proposals = table(tmp_path / "p.csv", drop(gone), merge(2, 1), merge(3, 2))
    done = apply_proposals(faces, proposals)
    assert (done.dropped, done.merged, done.identities) == (1, 2, 6 - 2 + 12 + 60)
    read = load_faces(faces, "train")
    assert len(read) == 23
    assert np.bincount(read.identity).tolist() == [4, 11, 0, 0, 4, 4]  # 3 and 2 are 1, less one face
    assert len(load_faces(faces, "validation")) == 48
    assert done.backup.read_bytes() == before
    assert (faces / "train-000.tar").read_bytes() == shard


def test_tables_that_a_spreadsheet_saved_with_a_byte_order_mark_are_read(faces: Path, tmp_path: Path) -> None:
    proposals = table(tmp_path / "p.csv", drop(lines(faces / "train.csv")[5]))
    for file in (proposals, faces / "train.csv", faces / "split.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert apply_proposals(faces, proposals).dropped == 1
    assert len(load_faces(faces, "train")) == 23


def test_a_set_with_names_takes_the_name_of_whom_an_identity_becomes(faces: Path, tmp_path: Path) -> None:
    rows = lines(faces / "train.csv")
    with (faces / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "name"])
        writer.writeheader()
        writer.writerows({**row, "name": f"name {row['identity']}"} for row in rows)
    apply_proposals(faces, table(tmp_path / "p.csv", merge(2, 1)))
    assert load_faces(faces, "train").people.tolist() == [f"name {n}" for n in (0, 1, 3, 4, 5)]


def test_every_application_keeps_the_table_before_it(faces: Path, tmp_path: Path) -> None:
    rows = lines(faces / "train.csv")
    backups = [apply_proposals(faces, table(tmp_path / "p.csv", drop(rows[n]))).backup for n in (0, 1)]
    assert [len(lines(backup)) for backup in backups] == [len(rows), len(rows) - 1]


def test_merges_that_go_round_are_one_identity(faces: Path, tmp_path: Path) -> None:
    done = apply_proposals(faces, table(tmp_path / "p.csv", merge(1, 2), merge(2, 3), merge(3, 1)))
    assert done.merged == 2
    assert np.bincount(load_faces(faces, "train").identity).max() == 12


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"proposal": "drop", "shard": "train-000.tar", "file": "none"}], "none is not in .*train.csv"),
        ([merge(1, 77)], "identity 77 is not in"),
        ([merge(1, 100_000)], "identity 1 is of the split train, 100000 of validation: not merged"),
        ([{"proposal": "burn"}], r"p.csv:3: proposal 'burn'; expected drop or merge"),
    ],
)
def test_a_line_that_does_not_fit_changes_nothing(
    faces: Path, tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    before = {of.name: of.read_bytes() for of in faces.iterdir()}
    good = drop(lines(faces / "train.csv")[0])
    with pytest.raises(BadData, match=message):
        apply_proposals(faces, table(tmp_path / "p.csv", good, *rows))
    assert {of.name: of.read_bytes() for of in faces.iterdir()} == before


def test_other_tables_are_refused(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no such file"):
        apply_proposals(faces, tmp_path / "absent.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadData, match=r"other.csv:1: the columns .* are missing"):
        apply_proposals(faces, tmp_path / "other.csv")


def test_a_set_is_never_cleaned_down_to_one_person(faces: Path, tmp_path: Path) -> None:
    rows = [of for of in lines(faces / "train.csv") if of["identity"] != "0"]
    with pytest.raises(BadData, match="would leave 1 identities; a set needs two"):
        apply_proposals(faces, table(tmp_path / "p.csv", *map(drop, rows)))
