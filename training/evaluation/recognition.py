"""What an embedder can do, measured on validation people and on LFW's pictures, beside the reference in the same run.

Figures are of the graph as served: one crop, no flip. Whoever adds vectors of flipped crops says so (`served=False`),
and the report keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.data.identities import Faces
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
    """One embedder's unit vectors: float32 [n, d] of the validation faces, float32 [m, d] of LFW's pictures.

    served: whether the service makes them so; vectors of which it does not (a crop and its flip, added) are an extra
    line.
    """

    name: str
    validation: np.ndarray
    lfw: np.ndarray
    served: bool = True


@dataclass(frozen=True)
class Overlap:
    """People of the evaluation sets who look, to an independent embedder, like somebody of the training set: names as
    `lfw_people` has them, and validation identities. `how`: by what rule, for the report."""

    lfw: frozenset[str]
    validation: frozenset[int]
    how: str

    @property
    def anybody(self) -> bool:
        """Whether there is anybody to leave out."""
        return bool(self.lfw or self.validation)

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it: how many, not who."""
        return {"lfw_people": len(self.lfw), "validation_people": len(self.validation), "how": self.how}


@dataclass(frozen=True)
class OnLfw:
    """Ten folds: accuracy in 0–1, its standard error, on how many pairs; all pairs of the pictures: FNMR by FMR; one
    to many: who has several pictures enrols the first (None where too few search)."""

    accuracy: float
    error: float
    pairs: int
    people: int
    pictures: int
    fnmr: Mapping[float, Interval]
    scores: ScoreCounts
    search: Identification | None

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        return {
            "accuracy": self.accuracy,
            "standard_error": self.error,
            "pairs": self.pairs,
            "all_pairs": {"people": self.people, "pictures": self.pictures, **_rates(self.fnmr, self.scores)},
            "search": self.search.metrics() if self.search else {},
        }


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

    lfw: OnLfw
    validation: Mapping[float, Interval]


@dataclass(frozen=True)
class Recognition:
    """One embedder's results; `disjoint` is None where the overlap was not assessed."""

    name: str
    on_lfw: OnLfw
    on_validation: OnValidation
    disjoint: Disjoint | None = None
    served: bool = True

    @property
    def lfw(self) -> float:
        """Accuracy over the ten folds, 0–1."""
        return self.on_lfw.accuracy

    @property
    def fnmr(self) -> Mapping[float, Interval]:
        """By FMR, over all pairs of validation."""
        return self.on_validation.fnmr

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        told: dict[str, object] = {"lfw": self.on_lfw.metrics(), "validation": self.on_validation.metrics()}
        if self.disjoint:
            rates = {_key(fmr): vars(of) for fmr, of in self.disjoint.validation.items()}
            told["without_overlap"] = {"lfw": self.disjoint.lfw.metrics(), "validation": rates}
        return told


def recognition(
    embedded: Sequence[Embedded],
    validation: Faces,
    lfw: Pairs,
    draws: int = 300,
    overlap: Overlap | None = None,
) -> tuple[list[Recognition], dict[float, Interval]]:
    """Results of each embedder, ours first, and the ratio of our FNMR on validation to the last served one's, by FMR.

    The ratio is empty where nobody is served beside us. Rates that a set does not carry are left out. Raises
    TooFewImpostors if validation carries none of FMRS, NotUnitVectors.
    """
    ordered = [*embedded[:1], *sorted(embedded[1:], key=lambda of: of.served)]  # the reference, served, last
    vectors = [of.validation for of in ordered]
    people = People.of(validation.identity, validation.family)
    rates, ratio, counts = compared(vectors, people, FMRS, draws)
    if not ratio:
        raise TooFewImpostors(f"{len(validation)} validation faces carry none of the FMRs {list(FMRS)}")
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


def lfw_people(lfw: Pairs) -> np.ndarray:
    """str [m]: who is on each picture of `lfw.crops`, from its name `Person/Person_0001`."""
    return np.array([name.split("/")[0] for name in lfw.names])


def _on_lfw(embedded: Sequence[Embedded], lfw: Pairs, without: frozenset[str], draws: int) -> list[OnLfw]:
    """Each embedder's, the people of `without` and every pair with one of them left out."""
    person = lfw_people(lfw)
    kept = ~np.isin(person, sorted(without))
    person, unrelated = person[kept], np.full(int(kept.sum()), "")
    people = People.of(person, unrelated)
    rates, _, counts = compared([of.lfw[kept] for of in embedded], people, LFW_FMRS, draws)
    pairs = kept[lfw.first] & kept[lfw.second]
    results = []
    for of, fnmr, scores in zip(embedded, rates, counts, strict=True):
        accuracy, error = ten_folds(lfw.similarity(of.lfw), lfw.same, lfw.folds, pairs)
        try:
            search = identification(of.lfw[kept], person, unrelated, [first_enrolled(person)], draws)
        except TooFewImpostors:
            search = None
        size = int(pairs.sum()), len(people.pictures), len(person)
        results.append(OnLfw(accuracy, error, *size, fnmr, scores, search))
    return results


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
    embedded: Sequence[Embedded], validation: Faces, lfw: Pairs, overlap: Overlap, draws: int
) -> list[Disjoint]:
    kept = ~np.isin(validation.identity, sorted(overlap.validation))
    vectors = [of.validation[kept] for of in embedded]
    rates, _ = fnmr_intervals(vectors, validation.identity[kept], validation.family[kept], FMRS, draws)
    on_lfw = _on_lfw(embedded, lfw, overlap.lfw, draws)
    return [Disjoint(*of) for of in zip(on_lfw, rates, strict=True)]


def _rates(fnmr: Mapping[float, Interval], scores: ScoreCounts) -> dict[str, object]:
    pairs = {"mated": int(scores.genuine.sum()), "non_mated": int(scores.impostor.sum())}
    return {**{_key(fmr): vars(of) for fmr, of in fnmr.items()}, **pairs}


def _key(fmr: float) -> str:
    return f"fnmr@fmr={fmr:g}"
