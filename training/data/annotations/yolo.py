"""YOLO text: a file a picture; a line a face: class, centre, width and height as fractions of the picture, and five
landmarks, with or without a flag each.

An empty file says that there is no face. Names of classes are numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.annotations.entries import Annotations, Finding, Row, entry
from training.data.annotations.folders import classes, paired

BESIDES = {"classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt"}  # what such folders hold besides
_LENGTHS = (5, 15, 20)  # a box; five points; five points with flags


def read_yolo(root: Path, pictures: Path | None = None, faces: Sequence[str] | None = None) -> Annotations:
    """Labels below `root`, whose pictures lie beside them, in a twin folder `images`, or below `pictures`.

    faces: the classes that are faces, needed where there are several. Landmarks of −1, or flagged 0, are unknown.
    Raises BadData where nobody can tell which class is a face.
    """
    pairs, findings = paired(root, pictures, ".txt", BESIDES)
    read = [_lines(pair.annotation) for pair in pairs]
    found = Counter(name for lines, _ in read for name, _ in lines)
    chosen, others = classes(root, found, faces)
    entries = [
        entry(
            pair.name,
            (pair.picture, 0, -1),
            [row for name, row in lines if name in chosen],
            relative=True,
            findings=wrong,
        )
        for pair, (lines, wrong) in zip(pairs, read, strict=True)
    ]
    return Annotations("YOLO text", root, tuple(entries), (*findings, *others))


def _lines(file: Path) -> tuple[list[tuple[str, Row]], list[Finding]]:
    rows, findings = [], []
    for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            name, *values = line.split()
            rows.append((str(int(float(name))), _row(where, list(map(float, values)))))
        except (ValueError, OverflowError):
            detail = f"expected a class and {', '.join(str(n - 1) for n in _LENGTHS)} numbers: {line[:60]}"
            findings.append(Finding("malformed", where, detail))
    return rows, findings


def _row(where: str, values: list[float]) -> Row:
    if len(values) + 1 not in _LENGTHS:
        raise ValueError(f"{len(values)} numbers")
    x, y, width, height, *rest = values
    points = np.array(rest).reshape(5, -1) if rest else np.zeros((0, 2))
    known = len(points) == 5 and not (points[:, :2] < 0).all(1).any() and bool((points[:, 2:] > 0).all())
    box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return Row(where, box, landmarks=points[:, :2].ravel().tolist() if known else None)


def is_yolo(root: Path) -> bool:
    """Whether some text file below `root` begins as a label does, or is empty beside others."""
    for file in root.rglob("*.txt"):
        if file.name not in BESIDES:
            with file.open(encoding="utf-8-sig", errors="replace") as opened:
                first = opened.readline().split()
            try:
                return not first or len(list(map(float, first))) in _LENGTHS
            except ValueError:
                continue
    return False
