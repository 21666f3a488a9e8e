"""What a search sees: one immutable state of a gallery's templates.

A snapshot never changes after it was made. Whoever changes a gallery makes another snapshot and swaps the
reference, so that a reader holds either all of a change or nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from service.errors import InvalidParameter
from service.gallery.segment import Floats, Rows, Segment

UNIT_TOLERANCE = 1e-3  # how far a vector's length may be from 1; float16 engines stay below 5e-4
SLACK = 8  # rows asked for beyond `limit`: a few dead ones and second templates need no second look
WIDER = 8  # by how much a search that must look further does
ALONE = 32_768  # templates; below, handing segments to other threads costs more than it brings


@dataclass(frozen=True, slots=True)
class Hit:
    """The best template of one person for one probe; `similarity` is the cosine, −1 to 1."""

    person_id: str
    face_id: str
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One state of a gallery: `size` persons (some may have no template), `templates` vectors of
    `dimension`."""

    id: str
    revision: int
    size: int
    templates: int
    dimension: int
    histogram: Mapping[
        int, int
    ]  # templates of a person → persons who have that many; persons with none are left out
    segments: tuple[Segment, ...] = ()

    def search(self, probes: Floats, limit: int = 1) -> list[list[Hit]]:
        """The `limit` most similar persons for each of `probes` [m, d] (unit vectors), best first.

        A list is shorter than `limit` only when the gallery has fewer persons with templates. Blocks for
        about 1 ms per 10,000 templates and releases the GIL: call it in a thread when the gallery is not
        small.

        Raises `InvalidParameter` when the probes' dimension is wrong or a vector is not finite and of unit
        length.
        """
        probes = unit_vectors(probes, self.dimension)
        if limit < 1:
            raise InvalidParameter("limit must be at least 1", parameter="limit")
        if not len(probes) or not self.templates:
            return [[] for _ in probes]
        found = self._nearest(probes, limit + SLACK)
        return [
            self._persons(probe, [(scores[place], rows[place]) for scores, rows in found], limit)
            for place, probe in enumerate(probes)
        ]

    def _nearest(self, probes: Floats, depth: int) -> list[tuple[Floats, Rows]]:
        def look(segment: Segment) -> tuple[Floats, Rows]:
            return segment.nearest(probes, min(depth, segment.rows))

        if len(self.segments) == 1 or self.templates < ALONE:
            return [look(segment) for segment in self.segments]
        return list(_threads().map(look, self.segments))

    def _persons(self, probe: Floats, found: list[tuple[Floats, Rows]], limit: int) -> list[Hit]:
        """Looks deeper into every segment that may hide somebody, until no unseen row could belong to the
        answer."""
        while True:
            hits = self._best(found, limit)
            floor = hits[-1].similarity if len(hits) == limit else -np.inf
            hiding = [
                place
                for place, (scores, _) in enumerate(found)
                if len(scores) < self.segments[place].rows and scores[-1] > floor
            ]
            if not hiding:
                return hits
            for place in hiding:
                segment = self.segments[place]
                depth = min(len(found[place][0]) * WIDER, segment.rows)
                scores, rows = segment.nearest(probe[None], depth)
                found[place] = scores[0], rows[0]

    def _best(self, found: Sequence[tuple[Floats, Rows]], limit: int) -> list[Hit]:
        """The best row of each of the best `limit` persons among the rows found, the dead left out."""
        scores, persons, faces = [], [], []
        for segment, (similar, rows) in zip(self.segments, found, strict=True):
            if segment.dead is not None:
                alive = ~segment.dead[rows]
                similar, rows = similar[alive], rows[alive]
            scores.append(similar)
            persons.append(segment.persons[rows])
            faces.append(segment.faces[rows])
        score, person, face = np.concatenate(scores), np.concatenate(persons), np.concatenate(faces)
        order = np.argsort(-score, kind="stable")
        _, firsts = np.unique(person[order], return_index=True)
        best = order[np.sort(firsts)[:limit]]
        return [
            Hit(person[row].decode(), face[row].decode(), min(1.0, max(-1.0, float(score[row]))))
            for row in best
        ]


def unit_vectors(vectors: npt.ArrayLike, dimension: int) -> Floats:
    """`vectors` as float32 [n, dimension]; `InvalidParameter` unless each is finite and of unit length."""
    checked = np.ascontiguousarray(vectors, dtype=np.float32)
    if checked.ndim != 2 or checked.shape[1] != dimension:
        raise InvalidParameter(f"an embedding must have {dimension} values", parameter="embedding")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", checked, checked))
    # written so that a NaN fails too
    if not (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
        raise InvalidParameter("an embedding must be a finite vector of unit length", parameter="embedding")
    return checked


@cache
def _threads() -> ThreadPoolExecutor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, "gallery")
