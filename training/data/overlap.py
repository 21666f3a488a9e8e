"""Who of an evaluation set may have been trained on: people alike by their faces, and people of one name.

A figure on a set that shares people with the training is too good; results are therefore given twice, of all pairs and
of those without the people found here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Set
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.data.cleaning import Floats, Ints, agreement
from training.data.identities import Faces
from training.data.pairs import Pairs
from training.data.pictures import BadData

Person = TypeVar("Person", bound=Hashable)

SHARE = (
    0.75  # of the training faces that are at least as similar to their own people as the threshold by default
)
_ROWS = 1024  # of the similarities that are in memory at a time


@dataclass(frozen=True)
class Match:
    """An evaluation person who may have been trained on. similarity: of the likest two; by: "face", "name" or both."""

    person: str
    train_person: str
    similarity: float
    by: tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """Of one evaluation set. named: whether both sets have names to compare; threshold: see `overlapping`."""

    evaluation: str
    people: int
    train_people: int
    threshold: float
    named: bool
    matches: tuple[Match, ...]

    @property
    def overlapping(self) -> set[str]:
        return {of.person for of in self.matches}

    def __str__(self) -> str:
        by = [f"{sum(how in of.by for of in self.matches):,} by {how}" for how in ("face", "name")]
        found = f"{len(self.matches):,} of {self.people:,} people may be among the {self.train_people:,} trained on"
        names = "" if self.named else "; no names to compare"
        return f"{self.evaluation}: {found} ({', '.join(by)}; similarity from {self.threshold:.2f}{names})"

    def as_json(self) -> dict[str, object]:
        counts = {f"by_{how}": sum(how in of.by for of in self.matches) for how in ("face", "name")}
        return {**asdict(self), "overlapping": len(self.matches), **counts}


@dataclass(frozen=True)
class People:
    """Whose faces a set holds. embedding: float32 [n, d] unit vectors; person: [n] strings, names where `named`."""

    embedding: Floats
    person: npt.NDArray[np.str_]
    named: bool


def overlap(train: People, evaluation: People, name: str, threshold: float | None = None) -> Overlap:
    """The overlap report of one evaluation set called `name`. threshold: None is `usual(train)`."""
    trained, label = np.unique(train.person, return_inverse=True)
    threshold = usual(train.embedding, label) if threshold is None else threshold
    best = likest(train.embedding, label, evaluation.embedding, evaluation.person.tolist())
    named = train.named and evaluation.named
    by_name = same_names(best, trained.tolist()) if named else {}
    matches = []
    for person, (who, similarity) in best.items():
        by = tuple(how for how, of in (("face", similarity >= threshold), ("name", person in by_name)) if of)
        if by:
            other = str(trained[who]) if "face" in by else by_name[person]
            matches.append(Match(person, other, round(similarity, 4), by))
    matches.sort(key=lambda of: -of.similarity)
    return Overlap(name, len(best), len(trained), round(threshold, 4), named, tuple(matches))


def overlapping(
    train_embedding: Floats,
    train_label: Ints,
    probe_embedding: Floats,
    probe_person: Iterable[Person],
    threshold: float,
) -> set[Person]:
    """The probe people of whom a face is as similar as the threshold to what a training identity's faces agree on.

    embeddings: float32 [n, d] and [m, d] unit vectors; train_label: int64 [n], 0 … identities − 1; probe_person: [m].
    """
    best = likest(train_embedding, train_label, probe_embedding, probe_person)
    return {person for person, (_, similarity) in best.items() if similarity >= threshold}


def likest(
    train_embedding: Floats, train_label: Ints, probe_embedding: Floats, probe_person: Iterable[Person]
) -> dict[Person, tuple[int, float]]:
    """For each probe person the training label that any of the person's faces is most similar to, and how much."""
    direction = agreement(train_embedding, train_label)[0]
    best: dict[Person, tuple[int, float]] = {}
    people = list(probe_person)
    if len(people) != len(probe_embedding):
        raise ValueError(f"{len(probe_embedding)} faces of {len(people)} people")
    for start in range(0, len(people), _ROWS):
        similarity = probe_embedding[start : start + _ROWS] @ direction.T
        for row, who in enumerate(similarity.argmax(1).tolist()):
            person, alike = people[start + row], float(similarity[row, who])
            if person not in best or alike > best[person][1]:
                best[person] = who, alike
    return best


def usual(embedding: Floats, label: Ints) -> float:
    """The similarity that `SHARE` of the faces have at least to their identity's other faces: of another picture of one
    of these people as much can be expected. Raises BadData where nobody has two."""
    own = agreement(embedding, label)[1]
    own = own[~np.isnan(own)]
    if not len(own):
        raise BadData(
            "nobody has two pictures: there is no telling how alike one person's are; name a threshold"
        )
    return float(np.quantile(own, 1 - SHARE))


def same_names(people: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Which of the people have a namesake among the others, however it is written: Zoë_Müller is zoe muller."""
    plain = {_plain(name): name for name in others}
    return {name: plain[_plain(name)] for name in people if _plain(name) and _plain(name) in plain}


def apart(
    first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], people: Set[Hashable]
) -> npt.NDArray[np.bool_]:
    """[n]: whether neither person of a pair is among `people`. first, second: [n] people."""
    return np.array([one not in people and other not in people for one, other in _both(first, second)], bool)


def people_of(of: Faces | Pairs) -> tuple[npt.NDArray[np.str_], bool]:
    """[n] strings, who is on each face or crop, and whether these are names.

    Pairs whose pictures do not name their person: whoever is linked by mated pairs is one.
    """
    if isinstance(of, Faces):
        named = len(of.people) > 0
        return (of.people[of.label] if named else of.identity.astype(np.str_)), named
    if all("/" in name for name in of.names):
        return np.array([name.rpartition("/")[0] for name in of.names]), True
    links = of.first[of.same], of.second[of.same]
    graph = coo_array((np.ones(len(links[0])), links), shape=(len(of.names),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.str_), False


def _plain(name: str) -> str:
    """Letters and digits alone, without accents or case; empty for what has no two letters: it is a number."""
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    kept = "".join(letter for letter in decomposed if letter.isalnum())
    return kept if sum(letter.isalpha() for letter in kept) > 1 else ""


def _both(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> Iterable[tuple[object, object]]:
    return zip(first.tolist(), second.tolist(), strict=True)
