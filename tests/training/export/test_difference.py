"""Paired differences, of two embedders' FNMR and two detectors' recall: known values, and narrower than two separate
intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.decode import Detections
from training.data.widerface import wider
from training.evaluation.bootstrap import fnmr_intervals
from training.evaluation.detection import Scene, recall_at_false_positives
from training.evaluation.finding import HEIGHT_LEAST, Truth
from training.evaluation.verification import NotUnitVectors, TooFewImpostors, all_pairs, fnmr_at_fmr
from training.export import difference
from training.export.difference import (
    TooFewPictures,
    detector_difference,
    fnmr_differences,
    recall_differences,
)

FMR = 1e-2


def people(count: int = 40, pictures: int = 5, noise: float = 0.6, dimension: int = 24, seed: int = 0):
    """(float32 [n, d] unit vectors, identity [n]): directions of people, and a picture's own around it."""
    random = np.random.default_rng(seed)
    of = np.repeat(random.normal(size=(count, dimension)), pictures, 0)
    vectors = of + noise * np.sqrt(dimension) * random.normal(size=of.shape) / 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(count), pictures)


def worse(vectors: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    moved = vectors + noise * np.random.default_rng(seed).normal(size=vectors.shape).astype(np.float32)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def test_an_embedder_does_not_differ_from_itself() -> None:
    vectors, identity = people()
    (found,) = fnmr_differences([vectors], vectors, identity, np.full(len(identity), ""), FMR, draws=50)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_turned_space_is_the_same_embedder() -> None:
    vectors, identity = people()
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(24, 24)))[0].astype(np.float32)
    (found,) = fnmr_differences(
        [vectors @ turn], vectors, identity, np.full(len(identity), ""), FMR, draws=50
    )
    assert abs(found.value) < 0.003


def test_the_value_is_the_plain_difference_and_its_sign_tells_which_is_worse() -> None:
    vectors, identity = people()
    family, other = np.full(len(identity), ""), worse(vectors, 0.15)
    plain = [fnmr_at_fmr(all_pairs(of, identity, family), FMR)[0] for of in (other, vectors)]
    (found,) = fnmr_differences([other], vectors, identity, family, FMR, draws=100)
    assert found.value == pytest.approx(plain[0] - plain[1], abs=2e-3)
    assert 0 < found.low < found.value < found.high
    (back,) = fnmr_differences([vectors], other, identity, family, FMR, draws=100)
    assert back.value == pytest.approx(-found.value)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_pairing_makes_the_interval_narrower_than_either_rate_s() -> None:
    vectors, identity = people()
    family, other = np.full(len(identity), ""), worse(vectors, 0.03)
    rates = [of[FMR] for of in fnmr_intervals([other, vectors], identity, family, (FMR,), 200)[0]]
    (found,) = fnmr_differences([other], vectors, identity, family, FMR, draws=200)
    assert found.high - found.low < 0.75 * min(of.high - of.low for of in rates)


def test_each_is_compared_with_the_base_alone() -> None:
    vectors, identity = people()
    family, others = np.full(len(identity), ""), [worse(vectors, noise) for noise in (0.05, 0.15)]
    together = fnmr_differences(others, vectors, identity, family, FMR, draws=20)
    apart = [fnmr_differences([of], vectors, identity, family, FMR, draws=20)[0] for of in others]
    assert together == apart


def test_too_few_pairs_and_answers_that_are_no_vectors_are_refused() -> None:
    vectors, identity = people(4, 2)
    family = np.full(len(identity), "")
    with pytest.raises(TooFewImpostors, match="24 impostor pairs cannot carry"):
        fnmr_differences([vectors], vectors, identity, family, FMR)
    vectors, identity = people()
    with pytest.raises(NotUnitVectors):
        fnmr_differences([vectors * np.nan], vectors, identity, np.full(len(identity), ""), FMR)


PLACES = np.array([[x, y, x + 50, y + 50] for x in (0, 100, 200) for y in (0, 100)], np.float32)
ELSEWHERE = PLACES + 1000


def scenes(count: int = 40) -> list[Scene]:
    """Pictures of six faces each, the last of which does not count."""
    return [Scene(PLACES, np.arange(6) == 5) for _ in range(count)]


def detector(seed: int, sure: float, count: int = 40, levels: int = 10_000) -> list[Detections]:
    """Each face is found with a random score, higher by `sure`; as many scores are for places without a face."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate([PLACES, ELSEWHERE])
    points = np.zeros((len(boxes), 5, 2), np.float32)
    found = []
    for _ in range(count):
        scores = random.random(len(boxes)) + sure * (np.arange(len(boxes)) < len(PLACES))
        found.append(Detections(boxes, points, (np.round(scores * levels) / levels).astype(np.float32)))
    return found


@pytest.mark.parametrize("levels", [10_000, 20])
@pytest.mark.parametrize("allowed", [0.1, 1.0, 3.0])
def test_recalls_differ_as_each_measured_by_itself(allowed: float, levels: int) -> None:
    """Also where many scores are equal: they pass a threshold together."""
    truth, old, new = scenes(), detector(1, 0.3, levels=levels), detector(2, 0.5, levels=levels)
    (found,) = recall_differences([new], old, truth, allowed, draws=20)
    expected = [recall_at_false_positives(truth, of, allowed).recall for of in (new, old)]
    assert found.value == pytest.approx(expected[0] - expected[1])


def test_a_detector_does_not_differ_from_itself_and_a_better_one_does() -> None:
    truth, old, better = scenes(), detector(1, 0.3), detector(2, 0.6)
    same, more = recall_differences([old, better], old, truth, draws=200)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert 0 < more.low < more.value < more.high
    (less,) = recall_differences([old], better, truth, draws=200)
    assert (less.low, less.high) == pytest.approx((-more.high, -more.low))


def test_what_is_hard_for_both_cancels() -> None:
    """In half of the pictures neither finds anything, so recalls vary by a lot; the difference hardly does."""
    truth = scenes()
    base, other = detector(1, 3.0), detector(1, 3.0)
    nothing = Detections(
        np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)
    )
    for at in range(0, 40, 2):
        base[at] = other[at] = nothing
    other[1] = nothing
    (paired,) = recall_differences([other], base, truth, draws=300)
    none = [nothing] * 40
    (alone,) = recall_differences([base], none, truth, draws=300)
    assert paired.value == pytest.approx(-1 / 40)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_a_detector_of_false_finds_alone_has_recall_0() -> None:
    truth, old = scenes(), detector(1, 3.0)
    false = [Detections(of.boxes + 5000, of.landmarks, of.scores) for of in old]
    (found,) = recall_differences([false], old, truth, draws=20)
    assert found.value == -1


def test_too_few_pictures_or_faces_are_said() -> None:
    with pytest.raises(TooFewPictures, match=r"29 pictures with 145 faces .* takes 30 pictures"):
        recall_differences([detector(1, 1, 29)], detector(1, 1, 29), scenes(29))
    empty = [Scene(PLACES, np.ones(6, bool))] * 40
    with pytest.raises(TooFewPictures, match="40 pictures with 0 faces"):
        recall_differences([detector(1, 1)], detector(1, 1), empty)


def finds(truth: Truth, least: float) -> Detections:
    """All faces of at least that height."""
    boxes = truth.boxes[truth.boxes[:, 3] - truth.boxes[:, 1] >= least]
    return Detections(boxes, np.zeros((len(boxes), 5, 2), np.float32), np.full(len(boxes), 0.9, np.float32))


def test_a_detector_that_loses_the_small_faces_shows_it_in_ap_alone(
    drawn_sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difference, "LEAST_PICTURES", 8)
    root = drawn_sets.root / "wider"
    truth = [Truth.of(one) for one in wider(root, "val")]
    all_of_them, large = ([finds(of, least) for of in truth] for least in (0, HEIGHT_LEAST))
    assert sum(map(len, large)) < sum(map(len, all_of_them))
    found = detector_difference(large, all_of_them, truth, root / "val_protocol")
    assert (found.recall.value, found.recall.low) == (0, 0)
    assert found.average_precision is not None
    hard = found.average_precision["hard"]
    assert hard.low <= hard.value < -0.05
    assert detector_difference(large, all_of_them, truth, tmp_path).average_precision is None
