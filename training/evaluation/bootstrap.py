"""Intervals of FNMR at FMR by drawing people anew: scores that share a person are not independent.

All embedders of one call are judged with the same drawn people, so their ratio has an interval too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.verification import MIN_FALSE_MATCHES, TooFewImpostors, related

_SLACK = 4.0  # impostor scores kept, as a multiple of the largest rate: a drawn set may be heavier at the top


@dataclass(frozen=True)
class Interval:
    """A value on the whole set with the 2.5 % and 97.5 % quantiles of the drawn sets."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class People:
    """of_face: int [n], who is on each face, dense; pictures: int [people]; related: bool [people, people]."""

    of_face: np.ndarray
    pictures: np.ndarray
    related: np.ndarray

    @staticmethod
    def of(identity: np.ndarray, family: np.ndarray) -> People:
        """identity: int [n]; family: str [n], empty where unknown."""
        _, of_face, counts = np.unique(identity, return_inverse=True, return_counts=True)
        return People(of_face, counts, related(of_face, family))

    def impostor_weight(self, weight: np.ndarray) -> float:
        """The weighted number of pairs of pictures of two people that are not kin."""
        each = weight * self.pictures
        return float(each @ ~self.related @ each / 2)


@dataclass(frozen=True)
class RankedScores:
    """What one embedder scored: all mated pairs, and the highest non-mated ones, best first, with their people."""

    genuine: np.ndarray
    genuine_person: np.ndarray
    highest: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @staticmethod
    def of(embedding: np.ndarray, people: People, largest_fmr: float) -> RankedScores:
        """embedding: float32 [n, d] unit vectors, in the order of `people.of_face`."""
        rows, columns = np.triu_indices(len(embedding), 1)
        similarity = (embedding @ embedding.T)[rows, columns]
        first, second = people.of_face[rows], people.of_face[columns]
        mated = first == second
        stranger = ~people.related[first, second]
        scores, ones, others = similarity[stranger], first[stranger], second[stranger]
        kept = min(len(scores), int(_SLACK * largest_fmr * len(scores)) + 100)
        top = np.argpartition(-scores, kept - 1)[:kept]
        top = top[np.argsort(-scores[top], kind="stable")]
        return RankedScores(similarity[mated], first[mated], scores[top], ones[top], others[top])

    def fnmr(self, fmr: float, weight: np.ndarray, impostors: float) -> float:
        """FNMR where the weighted share of non-mated pairs at or above the threshold is at most `fmr`."""
        passed = np.cumsum(weight[self.first] * weight[self.second])
        place = int(np.searchsorted(passed, fmr * impostors, side="right"))
        refused = self.highest[min(place, len(self.highest) - 1)]
        of = weight[self.genuine_person]
        return float((of * (self.genuine <= refused)).sum() / of.sum())


def fnmr_intervals(
    embeddings: Sequence[np.ndarray],
    identity: np.ndarray,
    family: np.ndarray,
    fmrs: Sequence[float],
    draws: int = 300,
    seed: int = 0,
) -> tuple[list[dict[float, Interval]], dict[float, Interval]]:
    """FNMR by FMR for each embedder, and the ratio of the first to the last.

    embeddings: float32 [n, d] unit vectors each, of the same faces. Rates that the impostor pairs do not carry are
    left out; raises TooFewImpostors if none is carried.
    """
    people = People.of(identity, family)
    everyone = np.ones(len(people.pictures))
    carried = [fmr for fmr in fmrs if fmr * people.impostor_weight(everyone) >= MIN_FALSE_MATCHES]
    if not carried:
        raise TooFewImpostors(f"{len(identity)} faces carry none of the false match rates {list(fmrs)}")
    ranked = [RankedScores.of(embedding, people, max(carried)) for embedding in embeddings]
    random = np.random.default_rng(seed)
    weights = [everyone, *(_drawn(len(everyone), random) for _ in range(draws))]
    table = np.array(
        [[[of.fnmr(f, w, people.impostor_weight(w)) for f in carried] for of in ranked] for w in weights]
    )
    each = [{f: _interval(table[:, i, j]) for j, f in enumerate(carried)} for i in range(len(ranked))]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(table[:, 0] / table[:, -1], nan=1.0)
    return each, {f: _interval(ratio[:, j]) for j, f in enumerate(carried)}


def _drawn(people: int, random: np.random.Generator) -> np.ndarray:
    return np.bincount(random.integers(0, people, people), minlength=people).astype(np.float64)


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0], values[0])
    return Interval(float(values[0]), float(low), float(high))
