"""A folder per identity of raw photographs: which files it holds, and a file's upright pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from training.data.pictures import BadData

Picture = npt.NDArray[np.uint8]  # (height, width, 3) RGB

Reason = Literal[
    "unreadable",
    "no_face",
    "several_faces_ambiguous",
    "too_small",
    "no_alignment",
    "no_identity",
    "empty_folder",
]
_HARMLESS = "extraneous bytes before marker"  # cheap cameras pad between segments; every pixel is there


@dataclass(frozen=True)
class Rejected:
    """reason: see `Reason`; detail: for a person, with the numbers behind it."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Listing:
    """Names relative to the folder of photographs, in order. rejected: what is no photograph of anybody."""

    identities: tuple[str, ...]
    photographs: tuple[str, ...]
    rejected: dict[str, Rejected]


def photographs_below(root: Path) -> Listing:
    """Every file below `root`, however deep; names that begin with a dot (what systems leave behind) do not count.

    Raises BadData where there are not two folders of people.
    """
    if not root.is_dir():
        raise BadData(f"{root}: no such folder")
    entries = sorted((of for of in os.scandir(root) if not of.name.startswith(".")), key=lambda of: of.name)
    people = [of.name for of in entries if of.is_dir()]
    if len(people) < 2:
        raise BadData(
            f"{root}: {'one folder' if people else 'no folder'} of photographs; expected one for each of two people or "
            "more, such as ada/1.jpg"
        )
    rejected = {of.name: Rejected("no_identity", "beside the folders") for of in entries if not of.is_dir()}
    photographs: list[str] = []
    for who in people:
        found = list(_files(root, who))
        photographs += found
        if not found:
            rejected[f"{who}/"] = Rejected("empty_folder")
    return Listing(tuple(people), tuple(photographs), rejected)


def _files(root: Path, who: str) -> Iterator[str]:
    for folder, below, files in os.walk(root / who):
        below[:] = sorted(of for of in below if not of.startswith("."))
        for file in sorted(of for of in files if not of.startswith(".")):
            yield str(Path(folder, file).relative_to(root))


def read_photograph(data: bytes) -> Picture:
    """Upright (as EXIF says) 8-bit RGB of any format that OpenCV reads. Raises BadData for what is no whole picture."""
    try:
        if data.startswith(b"\xff\xd8"):
            # OpenCV 4 fills what a truncated JPEG lacks with grey. An eighth of the size costs little and reads it all.
            simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1)
    except ValueError as error:
        if _HARMLESS not in str(error):
            raise BadData(f"truncated or corrupt ({error})") from error
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except cv2.error as error:
        raise BadData("truncated, corrupt or too large") from error
    if picture is None:
        raise BadData("not a whole picture" if data else "an empty file")
    return np.asarray(picture, np.uint8)


def identity_of(name: str) -> str:
    """Whose photograph the file of a listing is."""
    return name.split(os.sep, 1)[0]


def readable(name: str) -> str:
    """A name as text: file systems allow bytes that are none."""
    return name.encode("utf-8", "backslashreplace").decode()
