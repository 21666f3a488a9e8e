"""Intervals of FNMR at FMR by drawing people anew: scores that share a person are not independent.

A person drawn w times brings each mated pair w times, and against one drawn v times each non-mated pair w · v times;
two copies of one person are never compared. Without drawing all pairs count alike, so whoever has many pictures
weighs more: n pictures make n (n − 1) / 2 mated pairs. All embedders of one call are judged with the same drawn
people, so their ratio has an interval too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.pairwise import People, ScoreCounts, blocks, score_bins
from training.evaluation.verification import MIN_FALSE_MATCHES, TooFewImpostors

_SLACK = 4.0  # impostor scores kept, as a multiple of the largest rate: a drawn set may be heavier at the top


@dataclass(frozen=True)
class Interval:
    """A value on the whole set with the 2.5 % and 97.5 % quantiles of the drawn sets."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(values: np.ndarray) -> Interval:
        """values: float [1 + draws], the whole set's first; draws in which it is not defined are NaN."""
        low, high = np.nanquantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0], values[0])
        return Interval(float(values[0]), float(low), float(high))


def drawn_people(people: int, draws: int, seed: int) -> np.ndarray:
    """float64 [1 + draws, people]: how often each was drawn with replacement; in the first row everybody once."""
    random = np.random.default_rng(seed)
    rows = [
        np.bincount(random.integers(0, people, people), minlength=people).astype(np.float64)
        for _ in range(draws)
    ]
    return np.stack([np.ones(people), *rows])


@dataclass(frozen=True)
class RankedScores:
    """What one embedder scored: all mated pairs, and the highest non-mated ones, best first, with their people."""

    genuine: np.ndarray
    genuine_person: np.ndarray
    highest: np.ndarray
    first: np.ndarray
    second: np.ndarray
    counts: ScoreCounts

    @staticmethod
    def of(embedding: np.ndarray, people: People, largest_fmr: float) -> RankedScores:
        """embedding: float32 [n, d] unit vectors, in the order of `people.of_face`. Raises NotUnitVectors."""
        counts = ScoreCounts.of(embedding, people)
        kept = counts.highest_impostors(int(_SLACK * largest_fmr * counts.impostor.sum()) + 100)
        mated, strangers = [], []
        for of in blocks(embedding, people):
            rows, columns = np.nonzero(of.mated)
            mated.append((of.similarity[rows, columns], of.first[rows]))
            rows, columns = np.nonzero(of.stranger & (score_bins(of.similarity) >= kept))
            strangers.append((of.similarity[rows, columns], of.first[rows], of.second[columns]))
        genuine, person = (np.concatenate(part) for part in zip(*mated, strict=True))
        scores, first, second = (np.concatenate(part) for part in zip(*strangers, strict=True))
        order = np.argsort(-scores, kind="stable")
        return RankedScores(genuine, person, scores[order], first[order], second[order], counts)

    def fnmr(self, fmrs: Sequence[float], weight: np.ndarray, impostors: float) -> list[float]:
        """FNMR where the weighted share of non-mated pairs at or above the threshold is at most each of `fmrs`.

        weight: float [people]; impostors: the weighted number of all non-mated pairs.
        """
        passed = np.cumsum(weight[self.first] * weight[self.second])
        of = weight[self.genuine_person]
        rates = []
        for fmr in fmrs:
            place = int(np.searchsorted(passed, fmr * impostors, side="right"))
            refused = self.highest[min(place, len(self.highest) - 1)]
            rates.append(float(of[self.genuine <= refused].sum() / of.sum()))
        return rates


def fnmr_intervals(
    embeddings: Sequence[np.ndarray],
    identity: np.ndarray,
    family: np.ndarray,
    fmrs: Sequence[float],
    draws: int = 300,
    seed: int = 0,
) -> tuple[list[dict[float, Interval]], dict[float, Interval]]:
    """FNMR by FMR for each embedder, and the ratio of the first to the last.

    embeddings: float32 [n, d] unit vectors each, of the same faces; identity: int or str [n]; family: str [n], empty
    where unknown. Rates that the impostor pairs do not carry are left out; raises TooFewImpostors if none is carried.
    """
    rates, ratio, _ = compared(embeddings, People.of(identity, family), fmrs, draws, seed)
    if not ratio:
        raise TooFewImpostors(f"{len(identity)} faces carry none of the false match rates {list(fmrs)}")
    return rates, ratio


def compared(
    embeddings: Sequence[np.ndarray], people: People, fmrs: Sequence[float], draws: int = 300, seed: int = 0
) -> tuple[list[dict[float, Interval]], dict[float, Interval], list[ScoreCounts]]:
    """As `fnmr_intervals`, but with no rate where none is carried; and how often each score occurred."""
    pairs = people.impostor_weight(np.ones(len(people.pictures)))
    carried = [fmr for fmr in fmrs if fmr * pairs >= MIN_FALSE_MATCHES]
    ranked = [RankedScores.of(embedding, people, max(carried, default=0)) for embedding in embeddings]
    weights = drawn_people(len(people.pictures), draws, seed)
    table = np.array([[of.fnmr(carried, w, people.impostor_weight(w)) for of in ranked] for w in weights])
    each = [{f: Interval.of(table[:, i, j]) for j, f in enumerate(carried)} for i in range(len(ranked))]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(table[:, 0] / table[:, -1], nan=1.0)
    return each, {f: Interval.of(ratio[:, j]) for j, f in enumerate(carried)}, [of.counts for of in ranked]
