"""An evaluation set of people who do not exist, as vectors: no picture is needed to measure an embedder's vectors."""

from __future__ import annotations

import numpy as np

from tests.training.evaluation.drawn_scores import drawn_people
from training.data.identities import Faces
from training.data.pairs import Pairs
from training.evaluation.recognition import Embedded, Recognition, recognition


def drawn_validation(people: int = 80, noise: float = 1.0) -> tuple[Faces, np.ndarray]:
    """Faces without pictures, of two sources and some families, and their vectors."""
    embedding, identity, family = drawn_people(people, 4, noise=noise, seed=1)
    family[identity < 110] = "F1"
    label = np.unique(identity, return_inverse=True)[1]
    source = np.where(identity % 2, "odd", "even")
    blank = np.zeros((len(identity), 1, 1, 3), np.uint8)
    return Faces(blank, identity, label, family, np.ones(len(identity), np.float32), source), embedding


def drawn_lfw(folds: int = 10, half: int = 12, noise: float = 1.0) -> tuple[Pairs, np.ndarray]:
    """In each fold `half` people with two pictures and as many with one, and the vectors of their pictures."""
    people = folds * 2 * half
    pictures = np.where(np.arange(people) % (2 * half) < half, 2, 1)
    embedding, identity, _ = drawn_people(people, pictures, noise=noise, seed=2)
    order = np.argsort(identity, kind="stable")
    embedding, person = embedding[order], identity[order] - 100
    _, start, count = np.unique(person, return_index=True, return_counts=True)
    number = np.arange(len(person)) - np.repeat(start, count) + 1
    first, second, same = [], [], []
    for fold in range(folds):
        own = np.arange(fold * 2 * half, (fold + 1) * 2 * half)
        first += [*start[own[:half]], *start[own[::2]]]
        second += [*(start[own[:half]] + 1), *start[own[1::2]]]
        same += [True] * half + [False] * half
    names = tuple(f"P{who:04d}/P{who:04d}_{n:04d}" for who, n in zip(person, number, strict=True))
    blank = np.zeros((len(names), 1, 1, 3), np.uint8)
    return Pairs(blank, names, np.array(first), np.array(second), np.array(same), folds), embedding


def measured(draws: int = 10) -> tuple[list[Recognition], dict]:
    """Ours, the same with a flip that is not served, and a better reference."""
    validation, _ = drawn_validation()
    lfw, _ = drawn_lfw()
    embedded = [
        Embedded(name, drawn_validation(noise=noise)[1], drawn_lfw(noise=noise)[1], served)
        for name, noise, served in (
            ("facet", 1.0, True),
            ("reference", 0.7, True),
            ("facet, flip", 0.9, False),
        )
    ]
    return recognition(embedded, validation, lfw, draws)
