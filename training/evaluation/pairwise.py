"""Every pair of faces of a set, a block of rows at a time: 30 million pairs pass through some 100 MB in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.evaluation.verification import MIN_FALSE_MATCHES, related, require_unit_vectors

ROWS = 256  # of a block
BINS = 20_000  # equal ones from −1 to 1, so 1e-4 wide: scores closer than that are one to a curve


@dataclass(frozen=True)
class People:
    """of_face: int32 [n], who is on each face, dense; pictures: int [people]; related: bool [people, people], oneself
    included; kin: int [pairs, 2], each related pair of two people once."""

    of_face: np.ndarray
    pictures: np.ndarray
    related: np.ndarray
    kin: np.ndarray

    @staticmethod
    def of(identity: np.ndarray, family: np.ndarray) -> People:
        """identity: int or str [n]; family: str [n], empty where unknown."""
        _, of_face, counts = np.unique(identity, return_inverse=True, return_counts=True)
        near = related(of_face, family)
        return People(of_face.astype(np.int32), counts, near, np.argwhere(np.triu(near, 1)))

    def impostor_weight(self, weight: np.ndarray) -> float:
        """The weighted number of pairs of pictures of two people that are not kin."""
        each = weight * self.pictures
        everybody = (each.sum() ** 2 - (each**2).sum()) / 2
        return float(everybody - (each[self.kin[:, 0]] * each[self.kin[:, 1]]).sum())


@dataclass(frozen=True)
class Block:
    """Some rows against everybody after them. similarity: float32 [rows, columns]; first: int32 [rows] and second:
    int32 [columns], the people; mated, stranger, kin: bool [rows, columns], over all blocks each pair of faces once
    in one."""

    similarity: np.ndarray
    first: np.ndarray
    second: np.ndarray
    mated: np.ndarray
    stranger: np.ndarray
    kin: np.ndarray


def blocks(embedding: np.ndarray, people: People, rows: int = ROWS) -> Iterator[Block]:
    """embedding: float32 [n, d] unit vectors, in the order of `people.of_face`. Raises NotUnitVectors."""
    require_unit_vectors(embedding)
    for start in range(0, len(embedding), rows):
        first, second = people.of_face[start : start + rows], people.of_face[start:]
        once = np.arange(len(second)) > np.arange(len(first))[:, None]
        same = first[:, None] == second
        near = people.related[first][:, second]
        yield Block(
            embedding[start : start + rows] @ embedding[start:].T,
            first,
            second,
            mated=once & same,
            stranger=once & ~near,
            kin=once & near & ~same,
        )


@dataclass(frozen=True)
class ScoreCounts:
    """How often each score occurred among mated, non-mated and kin pairs: int64 [BINS] each."""

    genuine: np.ndarray
    impostor: np.ndarray
    kin: np.ndarray

    @staticmethod
    def of(embedding: np.ndarray, people: People) -> ScoreCounts:
        """embedding: float32 [n, d] unit vectors. Raises NotUnitVectors."""
        counts = np.zeros((3, BINS), np.int64)
        for block in blocks(embedding, people):
            bins = score_bins(block.similarity)
            for kind, pairs in enumerate((block.mated, block.stranger, block.kin)):
                counts[kind] += np.bincount(bins[pairs], minlength=BINS)
        return ScoreCounts(*counts)

    def highest_impostors(self, count: int) -> int:
        """The bin from which on at least `count` non-mated pairs lie (all of them, where there are fewer)."""
        beyond = self.impostor[::-1].cumsum()[::-1]
        return int(np.flatnonzero(beyond >= min(count, beyond[0]))[-1])

    def det(self, points: int = 120) -> tuple[np.ndarray, np.ndarray]:
        """FMR and FNMR at some `points` thresholds (edges of bins), from the smallest FMR that the non-mated pairs
        carry up to 1."""
        accepted, refused = self.impostor[::-1].cumsum(), self.genuine.sum() - self.genuine[::-1].cumsum()
        least = min(MIN_FALSE_MATCHES, int(accepted[-1]))
        asked = np.geomspace(least, accepted[-1], points).astype(int)
        edges = np.unique(np.searchsorted(accepted, asked))
        return accepted[edges] / accepted[-1], refused[edges] / self.genuine.sum()


def score_bins(similarity: np.ndarray) -> np.ndarray:
    """int32, the bin of each cosine; the last bin holds 1."""
    return ((similarity + 1) * (BINS / 2)).astype(np.int32).clip(0, BINS - 1)
