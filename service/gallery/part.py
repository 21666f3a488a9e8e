"""The writer's side of a segment: a buffer that fills up, and a mask of the dead.

A published segment shares memory with its part: rows that readers see are never written again, and the mask
is copied before the first change after it was shown.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from service.gallery.segment import Floats, Ids, Mask, Rows, Segment

FIRST_ROWS = 64  # a gallery of one person should not cost megabytes
ID = np.dtype("S24")
Scalar = TypeVar("Scalar", bound=np.generic)


class Part:
    """Up to `capacity` templates of `dimension`. While it grows, who owns a row is looked up in a dict;
    sealed, in an order of row numbers sorted by person (4 bytes a row)."""

    def __init__(self, dimension: int, capacity: int) -> None:
        self.capacity = capacity
        self.rows = 0
        self.live = 0
        self._vectors: Floats = np.empty((0, dimension), np.float32)
        self._persons: Ids = np.empty(0, ID)
        self._faces: Ids = np.empty(0, ID)
        self._dead: Mask | None = None
        self._dead_shown = False
        self._owned: dict[bytes, list[int]] | None = {}
        self._order: Rows | None = None

    @property
    def sealed(self) -> bool:
        return self._owned is None

    @property
    def room(self) -> int:
        return 0 if self.sealed else self.capacity - self.rows

    def append(self, persons: Ids, faces: Ids, vectors: Floats) -> None:
        """Adds rows behind those that readers see; at most `room`."""
        start, end = self.rows, self.rows + len(vectors)
        self._grow(end)
        self._persons[start:end], self._faces[start:end], self._vectors[start:end] = persons, faces, vectors
        assert self._owned is not None
        for row, person in enumerate(persons.tolist(), start):
            self._owned.setdefault(person, []).append(row)
        self.rows, self.live = end, self.live + len(vectors)
        if end == self.capacity:
            self.seal()

    def _grow(self, rows: int) -> None:
        if rows <= len(self._vectors):
            return
        room = min(self.capacity, max(FIRST_ROWS, rows, 2 * len(self._vectors)))
        # readers keep the old buffers for as long as they need them
        self._vectors = _longer(self._vectors, self.rows, room)
        self._persons = _longer(self._persons, self.rows, room)
        self._faces = _longer(self._faces, self.rows, room)
        if self._dead is not None:
            self._dead, self._dead_shown = _longer(self._dead, self.rows, room), False

    def seal(self) -> None:
        """No row is added any more."""
        self._order = np.argsort(self._persons[: self.rows], kind="stable").astype(np.int32)
        self._owned = None

    def of_person(self, person: bytes) -> list[int]:
        """The person's live rows."""
        if self._owned is not None:
            rows = self._owned.get(person, [])
        else:
            assert self._order is not None
            persons = self._persons[: self.rows]
            low = np.searchsorted(persons, person, "left", sorter=self._order)
            high = np.searchsorted(persons, person, "right", sorter=self._order)
            rows = self._order[low:high].tolist()
        return [row for row in rows if self._dead is None or not self._dead[row]]

    def face(self, row: int) -> bytes:
        return bytes(self._faces[row])

    def kill(self, rows: list[int]) -> None:
        """Marks live rows dead, for readers who come later."""
        if not rows:
            return
        if self._dead is None:
            self._dead = np.zeros(len(self._vectors), bool)
        elif self._dead_shown:
            self._dead = self._dead.copy()
        self._dead_shown = False
        self._dead[rows] = True
        self.live -= len(rows)

    def dead(self) -> Mask:
        """Which of the rows are dead [rows]; a copy."""
        return np.zeros(self.rows, bool) if self._dead is None else self._dead[: self.rows].copy()

    def live_persons(self) -> Ids:
        """The owner of each live row."""
        return self._persons[: self.rows][~self.dead()]

    def copy(self, mask: Mask) -> tuple[Ids, Ids, Floats]:
        """The persons, faces and vectors of the rows in `mask` [rows]."""
        rows = np.flatnonzero(mask)
        return self._persons[rows], self._faces[rows], self._vectors[rows]

    def segment(self) -> Segment:
        """What readers see from now on."""
        self._dead_shown = True
        dead = None if self._dead is None or self.live == self.rows else self._dead[: self.rows]
        return Segment(self._vectors[: self.rows], self._persons[: self.rows], self._faces[: self.rows], dead)


def _longer(array: npt.NDArray[Scalar], rows: int, room: int) -> npt.NDArray[Scalar]:
    longer = np.zeros((room, *array.shape[1:]), array.dtype)
    longer[:rows] = array[:rows]
    return longer
