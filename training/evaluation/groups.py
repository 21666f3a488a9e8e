"""How the error rates differ between groups of faces, all at one threshold: the one that the whole set has at an FMR.

Both faces of a pair are of the group. The threshold is held while people are drawn anew, as the service's own is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.evaluation.bootstrap import Interval, drawn_people
from training.evaluation.pairwise import People
from training.evaluation.verification import MIN_FALSE_MATCHES, all_pairs, threshold_at_fmr


@dataclass(frozen=True)
class GroupRates:
    """One group: who and how many pairs it has, and its error rates; None where nothing can be said: no mated pair, or
    fewer non-mated ones than would carry the FMR of the whole set."""

    group: str
    people: int
    faces: int
    mated: int
    non_mated: int
    fnmr: Interval | None
    fmr: Interval | None

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        return {name: vars(of) if isinstance(of, Interval) else of for name, of in vars(self).items()}


def by_group(
    embedding: np.ndarray,
    identity: np.ndarray,
    family: np.ndarray,
    group: np.ndarray,
    fmr: float = 1e-3,
    draws: int = 300,
    seed: int = 0,
) -> list[GroupRates]:
    """Each group's rates, kin apart, at the threshold that has `fmr` over all pairs.

    embedding: float32 [n, d] unit vectors; identity: int [n]; family, group: str [n]. Raises TooFewImpostors if the
    whole set does not carry `fmr`, NotUnitVectors.
    """
    threshold = threshold_at_fmr(all_pairs(embedding, identity, family).impostor, fmr)
    rates = []
    for name in np.unique(group):
        rows = group == name
        rates.append(
            _rates(str(name), embedding[rows], identity[rows], family[rows], threshold, fmr, draws, seed)
        )
    return rates


def _rates(
    name: str,
    embedding: np.ndarray,
    identity: np.ndarray,
    family: np.ndarray,
    threshold: float,
    fmr: float,
    draws: int,
    seed: int,
) -> GroupRates:
    people = People.of(identity, family)
    similarity = embedding @ embedding.T
    first, second = np.nonzero(np.triu(people.of_face[:, None] == people.of_face, 1))
    person, missed = people.of_face[first], similarity[first, second] < threshold
    passing = np.argwhere(np.triu(similarity >= threshold, 1))
    one, other = people.of_face[passing].T
    strangers = ~people.related[one, other]
    one, other = one[strangers], other[strangers]
    weights = drawn_people(len(people.pictures), draws, seed)
    pairs, misses = (np.bincount(of, minlength=len(people.pictures)) for of in (person, person[missed]))
    with np.errstate(invalid="ignore"):
        fnmr = (weights @ misses) / (weights @ pairs)
        impostors = np.array([people.impostor_weight(weight) for weight in weights])
        false = (weights[:, one] * weights[:, other]).sum(1) / np.where(impostors > 0, impostors, np.nan)
    return GroupRates(
        group=name,
        people=len(people.pictures),
        faces=len(embedding),
        mated=len(person),
        non_mated=int(impostors[0]),
        fnmr=Interval.of(fnmr) if len(person) else None,
        fmr=Interval.of(false) if fmr * impostors[0] >= MIN_FALSE_MATCHES else None,
    )
