"""The writer's side of a gallery: adds, removes, and publishes the next snapshot.

One writer at a time. Nothing that `add` or `remove_*` does is seen by a search before `publish`; if one of
them raises, the index is to be thrown away and built again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from service.gallery.part import ID, Part
from service.gallery.segment import Ids
from service.gallery.snapshot import Snapshot, unit_vectors

SEGMENT_ROWS = 65_536  # 128 MiB of 512-d vectors: searched in 8 ms by one core


class GalleryIndex:
    """The templates of one gallery, `dimension` values each, in memory."""

    def __init__(self, gallery_id: str, dimension: int, *, segment_rows: int = SEGMENT_ROWS) -> None:
        self.id = gallery_id
        self.dimension = dimension
        self.segment_rows = segment_rows
        self.parts: list[Part] = []
        self._histogram: Counter[int] = Counter()
        self.snapshot = Snapshot(gallery_id, 0, 0, 0, dimension, MappingProxyType({}))

    def add(self, persons: Sequence[str], faces: Sequence[str], vectors: npt.ArrayLike) -> None:
        """Adds templates [n, d] with their ids. Costs time for these rows, not for those that are there."""
        owners = self._append(persons, faces, vectors)
        for person, added in Counter(owners.tolist()).items():
            self._count(self.templates_of(person.decode()) - added, added)

    def load(self, persons: Sequence[str], faces: Sequence[str], vectors: npt.ArrayLike) -> None:
        """`add` for building an index: `recount` must follow before `publish`."""
        self._append(persons, faces, vectors)

    def recount(self) -> None:
        """Counts everybody's templates after `load`."""
        live = [part.live_persons() for part in self.parts]
        if live:
            _, counts = np.unique(np.concatenate(live), return_counts=True)
            self._histogram = Counter(
                dict(zip(*(of.tolist() for of in np.unique(counts, return_counts=True)), strict=True))
            )

    def remove_person(self, person: str) -> int:
        """Removes the person's templates; how many there were."""
        removed = 0
        for part in self.parts:
            rows = part.of_person(person.encode())
            part.kill(rows)
            removed += len(rows)
        self._count(removed, -removed)
        return removed

    def remove_face(self, person: str, face: str) -> int:
        """Removes one template of the person; 1 if it was there."""
        templates = self.templates_of(person)
        for part in self.parts:
            rows = [row for row in part.of_person(person.encode()) if part.face(row) == face.encode()]
            if rows:
                part.kill(rows)
                self._count(templates, -len(rows))
                return len(rows)
        return 0

    def templates_of(self, person: str) -> int:
        """How many templates the person has."""
        return sum(len(part.of_person(person.encode())) for part in self.parts)

    def publish(self, revision: int, size: int) -> Snapshot:
        """Shows everything done so far to searches that begin from now on: `size` persons at `revision`."""
        self.snapshot = Snapshot(
            id=self.id,
            revision=revision,
            size=size,
            templates=sum(part.live for part in self.parts),
            dimension=self.dimension,
            histogram=MappingProxyType(
                {templates: persons for templates, persons in sorted(self._histogram.items())}
            ),
            segments=tuple(part.segment() for part in self.parts if part.live),
        )
        return self.snapshot

    def _append(self, persons: Sequence[str], faces: Sequence[str], vectors: npt.ArrayLike) -> Ids:
        checked = unit_vectors(vectors, self.dimension)
        owners, ids = _ids(persons), _ids(faces)
        if not len(owners) == len(ids) == len(checked):
            raise ValueError("persons, faces and vectors differ in number")
        start = 0
        while start < len(checked):
            if not self.parts or not self.parts[-1].room:
                self.parts.append(Part(self.dimension, self.segment_rows))
            part = self.parts[-1]
            end = min(len(checked), start + part.room)
            part.append(owners[start:end], ids[start:end], checked[start:end])
            start = end
        return owners

    def _count(self, had: int, more: int) -> None:
        for templates, persons in ((had, -1), (had + more, 1)):
            if templates:
                self._histogram[templates] += persons
                if not self._histogram[templates]:
                    del self._histogram[templates]


def _ids(texts: Sequence[str]) -> Ids:
    # numpy would cut a longer id short, and two could become one
    if any(not text or len(text) > ID.itemsize or not text.isascii() for text in texts):
        raise ValueError(f"an id must be 1 to {ID.itemsize} ASCII characters")
    return np.array([text.encode() for text in texts], ID)
