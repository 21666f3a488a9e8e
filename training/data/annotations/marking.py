"""Five points for faces that have a box alone: `python -m training mark-faces SET --to FILE.json`.

A detector is asked, and believed where it agrees with a box; what comes out is a COCO JSON that says who marked them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import REPOSITORY
from training.data.annotations.entries import Annotations
from training.data.annotations.intake import photographs
from training.data.annotations.sources import SUPPORTED, open_annotations
from training.data.annotations.writing import write
from training.data.teacher_landmarks import AGREEMENT_IOU, Detect, completed, yunet

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

Finder = Callable[[Path], tuple[Detect, str]]  # a bundle's detector, and its name with its digest


def mark(of: Annotations, detect: Detect, named: str, to: Path) -> Path:
    """Write the set with `detect`'s points for faces that have none to `to`; returns the folder of its pictures.

    named: the detector. Raises BadData for a set whose pictures lie in tar shards, which no list can name, and where
    too many pictures are unusable.
    """
    by = [*filter(None, [of.points]), f"{named} where it agrees (IoU {AGREEMENT_IOU:g})"]
    return write(of, to, completed(photographs(of), detect), "; ".join(by)).folder


def add_marking(verbs: Verbs, bundle_finder: Finder) -> None:
    """`mark-faces`. bundle_finder: what opens a bundle's detector."""
    text = "five points for boxed faces, by a detector where it agrees with the box: written as COCO JSON"
    verb = verbs.add_parser(
        "mark-faces",
        help=text,
        description=text,
        epilog=SUPPORTED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(act=lambda asked: _mark(asked, bundle_finder))
    verb.add_argument("set", type=Path, help="boxed photographs")
    verb.add_argument("--to", type=Path, required=True, help="the JSON, best beside the pictures' folder")
    verb.add_argument(
        "--detector",
        type=Path,
        default=REPOSITORY / "models" / "default",
        help="a bundle, or YuNet's graph (ONNX) (default: models/default)",
    )
    verb.add_argument("--pictures", type=Path, help="their folder, where it is not near a list")
    verb.add_argument("--faces", nargs="+", metavar="CLASS", help="which classes are faces")


def _mark(asked: argparse.Namespace, bundle_finder: Finder) -> None:
    detect, named = (yunet if asked.detector.suffix == ".onnx" else bundle_finder)(asked.detector)
    folder = mark(open_annotations(asked.set, asked.pictures, asked.faces), detect, named, asked.to)
    print(f"{asked.to}: look at it with check-boxes, train on it with --boxed; its pictures lie in {folder}")
