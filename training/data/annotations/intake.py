"""From what a set says to photographs: pictures are decoded, and what cannot be used is left out aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from training.data.annotations.entries import DONE, Annotations, Entry, Finding, Kind, judged, lost
from training.data.photographs import Photograph, shrunk
from training.data.pictures import BadData, read_bytes
from training.data.raw_photographs import read_photograph

TOLERATED = 0.01  # share of pictures that is left out and reported; beyond it the set is refused


def look(of: Entry, longest: int | None = None) -> tuple[Photograph | None, tuple[Finding, ...]]:
    """The entry's photograph, scaled down to `longest` pixels, or None where it is left out; and what is wrong."""
    file, offset, length = of.place
    where = f"{file}: {of.name}" if length >= 0 else str(file)
    try:
        pixels = read_photograph(read_bytes(file, offset, length))
    except (BadData, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return None, (*of.findings, Finding("unreadable", where, str(why)))
    height, width = pixels.shape[:2]
    if of.size is not None and of.size != (width, height):
        stated = f"{width} × {height} pixels, annotated as {of.size[0]} × {of.size[1]}"
        return None, (*of.findings, Finding("wrong_size", where, stated))
    found = judged(of, width, height)
    if any(lost(one) for one in found.findings):
        return None, found.findings
    pixels, scale = shrunk(pixels, longest)
    half, kept = np.float32(0.5), np.float32(scale)
    boxes, landmarks = ((one + half) * kept - half for one in (found.boxes, found.landmarks))
    return Photograph(of.name, pixels, scale, boxes, found.ignored, landmarks), found.findings


def photographs(
    of: Annotations, longest: int | None = None, tolerated: float = TOLERATED
) -> Iterator[Photograph]:
    """The set's photographs in order, a picture decoded at a time; what was left out is printed in the end.

    Raises BadData where more than the share `tolerated` is left out.
    """
    found = list(of.findings)
    given = left_out = 0
    for one in of.entries:
        photograph, findings = look(one, longest)
        found += findings
        if photograph is not None:
            given += 1
            yield photograph
            continue
        left_out += 1
        if left_out > tolerated * len(of.entries):
            raise BadData(refusal(of, left_out, next(one for one in findings if lost(one))))
    if found:
        tqdm.write("\n  ".join([f"{of.source}: {given:,} photographs of {of.form}", *tallied(found)]))


def refusal(of: Annotations, left_out: int, first: Finding) -> str:
    return (
        f"{of.source}: {left_out} of {len(of.entries)} pictures cannot be used, among them {first}; mend or remove "
        "them (`check-boxes` lists them all)"
    )


def tallied(found: Iterable[Finding]) -> list[str]:
    """A line for each kind: how many, what is done, and the first of them."""
    first: dict[Kind, Finding] = {}
    counts: Counter[Kind] = Counter()
    for one in found:
        counts[one.kind] += 1
        first.setdefault(one.kind, one)
    return [
        f"{counts[kind]:,} {kind} ({DONE[kind]}), the first: {first[kind].where}: {first[kind].detail}"
        for kind in sorted(counts, key=list(DONE).index)
    ]
