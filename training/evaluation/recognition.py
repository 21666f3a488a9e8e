"""What an embedder can do, measured on validation people and on LFW's pictures, beside the reference in the same run.

Figures are of the graph as served: one crop, no flip. Whoever adds vectors of flipped crops says so (`served=False`),
and the report keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.data.identities import Faces
from training.data.overlap import people_of
from training.data.pairs import Pairs
from training.evaluation.bootstrap import Interval, compared, fnmr_intervals
from training.evaluation.groups import GroupRates, by_group
from training.evaluation.identification import (
    FPIRS,
    Identification,
    drawn_split,
    first_enrolled,
    identification,
)
from training.evaluation.pairwise import People, ScoreCounts
from training.evaluation.verification import MIN_FALSE_MATCHES, TooFewImpostors, ten_folds

FMRS = (1e-2, 1e-3)  # over all pairs of validation
LFW_FMRS = (1e-3, 1e-4)  # over all pairs of LFW's pictures
SOURCES_FMR = 1e-3
GALLERIES, SPLITS = (50, 100, 200, 400), 20  # people enrolled of validation, and how often they are drawn


@dataclass(frozen=True)
class Embedded:
    """One embedder's unit vectors: float32 [n, d] of the validation faces, float32 [m, d] of LFW's pictures, where
    there are any.

    served: whether the service makes them so; vectors of which it does not (a crop and its flip, added) are an extra
    line.
    """

    name: str
    validation: np.ndarray
    lfw: np.ndarray | None
    served: bool = True


@dataclass(frozen=True)
class Overlap:
    """People of the evaluation sets who look, to an independent embedder, like somebody of the training set: of LFW as
    `people_of` has them (None where it was not there), and validation identities. `how`: by what rule, for the
    report."""

    lfw: frozenset[str] | None
    validation: frozenset[int]
    how: str

    @property
    def anybody(self) -> bool:
        """Whether there is anybody to leave out."""
        return bool(self.lfw or self.validation)

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it: how many, not who."""
        of_lfw = None if self.lfw is None else len(self.lfw)
        return {"lfw_people": of_lfw, "validation_people": len(self.validation), "how": self.how}


@dataclass(frozen=True)
class NamedPictures:
    """All pairs of LFW's pictures: FNMR by FMR; one to many: who has several pictures enrols the first (None where too
    few search)."""

    people: int
    fnmr: Mapping[float, Interval]
    scores: ScoreCounts
    search: Identification | None


@dataclass(frozen=True)
class OnLfw:
    """Ten folds: accuracy in 0–1, its standard error, on how many pairs of how many pictures; and what needs to know
    who is on each picture, which a .bin pack does not tell."""

    accuracy: float
    error: float
    pairs: int
    pictures: int
    named: NamedPictures | None

    @property
    def fnmr(self) -> Mapping[float, Interval]:
        """By FMR, over all pairs of the pictures."""
        return self.named.fnmr if self.named else {}

    @property
    def search(self) -> Identification | None:
        return self.named.search if self.named else None

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        told: dict[str, object] = {
            "accuracy": self.accuracy,
            "standard_error": self.error,
            "pairs": self.pairs,
        }
        if of := self.named:
            everybody = {"people": of.people, "pictures": self.pictures, **_rates(of.fnmr, of.scores)}
            told |= {"all_pairs": everybody, "search": of.search.metrics() if of.search else {}}
        return told


@dataclass(frozen=True)
class OnValidation:
    """All pairs, kin apart: FNMR by FMR; one to many by gallery size; rates by the set that a face comes from.

    five_people: the share of the mated pairs that the five people with most pictures make.
    """

    people: int
    faces: int
    five_people: float
    fnmr: Mapping[float, Interval]
    scores: ScoreCounts
    galleries: Sequence[Identification]
    sources: Sequence[GroupRates]

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        return {
            **_rates(self.fnmr, self.scores),
            "people": self.people,
            "faces": self.faces,
            "mated_of_five_people": self.five_people,
            "search": [of.metrics() for of in self.galleries],
            "sources": [of.metrics() for of in self.sources],
        }


@dataclass(frozen=True)
class Disjoint:
    """The same without the people who overlap the training set."""

    lfw: OnLfw | None
    validation: Mapping[float, Interval]


@dataclass(frozen=True)
class Recognition:
    """One embedder's results; None: LFW, or the overlap, was not assessed."""

    name: str
    on_lfw: OnLfw | None
    on_validation: OnValidation
    disjoint: Disjoint | None = None
    served: bool = True

    @property
    def lfw(self) -> float | None:
        """Accuracy over the ten folds, 0–1."""
        return self.on_lfw.accuracy if self.on_lfw else None

    @property
    def fnmr(self) -> Mapping[float, Interval]:
        """By FMR, over all pairs of validation."""
        return self.on_validation.fnmr

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        told: dict[str, object] = {"lfw": _told(self.on_lfw), "validation": self.on_validation.metrics()}
        if self.disjoint:
            rates = {_key(fmr): vars(of) for fmr, of in self.disjoint.validation.items()}
            told["without_overlap"] = {"lfw": _told(self.disjoint.lfw), "validation": rates}
        return told


def recognition(
    embedded: Sequence[Embedded],
    validation: Faces,
    lfw: Pairs | None,
    draws: int = 300,
    overlap: Overlap | None = None,
) -> tuple[list[Recognition], dict[float, Interval]]:
    """Results of each embedder, ours first, and the ratio of our FNMR on validation to the last served one's, by FMR.

    The ratio is empty where nobody is served beside us. Rates that a set does not carry are left out. lfw: None where
    there are no such pairs, and then the embedders have no vectors of them. Raises TooFewImpostors if validation
    carries none of FMRS, NotUnitVectors.
    """
    ordered = [*embedded[:1], *sorted(embedded[1:], key=lambda of: of.served)]  # the reference, served, last
    vectors = [of.validation for of in ordered]
    people = People.of(validation.identity, validation.family)
    rates, ratio, counts = compared(vectors, people, FMRS, draws)
    if not ratio:
        raise TooFewImpostors(
            f"{len(validation)} validation faces carry none of the FMRs {list(FMRS)}: align more people"
        )
    on_lfw = _on_lfw(ordered, lfw, frozenset(), draws)
    mated = np.sort(people.pictures * (people.pictures - 1) // 2)
    five = float(mated[-5:].sum() / mated.sum())
    results = []
    for of, fnmr, scores, pairs in zip(ordered, rates, counts, on_lfw, strict=True):
        galleries, sources = _galleries(of.validation, validation, draws), _sources(of, validation, draws)
        size = len(people.pictures), len(validation), five
        found = OnValidation(*size, fnmr, scores, galleries, sources)
        results.append(Recognition(of.name, pairs, found, served=of.served))
    if overlap and overlap.anybody:
        apart = _without(ordered, validation, lfw, overlap, draws)
        results = [replace(of, disjoint=without) for of, without in zip(results, apart, strict=True)]
    return results, ratio if sum(of.served for of in ordered) > 1 else {}


def _on_lfw(
    embedded: Sequence[Embedded], lfw: Pairs | None, without: frozenset[str], draws: int
) -> Sequence[OnLfw | None]:
    """Each embedder's, the people of `without` and every pair with one of them left out."""
    vectors = [of.lfw for of in embedded if of.lfw is not None]
    if lfw is None:
        return [None] * len(embedded)
    person, are_names = people_of(lfw)
    kept = ~np.isin(person, sorted(without))
    pairs = kept[lfw.first] & kept[lfw.second]
    named = _named([of[kept] for of in vectors], person[kept], draws) if are_names else [None] * len(vectors)
    size = int(pairs.sum()), int(kept.sum())
    return [
        OnLfw(*ten_folds(lfw.similarity(of), lfw.same, lfw.folds, pairs), *size, beside)
        for of, beside in zip(vectors, named, strict=True)
    ]


def _named(vectors: Sequence[np.ndarray], person: np.ndarray, draws: int) -> list[NamedPictures]:
    """vectors: float32 [m, d] of each embedder; person: str [m]."""
    unrelated = np.full(len(person), "")
    people = People.of(person, unrelated)
    rates, _, counts = compared(vectors, people, LFW_FMRS, draws)
    found = []
    for of, fnmr, scores in zip(vectors, rates, counts, strict=True):
        try:
            search = identification(of, person, unrelated, [first_enrolled(person)], draws)
        except TooFewImpostors:
            search = None
        found.append(NamedPictures(len(people.pictures), fnmr, scores, search))
    return found


def _told(of: OnLfw | None) -> object:
    return of.metrics() if of else "not assessed"


def _galleries(embedding: np.ndarray, faces: Faces, draws: int) -> list[Identification]:
    """One for each of GALLERIES that fits and leaves enough to search; the same splits for every embedder."""
    found = []
    for gallery in GALLERIES:
        if gallery >= len(np.unique(faces.identity)):
            break
        random = np.random.default_rng([gallery, SPLITS])
        splits = [drawn_split(faces.identity, gallery, random) for _ in range(SPLITS)]
        if max(FPIRS) * np.mean([len(split.unknown) for split in splits]) >= MIN_FALSE_MATCHES:
            found.append(identification(embedding, faces.identity, faces.family, splits, draws))
    return found


def _sources(of: Embedded, faces: Faces, draws: int) -> list[GroupRates]:
    try:
        return by_group(of.validation, faces.identity, faces.family, faces.source, SOURCES_FMR, draws)
    except TooFewImpostors:
        return []


def _without(
    embedded: Sequence[Embedded], validation: Faces, lfw: Pairs | None, overlap: Overlap, draws: int
) -> list[Disjoint]:
    kept = ~np.isin(validation.identity, sorted(overlap.validation))
    vectors = [of.validation[kept] for of in embedded]
    rates, _ = fnmr_intervals(vectors, validation.identity[kept], validation.family[kept], FMRS, draws)
    on_lfw = _on_lfw(embedded, lfw, overlap.lfw or frozenset(), draws)
    return [Disjoint(*of) for of in zip(on_lfw, rates, strict=True)]


def _rates(fnmr: Mapping[float, Interval], scores: ScoreCounts) -> dict[str, object]:
    pairs = {"mated": int(scores.genuine.sum()), "non_mated": int(scores.impostor.sum())}
    return {**{_key(fmr): vars(of) for fmr, of in fnmr.items()}, **pairs}


def _key(fmr: float) -> str:
    return f"fnmr@fmr={fmr:g}"
