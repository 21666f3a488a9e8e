"""What is wrong with a labelled set, as far as its faces' embeddings tell: copies, strangers, people with two labels.

Nothing is deleted here: each finding is a proposal with its numbers, in a table that a person can edit and then apply.
Copies are found first (two of one wrong face would vouch for each other), then the outliers among the rest, then the
identities that collide once their outliers are left out. Everything works block by block: memory grows with the faces
and with the findings, never with their pairs.

The thresholds were chosen on 34,565 faces with the reference embedder. Copies that were compressed to quality 30,
halved, brightened or moved by half a pixel are found in 98 of 100 cases (by a whole pixel and a turn: in one of four),
and of two strangers' pictures within 24 bits 95 % are less alike than 0.3. Of faces with a wrong label, 40 % of a set
of 2 to 500 people, 98 to 100 % are found, and of those called outliers 95 to 100 % are wrong; 3 % of the faces as they
came are outliers. Halves of one person's ten pictures or more are 0.7 alike in 95 of 100 cases, two people in 1 of 10⁶.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.pictures import BadData

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

ROUNDS = 8  # until the direction that most faces of an identity agree on stands still
PAIRS_A_FACE = 50  # that are found alike on average; more say that the embedder sees no differences
_ROWS, _COLUMNS = 1024, 8192  # of the similarities that are in memory at a time: 32 MB


@dataclass(frozen=True)
class Limits:
    """copy, bits: least similarity and most differing bits (of 256) of two copies of one picture; own: an outlier is
    less similar to its identity's other faces; foreign, more: or it is at least so similar to another identity, and by
    so much more than to its own; collision: least similarity of two identities that are one person."""

    copy: float = 0.85
    bits: int = 24
    own: float = 0.2
    foreign: float = 0.6
    more: float = 0.2
    collision: float = 0.7


@dataclass(frozen=True)
class Findings:
    """What a set's faces and identities look like. By face [n]; by label where said.

    own: float32, similarity to what its identity's other faces agree on, NaN where there are none (copies aside);
    copy_of: int64, the face of which it is a copy, else −1;
    outlier: bool; nearest: int64 and foreign: float32, the other label that a face resembles most, and how much (−1 and
    NaN where `own` is NaN);
    colliding: int64 [m, 2], pairs of labels, the one with fewer faces first; alike: float32 [m], their similarity.
    """

    own: Floats
    copy_of: Ints
    outlier: npt.NDArray[np.bool_]
    nearest: Ints
    foreign: Floats
    colliding: Ints
    alike: Floats

    def counts(self, label: Ints) -> dict[str, int]:
        copy = self.copy_of >= 0
        across = label[self.copy_of] != label
        return {
            "faces": len(label),
            "copies": int((copy & ~across).sum()),
            "copies_across_identities": int((copy & across).sum()),
            "outliers": int(self.outlier.sum()),
            "only_faces": int(np.isnan(self.own[~copy]).sum()),
            "colliding_identities": len(self.alike),
        }


def findings(
    embedding: Floats,
    label: Ints,
    hashes: npt.NDArray[np.bool_],
    family: npt.NDArray[np.str_] | None = None,
    limits: Limits = Limits(),
) -> Findings:
    """embedding: float32 [n, d] unit vectors; label: int64 [n], 0 … identities − 1; hashes: bool [n, 256] of the crops;
    family: [n] strings, empty where unknown: kin look alike and do not collide.

    Raises BadData for vectors that are none, and where so many are alike that the embedder sees no differences.
    """
    _require(embedding, label)
    copy_of = copies(embedding, hashes, agreement(embedding, label)[1], limits)
    rest = np.flatnonzero(copy_of < 0)
    own = np.full(len(label), np.nan, np.float32)
    own[rest] = agreement(embedding[rest], label[rest])[1]
    odd = own < limits.own
    judged = np.flatnonzero(~np.isnan(own))
    nearest, foreign = np.full(len(label), -1), np.full(len(label), np.nan, np.float32)
    direction = _directions(embedding, label, (copy_of < 0) & ~odd)
    nearest[judged], foreign[judged] = _nearest(embedding[judged], label[judged], direction)
    outlier = odd | ((foreign >= limits.foreign) & (foreign - own >= limits.more))
    direction = _directions(embedding, label, (copy_of < 0) & ~outlier)
    colliding, alike = collisions(direction, limits.collision)
    if family is not None and len(colliding):
        families = _families(label, family)
        strangers = np.array([families[one].isdisjoint(families[other]) for one, other in colliding.tolist()])
        colliding, alike = colliding[strangers], alike[strangers]
    fewer_first = np.bincount(label, minlength=len(direction))[colliding].argsort(1, kind="stable")
    colliding = np.take_along_axis(colliding, fewer_first, 1)
    return Findings(own, copy_of, outlier, nearest, foreign, colliding, alike)


def _directions(embedding: Floats, label: Ints, kept: npt.NDArray[np.bool_]) -> Floats:
    """What each identity's kept faces agree on: float32 [identities, d], zeros where none is kept."""
    return agreement(embedding[kept], label[kept], int(label.max()) + 1)[0]


def agreement(embedding: Floats, label: Ints, identities: int | None = None) -> tuple[Floats, Floats]:
    """What each identity's faces agree on, float32 [identities, d] unit vectors (zeros without faces), and how similar
    each face is to what the others agree on, float32 [n], NaN where there are no others.

    A face counts with the square of its similarity, in rounds from the plain mean. Where 40 % of an identity's faces
    show one other person, the plain mean lies between the two and finds neither odd; this settles on the larger part.
    """
    count = np.bincount(label, minlength=identities or 0)
    weight = np.ones(len(label), np.float32)
    for _ in range(ROUNDS):
        direction = _unit(_sums(embedding * weight[:, None], label, len(count)))
        weight = np.maximum(_dots(embedding, direction[label]), 0.01) ** 2
    total = _sums(embedding * weight[:, None], label, len(count))
    own = _dots(embedding, _unit(total[label] - embedding * weight[:, None]))
    return _unit(total), np.where(count[label] > 1, own, np.float32(np.nan))


def copies(embedding: Floats, hashes: npt.NDArray[np.bool_], own: Floats, limits: Limits = Limits()) -> Ints:
    """int64 [n]: for each face the one of which it is a copy, −1 where there is none.

    Of two copies the one that is more like its own identity (own: [n], NaN for unknown) is the original; no original is
    itself a copy.
    """
    pairs = [(first, second) for first, second, _ in _alike(embedding, limits.copy)]
    first, second = (
        (np.concatenate(of) for of in zip(*pairs, strict=True)) if pairs else (np.zeros(0, int),) * 2
    )
    same = (hashes[first] != hashes[second]).sum(1) <= limits.bits
    rank = np.argsort(np.argsort(-np.nan_to_num(own, nan=-1), kind="stable"))
    ordered = np.sort(rank[np.stack([first[same], second[same]], 1)], axis=1)
    face = np.argsort(rank)
    copy_of = np.full(len(own), -1)
    for better, worse in face[ordered[np.lexsort(ordered.T[::-1])]]:
        if copy_of[better] < 0 and copy_of[worse] < 0:
            copy_of[worse] = better
    return copy_of


def collisions(direction: Floats, least: float) -> tuple[Ints, Floats]:
    """Pairs of rows, int64 [m, 2], and similarities, float32 [m], most alike first. direction: float32 [c, d]."""
    found = [*_alike(direction, least)]
    if not found:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    first, second, alike = (np.concatenate(of) for of in zip(*found, strict=True))
    order = np.argsort(-alike, kind="stable")
    return np.stack([first, second], 1)[order], alike[order]


def _alike(vectors: Floats, least: float) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Pairs of rows first < second with at least that similarity, a block at a time. Raises BadData beyond
    PAIRS_A_FACE."""
    allowed = PAIRS_A_FACE * len(vectors)
    for top in range(0, len(vectors), _ROWS):
        for left in range(top - top % _COLUMNS, len(vectors), _COLUMNS):
            similarity = vectors[top : top + _ROWS] @ vectors[left : left + _COLUMNS].T
            row, column = np.nonzero(similarity >= least)
            first, second = row + top, column + left
            later = first < second
            allowed -= int(later.sum())
            if allowed < 0:
                raise BadData(
                    f"more than {PAIRS_A_FACE} pairs a face are at least {least:g} alike: this embedder tells nobody "
                    "apart; choose one that was trained, or raise the limit"
                )
            yield first[later], second[later], similarity[row, column][later]


def _nearest(embedding: Floats, label: Ints, direction: Floats) -> tuple[Ints, Floats]:
    """The other label whose direction each face is most similar to, and the similarity."""
    nearest, foreign = np.zeros(len(label), np.int64), np.zeros(len(label), np.float32)
    for start in range(0, len(label), _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = embedding[rows] @ direction.T
        similarity[np.arange(len(similarity)), label[rows]] = -2
        nearest[rows], foreign[rows] = similarity.argmax(1), similarity.max(1)
    return nearest, foreign


def _families(label: Ints, family: npt.NDArray[np.str_]) -> dict[int, set[str]]:
    """By label; a person can be named in several."""
    named: dict[int, set[str]] = {who: set() for who in np.unique(label).tolist()}
    for who, name in set(zip(label.tolist(), family.tolist(), strict=True)):
        if name:
            named[who].add(name)
    return named


def _sums(vectors: Floats, label: Ints, identities: int) -> Floats:
    """float32 [identities, d]: the sum of each label's vectors."""
    order = np.argsort(label, kind="stable")
    present, start = np.unique(label[order], return_index=True)
    sums = np.zeros((identities, vectors.shape[1]), np.float32)
    if len(present):
        sums[present] = np.add.reduceat(vectors[order], start)
    return sums


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _dots(vectors: Floats, others: Floats) -> Floats:
    return np.asarray(np.einsum("nd,nd->n", vectors, others), np.float32)


def _require(embedding: Floats, label: Ints) -> None:
    if embedding.ndim != 2 or label.shape != (len(embedding),):
        raise ValueError(f"shapes do not fit: {embedding.shape}, {label.shape}")
    length = np.linalg.norm(embedding, axis=1)
    if not np.allclose(length, 1, atol=1e-3):  # false for NaN too
        raise BadData(
            f"the embeddings are no unit vectors (lengths {length.min():.3g} to {length.max():.3g}): wrong embedder?"
        )
