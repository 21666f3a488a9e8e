"""By how much one embedder's FNMR differs from another's on the same faces, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluation.bootstrap import Interval, RankedScores, drawn_people
from training.evaluation.pairwise import People
from training.evaluation.verification import MIN_FALSE_MATCHES, TooFewImpostors


def fnmr_differences(
    embeddings: Sequence[np.ndarray],
    base: np.ndarray,
    identity: np.ndarray,
    family: np.ndarray,
    fmr: float,
    draws: int = 500,
    seed: int = 0,
) -> list[Interval]:
    """FNMR at `fmr` of each of `embeddings`, less that of `base`; each embedder has its own threshold.

    embeddings, base: float32 [n, d] unit vectors of the same faces, d may differ; identity: int [n]; family: str [n],
    empty where unknown, kin apart. The bounds hold 95 % of the differences over `draws` sets of people drawn with
    replacement, the same for both of a pair: what is hard for both cancels. Raises TooFewImpostors, NotUnitVectors.
    """
    people = People.of(identity, family)
    pairs = people.impostor_weight(np.ones(len(people.pictures)))
    if fmr * pairs < MIN_FALSE_MATCHES:
        raise TooFewImpostors(f"{pairs:,.0f} impostor pairs cannot carry FMR {fmr:g}")
    ranked = [RankedScores.of(embedding, people, fmr) for embedding in (base, *embeddings)]
    weights = drawn_people(len(people.pictures), draws, seed)
    rates = np.array([[of.fnmr([fmr], w, people.impostor_weight(w))[0] for of in ranked] for w in weights])
    return [Interval.of(rates[:, i] - rates[:, 0]) for i in range(1, len(ranked))]
