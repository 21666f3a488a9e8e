"""Gets rid of dead rows: copies what lives into new parts while the gallery goes on, then swaps them in.

`plan` and `adopt` are quick and belong to the writer; `build` copies vectors and may run in another thread,
because the parts it reads are sealed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from service.gallery.index import GalleryIndex
from service.gallery.part import Part
from service.gallery.segment import Ids, Mask

DEAD_SHARE = 0.25  # a part with more dead rows than this is worth copying
DEAD_ROWS = 1_024  # and it must be worth the trouble


@dataclass(slots=True)
class Compaction:
    """The parts to be replaced with the masks they had at the plan, and what replaces them."""

    old: list[tuple[Part, Mask]]
    dimension: int
    segment_rows: int
    new: list[Part] = field(default_factory=list)

    def build(self) -> None:
        """Copies the rows that were live at the plan."""
        for part, dead in self.old:
            persons, faces, vectors = part.copy(~dead)
            start = 0
            while start < len(vectors):
                if not self.new or not self.new[-1].room:
                    self.new.append(Part(self.dimension, self.segment_rows))
                end = min(len(vectors), start + self.new[-1].room)
                self.new[-1].append(persons[start:end], faces[start:end], vectors[start:end])
                start = end
        for part in self.new:
            if not part.sealed:
                part.seal()


def plan(
    index: GalleryIndex, *, dead_rows: int = DEAD_ROWS, dead_share: float = DEAD_SHARE
) -> Compaction | None:
    """What is worth compacting now; None if nothing is. A growing part that is worth it is sealed first."""
    worth = [part for part in index.parts if _worth(part, dead_rows, dead_share)]
    if not worth:
        return None
    for part in worth:
        if not part.sealed:
            part.seal()
    # parts that compactions left half empty join, so that their number stays in proportion to the templates
    small = [
        part for part in index.parts if part.sealed and part not in worth and part.rows < part.capacity // 2
    ]
    return Compaction([(part, part.dead()) for part in worth + small], index.dimension, index.segment_rows)


def adopt(index: GalleryIndex, compaction: Compaction) -> None:
    """Puts the new parts in the place of the old ones; whoever died since the plan is dead in the new ones
    too."""
    for part, dead in compaction.old:
        for person, face in _died_since(part, dead):
            for new in compaction.new:
                new.kill([row for row in new.of_person(person) if new.face(row) == face])
    gone = {id(part) for part, _ in compaction.old}
    index.parts = compaction.new + [part for part in index.parts if id(part) not in gone]
    index.publish(index.snapshot.revision, index.snapshot.size)


def _worth(part: Part, dead_rows: int, dead_share: float) -> bool:
    dead = part.rows - part.live
    return dead >= dead_rows and dead > dead_share * part.rows


def _died_since(part: Part, dead: Mask) -> list[tuple[bytes, bytes]]:
    now: Mask = part.dead() & ~dead
    persons, faces, _ = part.copy(now)
    return list(zip(_list(persons), _list(faces), strict=True))


def _list(ids: Ids) -> list[bytes]:
    return [bytes(of) for of in np.atleast_1d(ids)]
