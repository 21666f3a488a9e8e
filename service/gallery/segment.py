"""Some templates in one block of memory, and which of them are dead.

Rows are written once and only ever appended; a reader's `Segment` covers the rows there were when it was
made, and a mask of the dead is copied before it changes. So a reader needs no lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.bytes_]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Probes from which one matrix product is quicker than FAISS's loop: 36 against 158 ms of CPU time for 32 probes
# in 65,536 × 512, one thread (2026-11-22).
MATRIX_FROM = 8


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """What a search reads: `vectors` [n, d] with their `persons` and `faces` ids [n], `dead` [n] or
    nobody."""

    vectors: Floats
    persons: Ids
    faces: Ids
    dead: Mask | None

    @property
    def rows(self) -> int:
        return len(self.vectors)

    def nearest(self, probes: Floats, depth: int) -> tuple[Floats, Rows]:
        """The `depth` rows most similar to each of `probes` [m, d], dead ones included, best first.

        Cosines [m, depth] and row numbers [m, depth]; `depth` is at most `rows`."""
        if len(probes) >= MATRIX_FROM:
            return self._nearest_of_many(probes, depth)
        # One thread: OpenMP's own threads spin when cores are shared, which took 60 ms instead of 16 ms for
        # 131,072 rows (2026-11-22, two cores under load). Large galleries use several segments at once
        # instead.
        faiss.omp_set_num_threads(1)
        scores, rows = faiss.knn(probes, self.vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows

    def _nearest_of_many(self, probes: Floats, depth: int) -> tuple[Floats, Rows]:
        scores = probes @ self.vectors.T
        # partition, then order the few: sorting all of them would cost more than the product
        rows = np.argpartition(scores, self.rows - depth, axis=1)[:, self.rows - depth :]
        best = np.take_along_axis(scores, rows, 1)
        order = np.argsort(-best, axis=1, kind="stable")
        return np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1).astype(np.int64)
