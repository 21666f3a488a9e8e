"""Open-set one-to-many search (ISO/IEC 19795-1): FNIR at FPIR, and rank k, over galleries of several sizes.

A person's score is the best over that person's templates. A search misses when another person scores as high (so rank
1 is asked for, and equal scores count against us) or when the right one stays below the threshold; the threshold is
the lowest at which at most the asked share of searches of unknown people finds anybody. Kin of the searched person
are passed over in the gallery.

Every search counts alike, whoever is searched; intervals come from drawing the searched people anew (bootstrap.py),
while each split's gallery stays as it is: a gallery drawn with replacement would be a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.bootstrap import Interval, drawn_people
from training.evaluation.verification import (
    MIN_FALSE_MATCHES,
    TooFewImpostors,
    related,
    require_unit_vectors,
    threshold_at_fmr,
)

FPIRS = (0.1, 0.01, 0.001)
RANKS = (1, 5)


@dataclass(frozen=True)
class Split:
    """int rows of a set of faces: `enrolled` in the gallery; `mated`, searched faces of the same people; `unknown`,
    searched faces of people who are not in the gallery."""

    enrolled: np.ndarray
    mated: np.ndarray
    unknown: np.ndarray


def first_enrolled(identity: np.ndarray) -> Split:
    """People with two or more pictures enrol the first; their others are searched, and so is everybody else.

    identity: int or str [n].
    """
    _, first, label, counts = np.unique(identity, return_index=True, return_inverse=True, return_counts=True)
    several = counts[label] > 1
    enrolled = np.sort(first[counts > 1])
    return Split(enrolled, np.setdiff1d(np.flatnonzero(several), enrolled), np.flatnonzero(~several))


def drawn_split(identity: np.ndarray, gallery: int, random: np.random.Generator, templates: int = 1) -> Split:
    """`gallery` people drawn from all enrol up to `templates` drawn pictures each, but leave one to be searched where
    they have two; everybody else is unknown.

    identity: [n]. Raises ValueError unless somebody is enrolled and somebody is not.
    """
    people, label = np.unique(identity, return_inverse=True)
    if not 0 < gallery < len(people):
        raise ValueError(f"{len(people)} people cannot fill a gallery of {gallery} and leave someone unknown")
    inside = np.isin(label, random.permutation(len(people))[:gallery])
    shuffled = random.permutation(np.flatnonzero(inside))
    shuffled = shuffled[np.argsort(label[shuffled], kind="stable")]
    starts, counts = np.unique(label[shuffled], return_index=True, return_counts=True)[1:]
    place = np.arange(len(shuffled)) - np.repeat(starts, counts)  # of a picture among its person's
    taken = place < np.repeat(np.clip(counts - 1, 1, templates), counts)
    return Split(np.sort(shuffled[taken]), np.sort(shuffled[~taken]), np.flatnonzero(~inside))


@dataclass(frozen=True)
class Searches:
    """What a split's searches found.

    mate: float32 [m], what the searched person scored; rank: int [m], the place of that score, 1 the first;
    mated_row: int [m]; highest: float32 [u], what anybody scored in a search of somebody unknown (−inf where all are
    kin); unknown_row: int [u].
    """

    mate: np.ndarray
    rank: np.ndarray
    mated_row: np.ndarray
    highest: np.ndarray
    unknown_row: np.ndarray

    def fpir(self, threshold: float) -> float:
        """The share of searches of unknown people in which anybody reaches `threshold`."""
        return float((self.highest >= threshold).mean())

    def fnir(self, threshold: float) -> float:
        """The share of searches of enrolled people that do not find them first and at or above `threshold`."""
        return float(((self.mate < threshold) | (self.rank > 1)).mean())

    def found_within(self, rank: int) -> float:
        """The share of searches of enrolled people that find them among the best `rank`, without a threshold."""
        return float((self.rank <= rank).mean())

    def threshold_at_fpir(self, fpir: float) -> float:
        """The smallest threshold with FPIR ≤ fpir. Raises TooFewImpostors."""
        if fpir * len(self.highest) < MIN_FALSE_MATCHES:
            raise TooFewImpostors(
                f"{len(self.highest)} searches of unknown people cannot carry FPIR {fpir:g}"
            )
        return threshold_at_fmr(self.highest, fpir)


def search(embedding: np.ndarray, identity: np.ndarray, family: np.ndarray, split: Split) -> Searches:
    """embedding: float32 [n, d] unit vectors; identity: int or str [n]; family: str [n], empty where unknown.

    Raises NotUnitVectors; ValueError for a split that enrols nobody or searches no one of either kind.
    """
    require_unit_vectors(embedding)
    if not (len(split.enrolled) and len(split.mated) and len(split.unknown)):
        raise ValueError(
            f"{len(split.enrolled)} templates, {len(split.mated)} searches of enrolled and {len(split.unknown)} of "
            "unknown people: each is needed"
        )
    label = np.unique(identity, return_inverse=True)[1]
    enrolled = split.enrolled[np.argsort(label[split.enrolled], kind="stable")]
    persons, starts = np.unique(label[enrolled], return_index=True)
    near = related(label, family)[:, persons]

    def scores(rows: np.ndarray) -> np.ndarray:
        best = np.maximum.reduceat(embedding[rows] @ embedding[enrolled].T, starts, axis=1)
        best[near[label[rows]] & (label[rows][:, None] != persons)] = -np.inf
        return np.asarray(best)

    of_mated = scores(split.mated)
    own = np.searchsorted(persons, label[split.mated])
    mate = of_mated[np.arange(len(own)), own]
    rank = (of_mated >= mate[:, None]).sum(1)
    return Searches(mate, rank, split.mated, scores(split.unknown).max(1), split.unknown)


@dataclass(frozen=True)
class Identification:
    """One gallery size, averaged over its splits.

    gallery: people enrolled; mated, unknown: searches a split; fnir: by FPIR, those that the searches carry; ranks:
    share found among the best k, by k; det: FPIR and FNIR float [p] over all splits' searches together.
    """

    gallery: int
    splits: int
    mated: int
    unknown: int
    fnir: Mapping[float, Interval]
    ranks: Mapping[int, Interval]
    det: tuple[np.ndarray, np.ndarray]

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        rates = {f"fnir@fpir={fpir:g}": vars(of) for fpir, of in self.fnir.items()}
        ranks = {f"rank-{k}": vars(of) for k, of in self.ranks.items()}
        counts = {
            "gallery": self.gallery,
            "splits": self.splits,
            "mated": self.mated,
            "unknown": self.unknown,
        }
        return {**counts, **rates, **ranks}


def identification(
    embedding: np.ndarray,
    identity: np.ndarray,
    family: np.ndarray,
    splits: Sequence[Split],
    draws: int = 300,
    seed: int = 0,
) -> Identification:
    """Averages over `splits` of one gallery size, each rate at its own split's threshold.

    Arrays as for `search`. FPIRs that the searches of a split, on average, do not carry are left out; raises
    TooFewImpostors if none is carried, and what `search` raises.
    """
    unknown = round(np.mean([len(split.unknown) for split in splits]))
    carried = [fpir for fpir in FPIRS if fpir * unknown >= MIN_FALSE_MATCHES]
    if not carried:
        raise TooFewImpostors(f"{unknown} searches of unknown people carry none of the FPIRs {list(FPIRS)}")
    people, label = np.unique(identity, return_inverse=True)
    weights = drawn_people(len(people), draws, seed)
    found = [search(embedding, identity, family, split) for split in splits]
    rates = np.mean([_weighted(of, label, weights, carried) for of in found], axis=0)
    intervals = [Interval.of(rate) for rate in rates]
    return Identification(
        gallery=len(np.unique(label[splits[0].enrolled])),
        splits=len(splits),
        mated=round(np.mean([len(split.mated) for split in splits])),
        unknown=unknown,
        fnir=dict(zip(carried, intervals[: len(carried)], strict=True)),
        ranks=dict(zip(RANKS, intervals[len(carried) :], strict=True)),
        det=_det(found),
    )


def _weighted(of: Searches, label: np.ndarray, weights: np.ndarray, fpirs: Sequence[float]) -> np.ndarray:
    """float [FPIRs + ranks, 1 + draws]: FNIR at each FPIR, then the share found within each rank. NaN for a draw that
    has no search of one kind."""
    falling = np.argsort(-of.highest, kind="stable")
    passed = np.cumsum(weights[:, label[of.unknown_row[falling]]], axis=1)
    allowed = passed[:, -1:]
    mated = weights[:, label[of.mated_row]]
    searches = mated.sum(1)
    rows = []
    with np.errstate(invalid="ignore"):
        for fpir in fpirs:
            place = np.minimum((passed <= fpir * allowed).sum(1), len(falling) - 1)
            refused = of.highest[falling[place]]
            missed = (of.mate <= refused[:, None]) | (of.rank > 1)
            rows.append(np.where(allowed[:, 0] > 0, (mated * missed).sum(1) / searches, np.nan))
        rows += [mated @ (of.rank <= k) / searches for k in RANKS]
    return np.array(rows)


def _det(found: Sequence[Searches], points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """FPIR and FNIR at `points` thresholds common to all splits, down to the smallest FPIR that a split carries."""
    falling = np.sort(np.concatenate([of.highest for of in found]))[::-1]
    mate = np.sort(np.concatenate([np.where(of.rank > 1, -np.inf, of.mate) for of in found]))
    least = min(MIN_FALSE_MATCHES * len(found), len(falling))
    thresholds = falling[np.unique(np.geomspace(least, len(falling), points).astype(int)) - 1]
    accepted = np.searchsorted(-falling, -thresholds, side="right")
    return accepted / len(falling), np.searchsorted(mate, thresholds, side="left") / len(mate)
