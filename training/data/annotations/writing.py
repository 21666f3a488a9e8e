"""Any set of boxed photographs as COCO JSON, with points and terms: `python -m training write-coco SET --to FILE.json`.

Pictures are not copied: the list calls them as the set does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from training.data.annotations.coco import write_coco
from training.data.annotations.entries import Annotations
from training.data.annotations.intake import photographs
from training.data.annotations.sources import SUPPORTED, open_annotations
from training.data.annotations.terms import terms_of
from training.data.photographs import Photograph
from training.data.pictures import BadData

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


class Written(NamedTuple):
    """pictures: how many; folder: where their names count from, but for those that are absolute."""

    pictures: int
    folder: Path


def write(of: Annotations, to: Path, some: Iterable[Photograph] | None = None, points: str = "") -> Written:
    """Write the set to `to` as COCO JSON, with its terms; pictures that cannot be used are reported and left out.

    some: its photographs, where they are not as the set has them; points: who marked their landmarks. Raises BadData
    for a set whose pictures lie in tar shards, which no list can name, and where no picture can be used.
    """
    packed = next((one for one in of.entries if one.place[2] >= 0), None)
    if packed is not None:
        raise BadData(f"{of.source}: {packed.name} lies in {packed.place[0].name}; unpack the set first")
    every = iter(photographs(of, tolerated=1.0) if some is None else some)
    first = next(every, None)
    if first is None:
        raise BadData(f"{of.source}: none of its {len(of.entries)} pictures can be used, nothing is written")
    to.parent.mkdir(parents=True, exist_ok=True)
    info = {"points": points or of.points, "terms": terms_of(of.source)}
    count = write_coco(to, chain([first], every), info)
    one = next((one for one in of.entries if not Path(one.name).is_absolute()), None)
    file = (one or of.entries[0]).place[0]
    return Written(count, file.parents[len(Path(one.name).parts) - 1] if one else file.parent)


def add_writing(verbs: Verbs) -> None:
    """`write-coco`."""
    text = "a set of boxed photographs in any format, as COCO JSON with its points and terms"
    verb = verbs.add_parser(
        "write-coco",
        help=text,
        description=text,
        epilog=SUPPORTED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(act=_write)
    verb.add_argument("set", type=Path, help="boxed photographs")
    verb.add_argument("--to", type=Path, required=True, help="the JSON, best beside the pictures' folder")
    verb.add_argument("--pictures", type=Path, help="their folder, where it is not near a list")
    verb.add_argument("--faces", nargs="+", metavar="CLASS", help="which classes are faces")


def _write(asked: argparse.Namespace) -> None:
    of = open_annotations(asked.set, asked.pictures, asked.faces)
    if asked.to.suffix.lower() != ".json" or (asked.to.exists() and asked.to.samefile(asked.set)):
        raise BadData(f"{asked.to}: name a .json that is not the set itself (--to)")
    count, folder = write(of, asked.to)
    print(f"{asked.to}: {count:,} of {len(of.entries):,} pictures; their names count from {folder}")
