"""The paired difference of two embedders' FNMR: known values, and narrower than two separate intervals."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import fnmr_intervals
from training.evaluation.verification import NotUnitVectors, TooFewImpostors, all_pairs, fnmr_at_fmr
from training.export.difference import fnmr_differences

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
