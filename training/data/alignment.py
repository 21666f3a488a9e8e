"""Raw photographs → aligned faces: five points, one similarity warp from the whole photograph, a reason for the rest.

Which face of several is the folder's person: the largest × most central one. Where another comes close to it nobody can
tell, and the photograph is rejected rather than guessed. Every photograph ends as a face of the set or as a row of
rejects.csv with its reason.

What is done is kept in a journal beside the set, photograph by photograph: a run that was stopped goes on where it was,
and photographs that were added since are taken too. The set appears under its name when it is whole.
"""

from __future__ import annotations

import csv
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from tqdm import tqdm

from bundle.align import align, similarity
from bundle.decode import Detections, Floats
from training.data.pictures import BORDER, SIDE, BadData, encode_face
from training.data.raw_photographs import (
    Listing,
    Picture,
    Reason,
    Rejected,
    identity_of,
    photographs_below,
    read_photograph,
    readable,
)
from training.data.shards import write_shards, write_split

Find = Callable[[Picture], Detections]  # the faces of an upright photograph, in its pixels

REJECTS = "rejects.csv"
_AT_ONCE = 16  # photographs a thread takes between two entries of the journal


@dataclass(frozen=True)
class Policy:
    """When a photograph is rejected although it shows a face.

    least: pixels of the shorter side of the face's box; a crop enlarged more than about three times shows nothing new.
    ambiguous: share of the chosen face's prominence from which another face makes the choice a guess.
    """

    least: float = 32
    ambiguous: float = 0.5


@dataclass(frozen=True)
class Aligned:
    """What became of a folder of photographs. `lost`: identities of whom no face is left."""

    faces: int
    identities: int
    rejected: Counter[Reason]
    lost: tuple[str, ...]
    split: str  # what became of split.csv

    def __str__(self) -> str:
        rows = [("aligned", self.faces), *((of, self.rejected[of]) for of in get_args(Reason))]
        lines = [f"{name:<24}{number:>9,}" for name, number in rows if number or name == "aligned"]
        lines.append(f"{self.identities:,} identities; {self.split}")
        if self.lost:
            more = f" and {len(self.lost) - 10} more" if len(self.lost) > 10 else ""
            lines.append(
                f"{len(self.lost)} identities lost every photograph: {', '.join(self.lost[:10])}{more}"
            )
        return "\n".join(lines)


def align_photographs(
    photographs: Path,
    to: Path,
    find: Find,
    detector: str,
    policy: Policy = Policy(),
    *,
    threads: int = 1,
    seed: int = 0,
) -> Aligned:
    """Write the face set `to` of a folder per identity, with rejects.csv and, where there are people enough, a split.

    detector: what finds, with its digest: a journal of another detector or policy is not continued. `find` is called by
    `threads` threads at once. Raises BadData for a folder without identities or with a single one, for `to` that holds
    something, for a journal of another run, and where fewer than two identities are left.
    """
    listed = photographs_below(photographs)
    if photographs.resolve() in to.resolve().parents:
        raise BadData(f"{to} lies among the photographs; name a folder elsewhere")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise BadData(f"{to}: holds something already; name a new folder for the set")
    work = to.with_name(f"{to.name}.partial")
    work.mkdir(parents=True, exist_ok=True)
    settings = f"{photographs.resolve()} {detector} {asdict(policy)}"
    with _journal(work / "journal.sqlite", settings) as journal:
        _align_all(journal, photographs, listed, find, policy, threads)
        done = _packed(journal, listed, work / "set", photographs.resolve().name, seed)
    if to.exists():
        to.rmdir()
    (work / "set").replace(to)
    shutil.rmtree(work)
    return done


def choose(found: Detections, width: int, height: int, policy: Policy) -> int | Rejected:
    """The row of the face that the photograph is of."""
    if not len(found):
        return Rejected("no_face")
    prominent = prominence(found.boxes, width, height)
    best = int(prominent.argmax())
    others = np.delete(prominent, best)
    rival = float(others.max() / prominent[best]) if len(others) and prominent[best] > 0 else 0.0
    if rival >= policy.ambiguous:
        return Rejected("several_faces_ambiguous", f"{len(found)} faces, another {rival:.0%} as prominent")
    side = float((found.boxes[best, 2:] - found.boxes[best, :2]).min())
    if side < policy.least:
        return Rejected("too_small", f"the face is {side:.0f} pixels wide or high, at least {policy.least:g}")
    return best


def prominence(boxes: Floats, width: int, height: int) -> Floats:
    """[n]: the area inside the picture × (1 − the middle's distance from the picture's, of half its diagonal).

    boxes: (n, 4) xyxy, pixels, centres at integers.
    """
    size = np.array([width, height], np.float32)
    low, high = boxes[:, :2].clip(-0.5, size - 0.5), boxes[:, 2:].clip(-0.5, size - 0.5)
    away = np.linalg.norm((low + high + 1 - size) / 2, axis=1) / (np.linalg.norm(size) / 2)
    return np.asarray((high - low).prod(1) * (1 - away), np.float32)


def with_border(photograph: Picture, landmarks: Floats) -> Picture:
    """uint8 (120, 120, 3): the served crop, pixel for pixel, and the 4 pixels around it.

    The border is what the same alignment shows where it looks 4 pixels further out, so that the service's own warp and
    averaging make it too. Raises ValueError for landmarks (5, 2) that fix no alignment.
    """
    points = np.asarray(landmarks, np.float64)
    turn = similarity(points)[:, :2]
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    near, far = slice(None, -2 * BORDER), slice(2 * BORDER, None)
    for rows, down in ((near, -BORDER), (far, BORDER)):
        for columns, across in ((near, -BORDER), (far, BORDER)):
            picture[rows, columns] = align(photograph, points + np.linalg.solve(turn, [across, down]))
    picture[BORDER:-BORDER, BORDER:-BORDER] = align(photograph, landmarks)
    return picture


def _aligned(root: Path, find: Find, policy: Policy, name: str) -> bytes | Rejected:
    """The encoded face of one photograph, or why there is none."""
    try:
        photograph = read_photograph((root / name).read_bytes())
    except (BadData, OSError) as error:
        return Rejected("unreadable", str(error))
    height, width = photograph.shape[:2]
    found = find(photograph)
    chosen = choose(found, width, height, policy)
    if isinstance(chosen, Rejected):
        return chosen
    try:
        return encode_face(with_border(photograph, found.landmarks[chosen]))
    except (ValueError, cv2.error) as error:
        return Rejected("no_alignment", str(error).strip())


def _align_all(
    journal: sqlite3.Connection, root: Path, listed: Listing, find: Find, policy: Policy, threads: int
) -> None:
    """Enter an outcome for every photograph that has none, or another size or time than it had."""
    cv2.setNumThreads(1)  # the threads are ours: a photograph each
    stamps = {name: _stamp(root / name) for name in listed.photographs}
    known = dict(journal.execute("SELECT name, stamp FROM outcome"))
    todo = [name for name in listed.photographs if known.get(os.fsencode(name)) != stamps[name]]
    one = partial(_aligned, root, find, policy)
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(
            total=len(stamps),
            initial=len(stamps) - len(todo),
            desc="aligning",
            unit="photograph",
            mininterval=1,
        ) as bar,
    ):
        for start in range(0, len(todo), _AT_ONCE * threads):
            names = todo[start : start + _AT_ONCE * threads]
            rows = [
                (os.fsencode(name), stamps[name], of.reason, of.detail, None)
                if isinstance(of, Rejected)
                else (os.fsencode(name), stamps[name], None, None, of)
                for name, of in zip(names, pool.map(one, names), strict=True)
            ]
            with journal:
                journal.executemany("REPLACE INTO outcome VALUES (?, ?, ?, ?, ?)", rows)
            bar.update(len(rows))


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:  # a link to nowhere: reading it says so
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _packed(journal: sqlite3.Connection, listed: Listing, to: Path, source: str, seed: int) -> Aligned:
    """Write the set from the journal, with its table of rejects."""
    rejected = dict(listed.rejected)
    faces: Counter[str] = Counter()
    for name in listed.photographs:
        query = "SELECT reason, detail FROM outcome WHERE name = ?"
        reason, detail = journal.execute(query, [os.fsencode(name)]).fetchone()
        if reason:
            rejected[name] = Rejected(reason, detail)
        else:
            faces[identity_of(name)] += 1
    shutil.rmtree(to, ignore_errors=True)
    _write_rejects(to.parent / REJECTS, rejected)
    if len(faces) < 2:
        raise BadData(
            f"{len(faces)} of {len(listed.identities)} identities have a face left, a set needs two: "
            f"{to.parent / REJECTS} says why"
        )
    write_shards(to, _rows(journal, listed, source))
    (to.parent / REJECTS).replace(to / REJECTS)
    try:
        sizes = write_split(to, seed)
        split = "split.csv: " + ", ".join(f"{number:,} {name}" for name, number in sizes.items())
    except BadData as error:
        split = f"no split.csv ({str(error).removeprefix(f'{to}: ')})"
    lost = tuple(who for who in listed.identities if who not in faces)
    return Aligned(faces.total(), len(faces), Counter(of.reason for of in rejected.values()), lost, split)


def _rows(journal: sqlite3.Connection, listed: Listing, source: str) -> Iterator[tuple[bytes, str, str]]:
    for name in listed.photographs:
        query = "SELECT picture FROM outcome WHERE name = ?"
        (picture,) = journal.execute(query, [os.fsencode(name)]).fetchone()
        if picture is not None:
            yield picture, readable(identity_of(name)), readable(source)


def _write_rejects(file: Path, rejected: dict[str, Rejected]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(["photograph", "identity", "reason", "detail"])
        for name, of in sorted(rejected.items()):
            who = "" if of.reason == "no_identity" else readable(identity_of(name))
            table.writerow([readable(name), who, of.reason, of.detail])


@contextmanager
def _journal(file: Path, settings: str) -> Iterator[sqlite3.Connection]:
    """An outcome a photograph, on disk when it is entered. Raises BadData where it cannot be, or is of another run."""
    anew = f"remove {file.parent} to begin anew"
    try:
        journal = sqlite3.connect(file)
        try:
            journal.execute("CREATE TABLE IF NOT EXISTS settings (text TEXT)")
            journal.execute(
                "CREATE TABLE IF NOT EXISTS outcome"
                " (name BLOB PRIMARY KEY, stamp TEXT, reason TEXT, detail TEXT, picture BLOB)"
            )
            begun = journal.execute("SELECT text FROM settings").fetchone()
            if begun is None:
                with journal:
                    journal.execute("INSERT INTO settings VALUES (?)", [settings])
            elif begun[0] != settings:
                raise BadData(f"{file.parent} was begun otherwise: with {begun[0]}, not {settings}; {anew}")
            yield journal
        finally:
            journal.close()
    except sqlite3.Error as error:
        raise BadData(f"{file}: {error}; make room and run the same again, or {anew}") from error
