"""Findings as a table that a person reads, edits and has applied: one line a face to drop or a pair to merge."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.cleaning import Findings
from training.data.identities import Faces, read_table
from training.data.pictures import BadData, EncodedPictures, members

HEADER = (
    "proposal",  # drop: the face leaves the set; merge: the identity becomes the other one
    "finding",  # copy, copy_across_identities, outlier, collision
    "shard",
    "file",
    "identity",
    "other_shard",  # the original of a copy
    "other_file",
    "other_identity",  # of the original; whom an outlier resembles most; with whom an identity collides
    "similarity",  # to the identity's other faces; of two identities
    "other_similarity",  # of an outlier to the other identity
)


@dataclass(frozen=True)
class Applied:
    """What became of train.csv."""

    dropped: int
    merged: int
    left: int
    identities: int
    backup: Path

    def __str__(self) -> str:
        return (
            f"{self.dropped:,} faces dropped, {self.merged:,} identities merged: {self.left:,} faces of "
            f"{self.identities:,} identities are left; the table before is {self.backup.name}"
        )


def write_proposals(file: Path, faces: Faces, found: Findings) -> int:
    """Write the table, most certain first within each finding. Returns the number of its lines.

    faces: with `EncodedPictures` of a face set's shards.
    """
    place = files_of(faces)
    lines: list[list[object]] = []
    for row in np.flatnonzero(found.copy_of >= 0).tolist():
        other = int(found.copy_of[row])
        across = "_across_identities" if faces.identity[row] != faces.identity[other] else ""
        who, whose = int(faces.identity[row]), int(faces.identity[other])
        lines.append(["drop", f"copy{across}", *place[row], who, *place[other], whose, "", ""])
    number = dict(zip(faces.label.tolist(), faces.identity.tolist(), strict=True))
    outliers = np.flatnonzero(found.outlier)
    for row in outliers[np.argsort(found.own[outliers], kind="stable")].tolist():
        numbers = f"{found.own[row]:.3f}", f"{found.foreign[row]:.3f}"
        whose = number[int(found.nearest[row])]
        lines.append(["drop", "outlier", *place[row], int(faces.identity[row]), "", "", whose, *numbers])
    for (one, other), alike in zip(found.colliding.tolist(), found.alike.tolist(), strict=True):
        lines.append(["merge", "collision", "", "", number[one], "", "", number[other], f"{alike:.3f}", ""])
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([HEADER, *lines])
    partial.replace(file)
    return len(lines)


def apply_proposals(root: Path, file: Path) -> Applied:
    """Write `root`'s train.csv without the faces to drop and with the identities to merge; the shards stay as they are.

    The table before is kept beside it. Raises BadData, and changes nothing, for a line that does not fit the set, for a
    merge of identities of two splits, and where fewer than two identities would be left.
    """
    table = read_table(root / "train.csv")
    drop, merge = _read(file)
    faces = set(zip(table["shard"], table["file"], strict=True))
    if stranger := next((of for of in drop if of not in faces), None):
        raise BadData(
            f"{file}: {stranger[0]}:{stranger[1]} is not in {root / 'train.csv'}; was it applied already?"
        )
    people = set(table["identity"])
    if gone := next((who for pair in merge.items() for who in pair if who not in people), None):
        raise BadData(f"{file}: identity {gone} is not in {root / 'train.csv'}; was it applied already?")
    becomes = {who: _end(merge, who) for who in merge}
    _within_splits(root, file, becomes)
    names = dict(zip(table["identity"], table.get("name", table["identity"]), strict=True))
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    kept = [row for row in rows if (row["shard"], row["file"]) not in drop]
    for row in kept:
        row["identity"] = becomes.get(row["identity"], row["identity"])
        if "name" in row:
            row["name"] = names[row["identity"]]
    left = {row["identity"] for row in kept}
    if len(left) < 2:
        raise BadData(f"{file}: would leave {len(left)} identities; a set needs two")
    backup = _replace(root / "train.csv", list(table), kept)
    return Applied(len(rows) - len(kept), len(merge), len(kept), len(left), backup)


def files_of(faces: Faces) -> list[tuple[str, str]]:
    """The shard and the file's name in it of each face, in the record's order."""
    pictures = faces.pictures
    if not isinstance(pictures, EncodedPictures):
        raise ValueError("decoded pictures do not know their files: read the set with decoded=0")
    shards = [Path(os.fsdecode(path)) for path in pictures.files]
    name = {
        (number, offset): (shard.name, file)
        for number, shard in enumerate(shards)
        for file, offset, _ in members(shard)
    }
    place = zip(pictures.place["file"].tolist(), pictures.place["offset"].tolist(), strict=True)
    return [name[of] for of in place]


def _read(file: Path) -> tuple[set[tuple[str, str]], dict[str, str]]:
    """The faces to drop, and which identity becomes which other."""
    if not file.is_file():
        raise BadData(f"{file}: no such file; let `clean` write it first")
    drop: set[tuple[str, str]] = set()
    merge: dict[str, str] = {}
    with file.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened)
        if missing := set(HEADER) - set(reader.fieldnames or ()):
            raise BadData(f"{file}:1: the columns {', '.join(sorted(missing))} are missing")
        for row in reader:
            match row["proposal"]:
                case "drop":
                    drop.add((row["shard"], row["file"]))
                case "merge":
                    one, other = _end(merge, row["identity"]), _end(merge, row["other_identity"])
                    if one != other:  # else a third line has made them one already
                        merge[one] = other
                case unknown:
                    raise BadData(f"{file}:{reader.line_num}: proposal {unknown!r}; expected drop or merge")
    return drop, merge


def _end(merge: Mapping[str, str], who: str) -> str:
    while who in merge:
        who = merge[who]
    return who


def _within_splits(root: Path, file: Path, becomes: Mapping[str, str]) -> None:
    if not (root / "split.csv").is_file():
        return
    table = read_table(root / "split.csv")
    split = dict(zip(table["identity"], table["split"], strict=True))
    for one, other in becomes.items():
        if split.get(one) != split.get(other):
            raise BadData(
                f"{file}: identity {one} is of the split {split.get(one)}, {other} of {split.get(other)}: not merged, "
                "because earlier figures rest on the split; drop the faces of one"
            )


def _replace(table: Path, columns: list[str], rows: list[dict[str, str]]) -> Path:
    """Put the rows in the table's place at once. Returns where the table before lies."""
    number = 1
    while (backup := table.with_name(f"train.before-cleaning-{number}.csv")).exists():
        number += 1
    partial = table.with_name("train.csv.cleaned")
    with partial.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows(rows)
        opened.flush()
        os.fsync(opened.fileno())
    shutil.copy2(table, backup)
    partial.replace(table)
    return backup
