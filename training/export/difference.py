"""By how much one model's rate differs from another's on the same people or pictures, with its interval: FNMR of
embedders, recall and WIDER's AP of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.decode import Detections
from training.evaluation.bootstrap import Interval, RankedScores, drawn_people
from training.evaluation.detection import Scene, judge
from training.evaluation.finding import Truth, tallies
from training.evaluation.pairwise import People
from training.evaluation.verification import MIN_FALSE_MATCHES, TooFewImpostors
from training.evaluation.wider_protocol import SETTINGS, difference, listed

LEAST_PICTURES = 30  # fewer, drawn anew, do not tell how much pictures differ


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


class TooFewPictures(Exception):
    """The pictures carry no interval of a recall; the message says how many there are."""


@dataclass(frozen=True)
class DetectorDifference:
    """One detector less another on the same pictures at VGA. recall: at one false positive a picture, of faces of
    HEIGHT_LEAST and more; average_precision: WIDER's by setting, of small faces too; None without its lists."""

    recall: Interval
    average_precision: Mapping[str, Interval] | None


def detector_difference(
    found: Sequence[Detections], base: Sequence[Detections], truth: Sequence[Truth], lists: Path
) -> DetectorDifference:
    """Of `found` and `base`, answers to the same validation pictures. lists: the folder of WIDER's official lists.

    AP is of what each was asked for, with its own number of anchors: fit to compare two, and no figure of its own.
    Raises TooFewPictures.
    """
    (recall,) = recall_differences([found], base, [of.scene() for of in truth])
    if not listed(lists):
        return DetectorDifference(recall, None)
    ours, theirs = tallies(truth, found, lists), tallies(truth, base, lists)
    return DetectorDifference(recall, {of: difference(ours[of], theirs[of]) for of in SETTINGS})


def recall_differences(
    found: Sequence[Sequence[Detections]],
    base: Sequence[Detections],
    scenes: Sequence[Scene],
    false_positives: float = 1.0,
    draws: int = 500,
    seed: int = 0,
) -> list[Interval]:
    """Recall at `false_positives` a picture of each of `found`, less that of `base`; each has its own threshold.

    found, base: detections in the same pictures, whose truth is `scenes`. The bounds hold 95 % of the differences over
    `draws` sets of pictures drawn with replacement, the same for both of a pair. Raises TooFewPictures.
    """
    faces = np.array([int((~of.ignored).sum()) for of in scenes])
    if len(scenes) < LEAST_PICTURES or not faces.any():
        raise TooFewPictures(
            f"{len(scenes)} pictures with {faces.sum()} faces carry no interval: it takes {LEAST_PICTURES} pictures"
        )
    judged = [_Judged.of(of, scenes) for of in (base, *found)]
    weights = drawn_people(len(scenes), draws, seed)
    weights = weights[weights @ faces > 0]
    recalls = np.array([[of.recall(w, faces, false_positives) for of in judged] for w in weights])
    return [Interval.of(recalls[:, i] - recalls[:, 0]) for i in range(1, len(judged))]


@dataclass(frozen=True)
class _Judged:
    """What one detector found, best first: the picture of each, and whether it is a hit or a false positive."""

    picture: np.ndarray
    hit: np.ndarray
    miss: np.ndarray
    cuts: np.ndarray  # places after which a threshold can stand: equal scores pass together

    @staticmethod
    def of(found: Sequence[Detections], scenes: Sequence[Scene]) -> _Judged:
        verdicts = [judge(scene, of) for scene, of in zip(scenes, found, strict=True)]
        scores, hit, miss = (np.concatenate([verdict[i] for verdict in verdicts]) for i in range(3))
        picture = np.repeat(np.arange(len(scenes)), [len(of) for of in found])
        order = np.argsort(-scores, kind="stable")
        last = np.append(np.diff(scores[order]) != 0, True) if len(scores) else np.zeros(0, bool)
        return _Judged(picture[order], hit[order], miss[order], np.flatnonzero(last))

    def recall(self, weight: np.ndarray, faces: np.ndarray, false_positives: float) -> float:
        """weight, faces: [pictures], how often each is drawn, and its faces that count."""
        drawn = weight[self.picture]
        misses = np.cumsum(drawn * self.miss)[self.cuts]
        allowed = int(np.searchsorted(misses, false_positives * weight.sum(), side="right"))
        if not allowed:
            return 0.0
        return float((drawn * self.hit)[: self.cuts[allowed - 1] + 1].sum() / (weight @ faces))
