"""Intervals hold the value, widen with few people, and agree with the plain definition where nobody is drawn twice."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import Interval, RankedScores, compared, drawn_people, fnmr_intervals
from training.evaluation.pairwise import People
from training.evaluation.verification import TooFewImpostors, all_pairs, fnmr_at_fmr


def faces(
    people: int, pictures: int = 5, noise: float = 0.8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centre = random.normal(size=(people, 24))
    embedding = np.repeat(centre, pictures, 0) + noise * random.normal(size=(people * pictures, 24))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    family = np.repeat(np.array([f"F{i // 2}" if i < people // 2 else "" for i in range(people)]), pictures)
    return embedding.astype(np.float32), np.repeat(np.arange(people) * 3, pictures), family


def test_the_value_is_the_plain_fnmr_at_fmr_over_all_pairs() -> None:
    embedding, identity, family = faces(60)
    (rates,), _ = fnmr_intervals([embedding], identity, family, (1e-1, 1e-2, 1e-3), draws=5)
    scores = all_pairs(embedding, identity, family)
    for fmr in (1e-1, 1e-2, 1e-3):
        assert rates[fmr].value == pytest.approx(fnmr_at_fmr(scores, fmr)[0], abs=1e-12)


def test_a_person_drawn_twice_weighs_as_two() -> None:
    embedding, identity, family = faces(12)
    people = People.of(identity, family)
    weight = np.ones(12)
    weight[3], weight[5] = 2, 0
    ranked = RankedScores.of(embedding, people, 0.5)
    (got,) = ranked.fnmr([0.1], weight, people.impostor_weight(weight))
    of_face = people.of_face
    impostor, genuine = [], []
    for i in range(len(embedding)):
        for j in range(i):
            one, other = of_face[i], of_face[j]
            score = float(embedding[i] @ embedding[j])
            if one == other:
                genuine += [score] * int(weight[one])
            elif not people.related[one, other]:
                impostor += [score] * int(weight[one] * weight[other])
    falling = np.sort(impostor)[::-1]
    refused = falling[int(0.1 * len(falling))]
    assert got == pytest.approx(np.mean(np.array(genuine) <= refused + 1e-6), abs=0.01)
    assert people.impostor_weight(weight) == len(impostor)


def test_an_interval_holds_its_value_and_narrows_with_more_people() -> None:
    widths = []
    for people in (20, 160):
        (rates,), _ = fnmr_intervals([faces(people, noise=1.4)[0]], *faces(people)[1:], (1e-1,), draws=120)
        of = rates[1e-1]
        assert of.low <= of.value <= of.high
        widths.append(of.high - of.low)
    assert widths[1] < 0.6 * widths[0]


def test_an_embedder_beside_itself_has_ratio_one_without_spread() -> None:
    embedding, identity, family = faces(40)
    _, ratio = fnmr_intervals([embedding, embedding], identity, family, (1e-2,), draws=30)
    assert (ratio[1e-2].low, ratio[1e-2].value, ratio[1e-2].high) == (1.0, 1.0, 1.0)


def test_a_worse_embedder_has_a_ratio_above_one() -> None:
    good, identity, family = faces(60, noise=0.6)
    bad = faces(60, noise=1.1)[0]
    _, ratio = fnmr_intervals([bad, good], identity, family, (1e-2,), draws=60)
    assert ratio[1e-2].low > 1


def test_rates_that_the_pairs_do_not_carry_are_left_out_or_refused() -> None:
    embedding, identity, family = faces(12)
    (rates,), _ = fnmr_intervals([embedding], identity, family, (1e-1, 1e-4), draws=3)
    assert list(rates) == [1e-1]
    with pytest.raises(TooFewImpostors):
        fnmr_intervals([embedding], identity, family, (1e-4,), draws=3)


def test_a_set_that_carries_no_rate_still_has_its_scores() -> None:
    embedding, identity, family = faces(4)
    people = People.of(identity, family)
    rates, ratio, (counts,) = compared([embedding], people, (1e-4,), draws=2)
    assert (rates, ratio) == ([{}], {})
    assert counts.impostor.sum() == people.impostor_weight(np.ones(4))


def test_neither_the_order_of_faces_nor_the_names_of_people_matter() -> None:
    embedding, identity, family = faces(30, noise=1.2)
    order = np.random.default_rng(4).permutation(len(identity))
    names = np.char.zfill(identity[order].astype(str), 4)
    one = fnmr_intervals([embedding], identity, family, (1e-1, 1e-2), draws=20)
    other = fnmr_intervals([embedding[order]], names, family[order], (1e-1, 1e-2), draws=20)
    assert one == other


def test_copies_of_every_picture_do_not_narrow_the_interval() -> None:
    """Ten thousand pairs of eight people are eight people: were pairs drawn, the interval would shrink."""
    embedding, identity, family = faces(8, noise=1.2)
    widths = []
    for copies in (1, 4):
        rows = np.tile(np.arange(len(identity)), copies)
        (rates,), _ = fnmr_intervals([embedding[rows]], identity[rows], family[rows], (1e-1,), draws=100)
        widths.append(rates[1e-1].high - rates[1e-1].low)
    assert widths[1] > 0.5 * widths[0]


def test_people_are_drawn_with_replacement_and_the_same_again() -> None:
    weights = drawn_people(50, 30, seed=1)
    assert weights[0].tolist() == [1] * 50
    assert (weights.sum(1) == 50).all()
    assert 0.2 < (weights[1:] == 0).mean() < 0.5
    assert np.array_equal(weights, drawn_people(50, 30, seed=1))
    assert not np.array_equal(weights, drawn_people(50, 30, seed=2))


def test_an_interval_is_of_the_draws_in_which_the_value_is_defined() -> None:
    assert Interval.of(np.array([0.5, np.nan, 0.2, 0.2, 0.2])) == Interval(0.5, 0.2, 0.2)
    assert Interval.of(np.array([0.5])) == Interval(0.5, 0.5, 0.5)
