"""Photographs with boxed faces: WIDER FACE and the mask photographs, read into one shape.

The tenth of the WIDER training pictures that `held_out` names is what a run selects on; the validation pictures are
for the final claim alone.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Split = Literal["train", "selection", "val"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Photograph:
    """One picture and every face that somebody boxed in it; `pixels` may be smaller than annotated (see `scale`)."""

    name: str
    pixels: npt.NDArray[np.uint8]  # (h, w, 3) RGB
    scale: float  # pixels kept per annotated pixel
    boxes: Floats  # (faces, 4) xyxy in `pixels`
    ignored: npt.NDArray[np.bool_]  # (faces,) flagged invalid or degenerate: neither face nor background
    landmarks: Floats  # (faces, 5, 2) in `pixels`; NaN where unknown


def held_out(name: str, one_in: int = 10) -> bool:
    """Whether a training picture is kept for selection; by a hash of its name, so for ever the same."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % one_in == 0


def wider(root: Path, split: Split, longest: int | None = None) -> Iterator[Photograph]:
    """WIDER FACE pictures below `root`; `longest` scales larger ones down to that many pixels."""
    folder = "val" if split == "val" else "train"
    notes = json.loads((root / "annotations.json").read_text())
    chosen = {
        name: note
        for name, note in notes.items()
        if name.startswith(f"{folder}/") and (split == "val" or held_out(name) == (split == "selection"))
    }
    for name, data in _members(root, {note["shard"] for note in chosen.values()}):
        key = f"{folder}/{name}"
        if key in chosen:
            yield _photograph(key, data, chosen[key], longest, flagged=lambda row: bool(row[4]))


def masks(root: Path, longest: int | None = None) -> Iterator[Photograph]:
    """The mask photographs below `root`; their fifth number is a kind of mask, and every face counts."""
    notes = json.loads((root / "annotations.json").read_text())
    for name, data in _members(root, {path.name for path in root.glob("photos-*.tar")}):
        if name in notes:
            yield _photograph(f"masks/{name}", data, notes[name], longest, flagged=lambda row: False)


def with_landmarks(photograph: Photograph, taught: Floats) -> Photograph:
    """The photograph with points (faces, 5, 2) given in annotated pixels, NaN where the teacher did not agree."""
    if taught.shape != (len(photograph.boxes), 5, 2):
        raise ValueError(
            f"{photograph.name}: {len(photograph.boxes)} faces, landmarks of shape {taught.shape}"
        )
    return replace(photograph, landmarks=(taught + 0.5) * np.float32(photograph.scale) - np.float32(0.5))


def _members(root: Path, shards: set[str]) -> Iterator[tuple[str, bytes]]:
    for shard in sorted(shards):
        with tarfile.open(root / shard) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def _photograph(
    name: str, data: bytes, note: dict[str, Any], longest: int | None, flagged: Any
) -> Photograph:
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise ValueError(f"{name} is not a readable picture")
    if pixels.shape[:2] != (note["height"], note["width"]):
        raise ValueError(f"{name}: {pixels.shape[1]} × {pixels.shape[0]} pixels, annotated otherwise")
    scale = 1.0
    if longest is not None and max(pixels.shape[:2]) > longest:
        scale = longest / max(pixels.shape[:2])
        size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    rows = np.array(note["boxes"], np.float32).reshape(-1, 5)
    extent = rows[:, 2:4].clip(0)
    ignored = np.array([flagged(row) for row in rows], bool) | (extent.min(1, initial=np.inf) < 1)
    # An annotated box x … x + w covers whole pixels, whose centres are integers: its edges lie half a pixel out.
    low = rows[:, :2] - 0.5
    boxes = (np.concatenate([low, low + extent], 1) + 0.5) * np.float32(scale) - np.float32(0.5)
    unknown = np.full((len(rows), 5, 2), np.nan, np.float32)
    return Photograph(name, pixels, scale, boxes.astype(np.float32), ignored, unknown)
