"""What is wrong with a set of boxed photographs, before a training finds out: every picture and every box is looked at.

`python -m training check-boxes SET …` prints a line for each finding and ends with 1 where a set would be refused, or
where two sets show the same picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.data.annotations.entries import Annotations, Finding, lost
from training.data.annotations.intake import TOLERATED, look, refusal, tallied
from training.data.annotations.sources import SUPPORTED, open_annotations
from training.data.likeness import difference_hash, near_pairs

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


@dataclass(frozen=True, eq=False)
class Report:
    """Of one set. pictures: that can be used, `without` of them without a face; boxes, `ignored` of them neither face
    nor background, `marked` of them with landmarks; refused: why a training would not take the set, or None.

    names, hashes bool [n, 256]: of every picture that could be read, for `copies`.
    """

    form: str
    source: Path
    pictures: int
    without: int
    boxes: int
    ignored: int
    marked: int
    findings: tuple[Finding, ...]
    refused: str | None
    names: tuple[str, ...]
    hashes: npt.NDArray[np.bool_]

    def __str__(self) -> str:
        found = (
            f"{self.source}: {self.form}, {self.pictures:,} pictures ({self.without:,} without a face), "
            f"{self.boxes:,} boxes ({self.ignored:,} ignored, {self.marked:,} with landmarks)"
        )
        return "\n  ".join(
            [found, *tallied(self.findings), *([f"refused: {self.refused}"] * bool(self.refused))]
        )


def check(of: Annotations, tolerated: float = TOLERATED) -> Report:
    """Look at every picture of the set; its own copies are among the findings."""
    findings = list(of.findings)
    names: list[str] = []
    hashes: list[npt.NDArray[np.bool_]] = []
    without = boxes = ignored = marked = left_out = 0
    first = None
    for one in tqdm(of.entries, desc=f"checking {of.source.name}", unit="picture", mininterval=5):
        photograph, found = look(one)
        findings += found
        if photograph is None:
            left_out += 1
            first = first or next(of for of in found if lost(of))
            continue
        names.append(one.name)
        hashes.append(difference_hash(photograph.pixels))
        without += not len(photograph.boxes)
        boxes += len(photograph.boxes)
        ignored += int(photograph.ignored.sum())
        marked += int(np.isfinite(photograph.landmarks).all((1, 2)).sum())
    table = np.array(hashes, bool).reshape(-1, 256)
    findings += [_copy(of.source, names[i], of.source, names[j]) for i, j in near_pairs(table)]
    refused = refusal(of, left_out, first) if first and left_out > tolerated * len(of.entries) else None
    return Report(
        of.form,
        of.source,
        len(names),
        without,
        boxes,
        ignored,
        marked,
        tuple(findings),
        refused,
        tuple(names),
        table,
    )


def copies(reports: Sequence[Report]) -> list[Finding]:
    """Pictures of one set that look like one of another, such as of an evaluation set among the training pictures."""
    return [
        _copy(one.source, one.names[i], other.source, other.names[j])
        for number, one in enumerate(reports)
        for other in reports[number + 1 :]
        for i, j in near_pairs(one.hashes, other.hashes)
    ]


def _copy(source: Path, name: str, other: Path, twin: str) -> Finding:
    return Finding(
        "copy", f"{source}: {name}", f"looks like {twin}" + (f" of {other}" if other != source else "")
    )


def add_verb(verbs: Verbs) -> None:
    """`check-boxes`."""
    text = "what is wrong with sets of boxed photographs: every finding by file and line, nothing is changed"
    verb = verbs.add_parser(
        "check-boxes", help=text, description=text, epilog=SUPPORTED, formatter_class=_Plain
    )
    verb.set_defaults(act=_check)
    verb.add_argument(
        "sets", type=Path, nargs="+", metavar="SET", help="several are compared with each other"
    )
    verb.add_argument("--pictures", type=Path, help="their folder, where it is not near a list")
    verb.add_argument("--faces", nargs="+", metavar="CLASS", help="which classes are faces")


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the list of formats a list."""


def _check(asked: argparse.Namespace) -> int:
    reports = [check(open_annotations(path, asked.pictures, asked.faces)) for path in asked.sets]
    shared = copies(reports)
    for report in reports:
        print("\n".join(map(str, report.findings)))
    print("\n".join(map(str, [*shared, *reports])))
    return int(bool(shared) or any(report.refused for report in reports))
