"""One-to-one error rates (ISO/IEC 19795-1): FNMR at FMR over all pairs, and LFW's ten folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_FALSE_MATCHES = 10  # below ten expected events an FMR is a guess (the rule of 30 is stricter)


class TooFewImpostors(Exception):
    """The impostor pairs cannot carry the false match rate asked for."""


class NotUnitVectors(ValueError):
    """Embeddings that cannot be compared by cosine; scores that are no number would count as accepted."""


def require_unit_vectors(embedding: np.ndarray) -> None:
    """embedding: float [n, d]. Raises NotUnitVectors, for NaN too."""
    length = np.linalg.norm(embedding, axis=1)
    if not np.allclose(length, 1, atol=1e-3):
        raise NotUnitVectors(
            f"embeddings must be unit vectors, lengths are {length.min():.3g} to {length.max():.3g}: has the model "
            "collapsed, or are these not normalised?"
        )


@dataclass(frozen=True)
class PairScores:
    """Cosine similarities of all mated and non-mated pairs. genuine: float32 [g]; impostor: float32 [i]."""

    genuine: np.ndarray
    impostor: np.ndarray


def all_pairs(embedding: np.ndarray, identity: np.ndarray, family: np.ndarray) -> PairScores:
    """Every pair once; pairs of two people of one family are left out (kin are reported apart).

    embedding: float32 [n, d] unit vectors; identity: int [n]; family: str [n], empty where unknown. For thousands of
    faces; `pairwise.blocks` is for more. Raises NotUnitVectors.
    """
    require_unit_vectors(embedding)
    similarity = embedding @ embedding.T
    upper = np.triu(np.ones(similarity.shape, bool), 1)
    of_face = np.unique(identity, return_inverse=True)[1]
    same = of_face[:, None] == of_face[None, :]
    stranger = ~related(of_face, family)[of_face[:, None], of_face[None, :]]
    return PairScores(similarity[upper & same], similarity[upper & stranger])


def related(of_face: np.ndarray, family: np.ndarray) -> np.ndarray:
    """bool [people, people]: one person, or two that share a family in any of their pictures.

    of_face: int [n], 0 … people − 1; family: str [n], empty where unknown. A person can be named in two families.
    """
    names, number = np.unique(family, return_inverse=True)
    member = np.zeros((int(of_face.max()) + 1, len(names)), np.float32)
    member[of_face, number] = names[number] != ""
    return np.asarray((member @ member.T > 0) | np.eye(len(member), dtype=bool))


def threshold_at_fmr(impostor: np.ndarray, fmr: float) -> float:
    """The smallest threshold t with share(impostor ≥ t) ≤ fmr. Raises TooFewImpostors."""
    allowed = int(fmr * len(impostor))
    if fmr * len(impostor) < MIN_FALSE_MATCHES:
        raise TooFewImpostors(f"{len(impostor)} impostor pairs cannot carry FMR {fmr:g}")
    highest_refused = np.partition(impostor, len(impostor) - allowed - 1)[len(impostor) - allowed - 1]
    return float(np.nextafter(highest_refused, np.float32(2)))


def fnmr_at_fmr(scores: PairScores, fmr: float) -> tuple[float, float]:
    """(FNMR, threshold) at a false match rate. Raises TooFewImpostors."""
    threshold = threshold_at_fmr(scores.impostor, fmr)
    return float((scores.genuine < threshold).mean()), threshold


def ten_folds(
    similarity: np.ndarray, same: np.ndarray, folds: int = 10, kept: np.ndarray | None = None
) -> tuple[float, float]:
    """LFW's protocol: accuracy on each fold with the threshold that is best on the other nine.

    Returns (mean, standard error over the folds) in 0–1 of `fold_accuracies`.
    """
    return mean_and_error(fold_accuracies(similarity, same, folds, kept))


def mean_and_error(of_folds: np.ndarray) -> tuple[float, float]:
    """The mean over the folds, float [folds], and its standard error."""
    return float(of_folds.mean()), float(of_folds.std(ddof=1) / np.sqrt(len(of_folds)))


def fold_accuracies(
    similarity: np.ndarray, same: np.ndarray, folds: int = 10, kept: np.ndarray | None = None
) -> np.ndarray:
    """float [folds], 0–1: each fold's accuracy with the threshold that is best on the others.

    similarity: float [n]; same: bool [n], in the official order. kept: bool [n], the pairs that count; those that do
    not leave their fold smaller. Raises ValueError for an empty fold.
    """
    counting = np.arange(len(same)) if kept is None else np.flatnonzero(kept)
    parts = [np.intersect1d(part, counting) for part in np.array_split(np.arange(len(same)), folds)]
    if folds < 2 or not all(map(len, parts)):
        raise ValueError(
            f"{len(counting)} of {len(same)} pairs in {folds} folds: a fold, or the rest of it, is empty"
        )
    accuracies = []
    for test in parts:
        rest = np.setdiff1d(counting, test)
        threshold = _best_threshold(similarity[rest], same[rest])
        accuracies.append(((similarity[test] >= threshold) == same[test]).mean())
    return np.array(accuracies)


def _best_threshold(similarity: np.ndarray, same: np.ndarray) -> float:
    order = np.argsort(-similarity)
    # accepting the k highest: hits among them plus refusals that are right below them
    gain = np.cumsum(np.where(same[order], 1, -1))
    best = int(np.argmax(gain))
    if gain[best] <= 0:
        return float(similarity[order[0]]) + 1e-6
    following = similarity[order[best + 1]] if best + 1 < len(order) else similarity[order[best]] - 1e-6
    return float(similarity[order[best]] + following) / 2
