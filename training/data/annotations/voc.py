"""Pascal VOC: an XML file a picture, with the first and last column and row of each object, counted from 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from training.data.annotations.entries import Annotations, Finding, Row, entry
from training.data.annotations.folders import classes, paired

_EDGES = ("xmin", "ymin", "xmax", "ymax")

Read = tuple[list[tuple[str, Row]], tuple[int, int] | None, list[Finding]]


def read_voc(root: Path, pictures: Path | None = None, faces: Sequence[str] | None = None) -> Annotations:
    """Objects in the XML files below `root`, whose pictures lie beside them, in a twin folder (Annotations,
    JPEGImages), or below `pictures`. A difficult object is ignored.

    faces: the classes that are faces; needed where no class is called so. Raises BadData where nobody can tell.
    A program that counts from 0 is up to a pixel off, which nobody is told.
    """
    pairs, findings = paired(root, pictures, ".xml")
    read = [_objects(pair.annotation) for pair in pairs]
    found = Counter(name for objects, _, _ in read for name, _ in objects)
    chosen, others = classes(root, found, faces)
    entries = [
        entry(
            pair.name,
            (pair.picture, 0, -1),
            [row for name, row in objects if name in chosen],
            size=size,
            findings=wrong,
        )
        for pair, (objects, size, wrong) in zip(pairs, read, strict=True)
    ]
    return Annotations("Pascal VOC", root, tuple(entries), (*findings, *others))


def _objects(file: Path) -> Read:
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter of unusual encodings
        return [], None, [Finding("malformed", str(file), f"not XML ({error})")]
    if root.tag != "annotation":
        return [], None, [Finding("malformed", str(file), f"no VOC annotation, but <{root.tag}>")]
    objects: list[tuple[str, Row]] = []
    findings: list[Finding] = []
    for number, of in enumerate(root.iter("object"), 1):
        where = f"{file}, object {number}"
        try:
            left, top, right, bottom = (float(of.findtext(f"bndbox/{edge}", "")) for edge in _EDGES)
        except ValueError:
            findings.append(Finding("malformed", where, f"no {', '.join(_EDGES)}"))
            continue
        difficult = of.findtext("difficult", "0").strip() == "1"
        # The last column is the box's too, so it ends where the next begins.
        row = Row(where, (left - 1, top - 1, right, bottom), difficult)
        objects.append((of.findtext("name", "").strip(), row))
    try:
        size = int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
    except ValueError:
        return objects, None, findings
    return (
        objects,
        size if min(size) > 0 else None,
        findings,
    )  # some programs write 0 for what they do not know
