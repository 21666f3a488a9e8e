"""Error rates are what their definitions say, kin apart, and no rate is quoted that the pairs cannot carry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.verification import (
    NotUnitVectors,
    PairScores,
    TooFewImpostors,
    all_pairs,
    fnmr_at_fmr,
    related,
    ten_folds,
    threshold_at_fmr,
)


def unit(*vectors: tuple[float, ...]) -> np.ndarray:
    array = np.array(vectors, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_every_pair_counts_once_and_on_its_side() -> None:
    embedding = unit((1, 0), (1, 1), (0, 1), (-1, 0))
    scores = all_pairs(embedding, np.array([5, 5, 9, 9]), np.full(4, ""))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(np.sort(scores.genuine), [0, half], atol=1e-6)
    np.testing.assert_allclose(np.sort(scores.impostor), [-1, -half, 0, half], atol=1e-6)


def test_kin_are_left_out_and_people_of_unknown_family_are_not_kin() -> None:
    embedding = unit((1, 0), (0, 1), (1, 1), (1, 2))
    family = np.array(["F1", "F1", "", ""])
    assert len(all_pairs(embedding, np.arange(4), family).impostor) == 5


def test_a_person_named_in_two_families_is_kin_to_both_in_every_picture() -> None:
    people = np.array([0, 0, 1, 2, 3])
    of = related(people, np.array(["F1", "F2", "F1", "F2", ""]))
    assert of.tolist() == [
        [True, True, True, False],
        [True, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.1, 0.05]), st.booleans())
def test_the_threshold_is_the_smallest_that_keeps_the_rate(seed: int, fmr: float, tied: bool) -> None:
    scores = np.random.default_rng(seed).normal(size=400).astype(np.float32)
    if tied:
        scores = scores.round(1)
    threshold = threshold_at_fmr(scores, fmr)
    assert (scores >= threshold).mean() <= fmr
    below = scores[scores < threshold].max()
    assert (scores >= below).mean() > fmr


def test_a_rate_on_fewer_than_ten_expected_events_is_refused() -> None:
    impostor = np.linspace(-1, 1, 999, dtype=np.float32)
    with pytest.raises(TooFewImpostors, match=r"999 impostor pairs cannot carry FMR 0\.01"):
        threshold_at_fmr(impostor, 0.01)


def test_fnmr_is_the_share_of_mated_pairs_below_the_threshold() -> None:
    impostor = np.linspace(0, 0.999, 1000, dtype=np.float32)
    genuine = np.array([0.2, 0.8, 0.95, 0.99], np.float32)
    fnmr, threshold = fnmr_at_fmr(PairScores(genuine, impostor), 0.1)
    assert threshold == pytest.approx(0.9, abs=0.002)
    assert fnmr == 0.5


def test_ten_folds_on_scores_that_part_is_perfect() -> None:
    same = np.tile(np.repeat([True, False], 30), 10)
    assert ten_folds(np.where(same, 0.6, 0.1), same) == (1.0, 0.0)


def test_ten_folds_on_scores_that_say_nothing_is_a_coin() -> None:
    same = np.tile(np.repeat([True, False], 300), 10)
    accuracy, error = ten_folds(np.random.default_rng(3).normal(size=6000), same)
    assert 0.46 < accuracy < 0.54
    assert 0 < error < 0.02


def test_the_error_is_that_of_the_mean_and_not_the_folds_deviation() -> None:
    """Nine folds are right throughout, one on 9 of its 10 pairs: a mean of 0.99, squares of 9 · 0.01² + 0.09², over
    10 · (10 − 1)."""
    same = np.tile([True, False], 50)
    similarity = np.where(same, 0.9, 0.1)
    similarity[0] = 0.1
    accuracy, error = ten_folds(similarity, same)
    assert accuracy == pytest.approx(0.99)
    assert error == pytest.approx(((9 * 0.01**2 + 0.09**2) / 90) ** 0.5)
    assert error == pytest.approx(0.01)


def test_a_fold_s_threshold_comes_from_the_others() -> None:
    same = np.tile([True, False], 50)
    similarity = np.where(same, 0.9, 0.1)
    similarity[:10] = np.where(same[:10], 0.1, 0.9)  # the first fold alone is the other way round
    accuracy, _ = ten_folds(similarity, same)
    assert accuracy == pytest.approx(0.9)


def test_ten_folds_agrees_with_every_threshold_tried_by_hand() -> None:
    random = np.random.default_rng(5)
    same = random.random(100) < 0.5
    similarity = random.normal(same * 0.8, 1)
    accuracies = []
    for fold in np.array_split(np.arange(100), 10):
        rest = np.setdiff1d(np.arange(100), fold)
        tried = np.concatenate([similarity[rest] - 1e-9, [9.0]])
        right = [((similarity[rest] >= t) == same[rest]).mean() for t in tried]
        best = {
            ((similarity[fold] >= t) == same[fold]).mean()
            for t, r in zip(tried, right, strict=True)
            if r == max(right)
        }
        accuracies.append(best)
    got, _ = ten_folds(similarity, same)
    low, high = np.mean([min(of) for of in accuracies]), np.mean([max(of) for of in accuracies])
    assert low - 0.02 <= got <= high + 0.02


def test_pairs_that_do_not_count_leave_their_fold_and_change_no_other() -> None:
    random = np.random.default_rng(6)
    same = np.tile([True, False], 50)
    similarity = random.normal(same * 1.0, 1)
    kept = random.random(100) < 0.7
    moved = np.where(kept, similarity, 99)  # what is left out cannot matter
    assert ten_folds(similarity, same, kept=kept) == ten_folds(moved, same, kept=kept)
    assert ten_folds(similarity, same, kept=np.ones(100, bool)) == ten_folds(similarity, same)
    assert ten_folds(similarity, same, kept=kept) != ten_folds(similarity, same)


def test_folds_that_nothing_is_left_of_are_refused() -> None:
    same = np.tile([True, False], 50)
    kept = np.arange(100) >= 10
    with pytest.raises(ValueError, match="90 of 100 pairs in 10 folds"):
        ten_folds(np.where(same, 0.9, 0.1), same, kept=kept)
    with pytest.raises(ValueError, match="in 1 folds"):
        ten_folds(np.where(same, 0.9, 0.1), same, folds=1)


def test_a_model_that_diverged_is_not_a_model_that_misses_nobody() -> None:
    embedding = unit((1, 0), (1, 1), (0, 1), (-1, 0)) * np.float32(np.nan)
    with pytest.raises(NotUnitVectors, match="lengths are nan to nan"):
        all_pairs(embedding, np.array([5, 5, 9, 9]), np.full(4, ""))
