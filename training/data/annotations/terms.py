"""Under which terms a set says that it stands: read from beside its pictures, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOT_STATED = "not stated"
LONGEST = 300  # characters that are passed on
_NAMES = ("terms", "terms.txt", "terms.md")


def terms_of(path: Path) -> str:
    """In one line: of a set's file TERMS (or TERMS.txt, TERMS.md, in any case), else of the field "terms" in its
    annotations.json or in its own list, else `NOT_STATED`.

    path: a folder, or a list of boxes; what lies in the folder above a folder of pictures counts as well.
    """
    folder = path if path.is_dir() else path.parent
    for where in (folder, folder.parent):
        for file in sorted(of for of in where.glob("*") if of.name.lower() in _NAMES and of.is_file()):
            if told := _line(file.read_text("utf-8-sig", errors="replace")):
                return told
    lists = [
        of for of in (path, folder / "annotations.json") if of.suffix.lower() == ".json" and of.is_file()
    ]
    return next((told for of in lists if (told := _line(_field(of)))), NOT_STATED)


def _field(file: Path) -> Any:
    """`terms` of a JSON file's outermost object, or of COCO's `info`."""
    try:
        of = json.loads(file.read_text("utf-8-sig", errors="replace"))
    except ValueError:
        return None  # its reader says what is wrong with it
    if not isinstance(of, dict):
        return None
    info = of.get("info")
    return of.get("terms") or (info.get("terms") if isinstance(info, dict) else None)


def _line(text: Any) -> str:
    line = " ".join(text.split()) if isinstance(text, str) else ""
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
