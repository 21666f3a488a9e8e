"""The photographs at hand with boxed faces: WIDER FACE and the mask photographs.

The tenth of the WIDER training pictures that `held_out` names is what a run selects on; the validation pictures are
for the final claim alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from training.data.annotations.intake import TOLERATED, photographs
from training.data.annotations.wider import read_shards
from training.data.photographs import Photograph, with_landmarks

__all__ = ["Photograph", "Split", "held_out", "masks", "wider", "with_landmarks"]

Split = Literal["train", "selection", "val"]


def held_out(name: str, one_in: int = 10) -> bool:
    """Whether a training picture is kept for selection; by a hash of its name, so for ever the same."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % one_in == 0


def wider(root: Path, split: Split, longest: int | None = None) -> Iterator[Photograph]:
    """WIDER FACE pictures below `root`; `longest` scales larger ones down to that many pixels.

    Of the training pictures up to a hundredth may be unusable, and is reported; of those that measure none: BadData.
    """
    folder = "val" if split == "val" else "train"
    of = read_shards(root)
    chosen = tuple(
        one
        for one in of.entries
        if one.name.startswith(f"{folder}/")
        and (split == "val" or held_out(one.name) == (split == "selection"))
    )
    missing = tuple(one for one in of.findings if f": {folder}/" in one.where)
    tolerated = TOLERATED if split == "train" else 0.0
    return photographs(replace(of, entries=chosen, findings=missing), longest, tolerated)


def masks(root: Path, longest: int | None = None) -> Iterator[Photograph]:
    """The mask photographs below `root`; their fifth number is a kind of mask, and every face counts."""
    of = read_shards(root)
    named = tuple(replace(one, name=f"masks/{one.name}") for one in of.entries)
    return photographs(replace(of, entries=named), longest)
