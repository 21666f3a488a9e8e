"""Which faces of a calibration set are compared: one probe and up to ten templates for every two people.

Every pair of people counts once, however many pictures they have: a curve speaks about people, not about
whoever was photographed most. Draws depend on `seed` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.verification import related, require_unit_vectors

TEMPLATES = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class Comparisons:
    """Scores between people, each pair once at most for each k.

    best: float32 [k, people, people], [i, probe, gallery] the best of TEMPLATES[i] templates of the
    gallery's person against one picture of the probe's, NaN where this direction was not drawn or the
    person has too few pictures; identity: int64 [people]; kin, excluded: bool [people, people], symmetric.
    """

    best: np.ndarray
    identity: np.ndarray
    kin: np.ndarray
    excluded: np.ndarray

    def clean(self) -> np.ndarray:
        """bool [people, people]: the pairs that the curves rest on."""
        return ~(self.kin | self.excluded)

    def scores(self, index: int, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Drawn scores for TEMPLATES[index] among `pairs`: float64 [n], and the people int [n] of probe and
        gallery."""
        probe, gallery = np.nonzero(pairs & ~np.isnan(self.best[index]))
        return self.best[index, probe, gallery].astype(np.float64).clip(-1, 1), probe, gallery


def draw_comparisons(
    embedding: np.ndarray,
    identity: np.ndarray,
    family: np.ndarray,
    excluded: Sequence[tuple[int, int]] = (),
    seed: int = 0,
) -> Comparisons:
    """embedding: float32 [n, d] unit vectors; identity: int [n]; family: str [n], empty where unknown.

    `excluded`: pairs of identities that are one person. Raises ValueError for arrays that do not fit
    together or an excluded identity that is not there.
    """
    _require(embedding, identity, family)
    people, label, counts = np.unique(identity, return_inverse=True, return_counts=True)
    order = np.argsort(identity, kind="stable")
    random = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    best = _best_scores(embedding[order], starts, counts, random)
    _one_direction(best, random)
    kin = related(label, family) & ~np.eye(len(people), dtype=bool)
    return Comparisons(best, people, kin, _pairs_of(people, excluded))


def _best_scores(
    embedding: np.ndarray, starts: np.ndarray, counts: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """float32 [k, people, people] in both directions; the templates of a larger k contain those of a
    smaller one."""
    best = np.full((len(TEMPLATES), len(counts), len(counts)), np.nan, np.float32)
    everyone = np.arange(len(counts))
    for gallery, (start, count) in enumerate(zip(starts, counts, strict=True)):
        probes = starts + random.integers(0, counts)
        similarity = embedding[probes] @ embedding[start : start + count].T
        shuffled = random.random(similarity.shape).argsort(1)[:, : TEMPLATES[-1]]
        so_far = np.maximum.accumulate(np.take_along_axis(similarity, shuffled, 1), 1)
        others = everyone != gallery
        for index, k in enumerate(TEMPLATES):
            if count >= k:
                best[index, others, gallery] = so_far[others, k - 1]
    return best


def _one_direction(best: np.ndarray, random: np.random.Generator) -> None:
    """Keep for each k and pair of people one direction: a drawn one, or the only one with enough
    templates."""
    drawn = np.triu(random.random(best.shape[1:]) < 0.5, 1)
    drawn |= np.tril(~drawn.T, -1)
    for scores in best:
        there = ~np.isnan(scores)
        scores[~(there & (drawn | ~there.T))] = np.nan


def _pairs_of(people: np.ndarray, excluded: Sequence[tuple[int, int]]) -> np.ndarray:
    place = {int(person): index for index, person in enumerate(people)}
    pairs = np.zeros((len(people), len(people)), bool)
    for first, second in excluded:
        if first not in place or second not in place:
            raise ValueError(f"the excluded pair {first}, {second} is not in this set")
        pairs[place[first], place[second]] = pairs[place[second], place[first]] = True
    return pairs


def _require(embedding: np.ndarray, identity: np.ndarray, family: np.ndarray) -> None:
    if embedding.ndim != 2 or identity.shape != (len(embedding),) or family.shape != (len(embedding),):
        raise ValueError(f"shapes do not fit: {embedding.shape}, {identity.shape}, {family.shape}")
    require_unit_vectors(embedding)
