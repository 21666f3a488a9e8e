"""A folder per identity: `root/anybody/whatever.jpg`, aligned faces of 112 × 112 or 120 × 120 pixels.

Names that begin with a dot (what systems leave behind) do not count; everything else that is no picture is reported.
"""

from __future__ import annotations

import os
from pathlib import Path

from training.data.identities import DECODED, Faces, collect
from training.data.pictures import SUFFIXES, BadData, encoded_pictures


def load_folder(root: Path, *, decoded: int = DECODED) -> Faces:
    """Identities are numbered in the order of their folders' names, and their pictures lie in the order of theirs.

    Raises BadData for a folder without identities, a picture beside the identities' folders, a folder inside an
    identity's, and as `collect` does.
    """
    people: list[str] = []
    identity: list[int] = []
    files: list[Path] = []
    left_out: list[str] = []
    for person in _entries(root):
        if person.is_dir():
            pictures = _pictures(Path(person.path), left_out)
            identity += [len(people)] * len(pictures)
            files += pictures
            people.append(person.name)
        elif _is_picture(person.name):
            raise BadData(
                f"{person.path} lies beside the people's folders; each person's pictures need a folder of their own"
            )
        else:
            left_out.append(f"{person.name}: not a picture")
    if not files:
        raise BadData(f"{root}: no folder with pictures in it; expected a folder per identity, {_EXAMPLE}")
    return collect(
        root,
        encoded_pictures(files, [(number, 0, file.stat().st_size) for number, file in enumerate(files)]),
        identity,
        lambda row: f"{files[row].parent.name}/{files[row].name}",
        people=dict(enumerate(people)),
        left_out=left_out,
        decoded=decoded,
    )


_EXAMPLE = "such as ada/1.jpg"


def _pictures(person: Path, left_out: list[str]) -> list[Path]:
    """The pictures of one person; what else lies there is added to `left_out`."""
    pictures = []
    for entry in _entries(person):
        if entry.is_dir():
            raise BadData(
                f"{entry.path} is a folder inside a person's; all pictures of a person lie in one folder"
            )
        if _is_picture(entry.name):
            pictures.append(Path(entry.path))
        else:
            left_out.append(f"{person.name}/{entry.name}: not a picture")
    if not pictures:
        left_out.append(f"{person.name}: a folder without pictures")
    return pictures


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """By name: the order of a listing is the file system's own."""
    return sorted((of for of in os.scandir(folder) if not of.name.startswith(".")), key=lambda of: of.name)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
