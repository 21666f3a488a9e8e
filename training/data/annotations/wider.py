"""WIDER FACE and what is written like it: the official text and `.mat`, RetinaFace's `label.txt`, tables with shards.

Boxes are x, y, width, height in whole pixels. The official files say of a picture without a face that it has one of
0 0 0 0; it is read as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training.data.annotations.entries import Annotations, Entry, Finding, Place, Row, entry
from training.data.annotations.folders import Named, listed
from training.data.annotations.mat import load
from training.data.pictures import SUFFIXES, BadData, members

INVALID = 7  # of x y w h blur expression illumination invalid occlusion pose
UNKNOWN = -1.0  # a landmark's x and y where nobody marked it


def read_text(file: Path, pictures: Path | None = None) -> Annotations:
    """`wider_face_*_bbx_gt.txt`: a picture's name, the number of its faces, a line for each."""
    blocks, findings = _blocks(file, lambda line: line if line.lower().endswith(SUFFIXES) else None)
    return listed(file, "WIDER FACE text", map(_counted, blocks), pictures, findings)


def read_retinaface(file: Path, pictures: Path | None = None) -> Annotations:
    """`label.txt`: `# name`, then for each face its box, five landmarks (x, y, flag) and a score, or the box alone.

    Landmarks are centres of pixels.
    """
    blocks, findings = _blocks(file, lambda line: line[1:].strip() if line.startswith("#") else None)
    return listed(file, "RetinaFace text", map(_marked, blocks), pictures, findings)


Block = tuple[
    str, str, list[tuple[str, str]]
]  # a picture's name, its place, and the places and lines below it


def _blocks(file: Path, name_of: Any) -> tuple[list[Block], list[Finding]]:
    blocks: list[Block] = []
    findings = []
    for number, text in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        where, line = f"{file}:{number}", text.strip()
        if name := name_of(line):
            blocks.append((name, where, []))
        elif line and blocks:
            blocks[-1][2].append((where, line))
        elif line:
            findings.append(Finding("malformed", where, f"before the first picture's name: {line[:60]}"))
    return blocks, findings


def _counted(block: Block) -> Named:
    name, where, lines = block
    (_, announced), *given = lines or [(where, "")]
    rows: list[Row] = []
    findings = []
    for place, line in given:
        values = _numbers(line)
        if values is None or len(values) < 4:
            findings.append(Finding("malformed", place, f"not a box: {line[:60]}"))
        elif any(values) or len(given) > 1:
            rows.append(_row(place, values, ignored=len(values) > INVALID and bool(values[INVALID])))
    if announced not in {str(len(rows)), str(len(given))} and not findings:
        findings.append(Finding("malformed", where, f"{len(given)} lines of boxes, {announced!r} announced"))
    return Named(name, where, rows, findings)


def _marked(block: Block) -> Named:
    name, where, lines = block
    rows, findings = [], []
    for place, line in lines:
        values = _numbers(line)
        if values is None or (len(values) != 4 and len(values) < 19):
            findings.append(Finding("malformed", place, f"not a box with five landmarks: {line[:60]}"))
            continue
        points = np.array(values[4:19]).reshape(-1, 3)[:, :2]
        known = len(points) == 5 and not (points == UNKNOWN).all(1).any()
        rows.append(_row(place, values, landmarks=(points + 0.5).ravel().tolist() if known else None))
    return Named(name, where, rows, findings)


def _numbers(line: str) -> list[float] | None:
    try:
        return [float(value) for value in line.split()]
    except ValueError:
        return None


def _row(where: str, values: Iterable[float], ignored: bool = False, landmarks: Any = None) -> Row:
    x, y, width, height, *_ = values
    return Row(where, (x, y, x + width, y + height), ignored, landmarks)


def read_mat(file: Path, pictures: Path | None = None) -> Annotations:
    """`wider_face_train.mat`, `wider_face_val.mat`: events, pictures without suffix, boxes and flags in cells."""
    lists = load(file, ("event_list", "file_list", "face_bbx_list", "invalid_label_list"))
    try:
        events, files, boxes = (lists[of][:, 0] for of in ("event_list", "file_list", "face_bbx_list"))
        invalid = lists["invalid_label_list"][:, 0] if "invalid_label_list" in lists else [None] * len(events)
        named = list(_cells(file, events, files, boxes, invalid))
    except (ValueError, LookupError, TypeError) as error:
        raise BadData(
            f"{file}: not the list of WIDER FACE's pictures and boxes ({type(error).__name__}: {error}); copy it "
            "again, or name the text of the same list"
        ) from error
    return listed(file, "WIDER FACE .mat", named, pictures)


def _cells(file: Path, events: Any, files: Any, boxes: Any, invalid: Any) -> Iterator[Named]:
    for event, names, rows_of, flags_of in zip(events, files, boxes, invalid, strict=True):
        for index, name in enumerate(names[:, 0]):
            if not (isinstance(event, str) and isinstance(name, str)):
                raise TypeError("a picture's name is no text")
            picture = f"{event}/{name}"
            values = np.asarray(rows_of[index, 0], np.float64)
            flags = np.zeros(len(values)) if flags_of is None else np.ravel(flags_of[index, 0])
            where = f"{file}: {picture}"
            if values.ndim != 2 or values.shape[1] != 4 or len(flags) != len(values):
                yield Named(picture, where, [], [Finding("malformed", where, "not a list of boxes")])
            elif len(values) == 1 and not values.any():
                yield Named(picture, where, [])
            else:
                pairs = enumerate(zip(values.tolist(), flags, strict=True), 1)
                rows = [_row(f"{where}, box {n}", box, bool(flag)) for n, (box, flag) in pairs]
                yield Named(picture, where, rows)


def read_shards(root: Path) -> Annotations:
    """`annotations.json` by picture, beside tar shards: width, height, boxes of x, y, w, h and a fifth number.

    Where a note names its `shard`, the fifth number flags a face as invalid, as WIDER does, and the shard calls the
    picture without the split that its name begins with; else it is a kind of face, and every face counts.
    """
    file = root / "annotations.json"
    places, findings = _members(root)
    anywhere = {inside: (shard, inside) for shard, inside in places}
    entries = []
    for name, note in _notes(file).items():
        where, shard = f"{file}: {name}", str(note.get("shard") or "")
        key = (shard, name.partition("/")[2]) if shard else anywhere.get(name)
        if key in places:
            entries.append(_noted(name, places.pop(key), where, note, flags=bool(shard)))
        else:
            findings.append(Finding("no_picture", where, f"not in {shard or 'the shards'}"))
    over = [of for of in places if of[1].lower().endswith(SUFFIXES)]
    findings += [Finding("no_annotation", f"{root / shard}: {inside}", "no note") for shard, inside in over]
    entries.sort(key=lambda of: of.place)
    return Annotations("notes with tar shards", root, tuple(entries), tuple(findings))


def _members(root: Path) -> tuple[dict[Any, Place], list[Finding]]:
    places: dict[Any, Place] = {}
    findings = []
    for shard in sorted(root.glob("*.tar")):
        for name, offset, length in members(shard):
            if (shard.name, name) in places:
                findings.append(Finding("named_twice", f"{shard}: {name}", "the first of them is read"))
            places.setdefault((shard.name, name), (shard, offset, length))
    return places, findings


def _notes(file: Path) -> dict[str, dict[str, Any]]:
    try:
        notes = json.loads(file.read_text("utf-8-sig"))
    except ValueError as error:
        raise BadData(f"{file}: not JSON ({error})") from error
    if isinstance(notes, dict) and isinstance(notes.get("terms"), str):
        del notes["terms"]  # see terms.py
    if not isinstance(notes, dict) or not all(isinstance(note, dict) for note in notes.values()):
        raise BadData(f"{file}: expected a note of width, height and boxes for each picture's name")
    return notes


def _noted(name: str, place: Place, where: str, note: dict[str, Any], *, flags: bool) -> Entry:
    rows: list[Row] = []
    findings = []
    boxes = note.get("boxes")
    if not isinstance(boxes, list):
        findings.append(Finding("malformed", where, "no list of boxes"))
        boxes = []
    for number, values in enumerate(boxes, 1):
        try:
            *box, last = map(float, values)
            rows.append(_row(f"{where}, box {number}", box, ignored=flags and bool(last)))
        except (TypeError, ValueError, OverflowError):
            findings.append(Finding("malformed", f"{where}, box {number}", f"not five numbers: {values!r}"))
    try:
        size = int(note["width"]), int(note["height"])
    except (KeyError, TypeError, ValueError, OverflowError):
        findings.append(Finding("malformed", where, "no width and height"))
        size = None
    return entry(name, place, rows, size=size, findings=findings)
