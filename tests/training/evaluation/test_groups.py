"""Groups are judged at one threshold, the whole set's, each by its own pairs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.groups import by_group
from training.evaluation.verification import TooFewImpostors, all_pairs, threshold_at_fmr


def a_set() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An easy group, a hard one, and kin among the hard."""
    easy = drawn_people(40, 4, noise=0.4, seed=1)
    hard = drawn_people(40, 4, noise=1.5, seed=2)
    embedding, identity, family = (np.concatenate(of) for of in zip(easy, hard, strict=True))
    identity[160:] += 1000
    family[160:][np.isin(identity[160:], [1100, 1101])] = "F"
    return embedding, identity, family, np.repeat(["easy", "hard"], 160)


def test_rates_are_those_of_the_group_s_own_pairs_at_the_common_threshold() -> None:
    embedding, identity, family, group = a_set()
    threshold = threshold_at_fmr(all_pairs(embedding, identity, family).impostor, 1e-2)
    for of in by_group(embedding, identity, family, group, fmr=1e-2, draws=20):
        rows = group == of.group
        scores = all_pairs(embedding[rows], identity[rows], family[rows])
        assert (of.people, of.faces) == (40, 160)
        assert (of.mated, of.non_mated) == (len(scores.genuine), len(scores.impostor))
        assert of.fnmr is not None
        assert of.fnmr.value == pytest.approx((scores.genuine < threshold).mean())
        assert of.fnmr.low <= of.fnmr.value <= of.fnmr.high
        assert of.fmr is not None
        assert of.fmr.value == pytest.approx((scores.impostor >= threshold).mean())


def test_the_hard_group_misses_more() -> None:
    easy, hard = by_group(*a_set(), fmr=1e-2, draws=20)
    assert easy.fnmr is not None
    assert hard.fnmr is not None
    assert easy.fnmr.high < hard.fnmr.low


def test_a_group_without_mated_pairs_or_with_few_others_says_nothing() -> None:
    embedding, identity, family, group = a_set()
    _, first = np.unique(identity, return_index=True)
    group[first[:3]] = "single pictures"
    single = by_group(embedding, identity, family, group, fmr=1e-2, draws=5)[-1]
    assert (single.people, single.mated, single.non_mated) == (3, 0, 3)
    assert single.fnmr is None
    assert single.fmr is None
    assert single.metrics()["fnmr"] is None


def test_a_set_that_does_not_carry_the_rate_is_refused() -> None:
    embedding, identity, family = drawn_people(10, 2)
    with pytest.raises(TooFewImpostors):
        by_group(embedding, identity, family, np.full(20, "all"))
